"""The levels of load in a Locust history: what was measured while the number of users stayed the same."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median

FIRST, GAP = "TTFT", "ITL"  # types of Manta's own events: seconds to the first token, and between tokens
AGGREGATED = "Aggregated"
SHORTEST_S = 5.0  # a level with less than this left tells nothing
HOW = "run Locust with `--csv PREFIX --csv-full-history` and give PREFIX_stats_history.csv"
COLUMNS = (
    "Timestamp",
    "User Count",
    "Type",
    "Name",
    "95%",
    "99%",
    "Total Request Count",
    "Total Failure Count",
    "Total Average Response Time",
)


class HistoryError(ValueError):
    """The text is not a history that levels can be read from; says which line, column or level, and what to do."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line: an entry's totals since the run began, and the percentiles of its last ten seconds."""

    at_s: float
    users: int
    kind: str  # Locust's Type: GET, POST, or that of an event
    name: str
    requests: int
    failures: int
    total_s: float  # response times of all requests, added up
    p95_s: float | None
    p99_s: float | None


@dataclass(frozen=True, slots=True)
class Entry:
    """What one type of entry did at one level."""

    requests: int
    failures: int
    mean_s: float
    p95_s: float | None  # None: several names together, which have no common percentile
    p99_s: float | None


@dataclass(frozen=True, slots=True)
class Plateau:
    """A span of time with one number of users, without its begin."""

    users: int
    seconds: float
    first: Entry | None  # time to the first token
    gap: Entry | None  # mean time between tokens
    answer: Entry | None  # the request itself; how long it took is in `whole`

    @property
    def whole(self) -> Entry | None:
        """The whole response, where its time is known.

        Locust stops its clock of a streamed request at the headers, unless the locustfile sets `response_time` later.
        """
        if self.answer is not None and self.first is not None and self.answer.mean_s <= self.first.mean_s:
            return None
        return self.answer

    @property
    def counted(self) -> Entry | None:
        """The entry whose requests are the platform's requests."""
        return self.answer or self.first


def read(lines: Iterable[str]) -> list[Row]:
    """Return a history's rows without the aggregated ones. Raises HistoryError."""
    reader = csv.DictReader(lines)
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise HistoryError(f"column {missing[0]!r} is missing, so this is not a Locust history: {HOW}")
    rows = [_row(values, line=reader.line_num) for values in reader]
    if not rows:
        raise HistoryError(f"there is no row under the column names: let the run last, and {HOW}")
    found = [row for row in rows if row.name != AGGREGATED]
    if not found:
        raise HistoryError(f"column 'Name' has only {AGGREGATED!r} rows, so nothing was asked, or: {HOW}")
    return found


def _row(values: Mapping[str, str | None], *, line: int) -> Row:
    def number(column: str) -> float:
        where, text = f"line {line}, column {column!r}", values[column] or ""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise HistoryError(f"{where}: {text!r} is not a number; remove the line if the run was cut off in it")
        if value < 0:
            raise HistoryError(f"{where}: {text!r} is under 0, which Locust never writes; {HOW}")
        return value

    def percentile_s(column: str) -> float | None:
        return None if values[column] == "N/A" else number(column) / 1000

    requests = int(number("Total Request Count"))
    return Row(
        at_s=number("Timestamp"),
        users=int(number("User Count")),
        kind=values["Type"] or "",
        name=values["Name"] or "",
        requests=requests,
        failures=int(number("Total Failure Count")),
        total_s=requests * number("Total Average Response Time") / 1000,
        p95_s=percentile_s("95%"),
        p99_s=percentile_s("99%"),
    )


def plateaus(rows: Sequence[Row], *, settle_s: float, name: str | None = None) -> list[Plateau]:
    """Return the levels by rising users, each without its first ``settle_s`` seconds; ramps are dropped.

    ``name`` chooses one entry of a type that has several. Raises HistoryError.
    """
    chosen = list(_chosen(rows, name))
    spans = [list(span) for users, span in groupby(chosen, key=lambda row: row.users) if users]
    levels = [level for span in spans if (level := _plateau(span, settle_s)) is not None]
    if not levels:
        longest = max(spans, key=_seconds, default=[])
        seen = f"the longest was {longest[0].users} users for {_seconds(longest):.0f} s" if longest else "there were no users"
        need = f"column 'User Count' never kept one value for {settle_s + SHORTEST_S:g} s ({seen})"
        raise HistoryError(f"{need}: hold each number of users for a minute or more, or lower --settle-s")
    for level in levels:
        if level.counted is None or not level.counted.requests:
            came = f"no request ended at {level.users} users within {level.seconds:.0f} s (column 'Total Request Count')"
            raise HistoryError(f"{came}: check the platform, or hold that level for longer")
    return sorted(levels, key=lambda level: level.users)


def _chosen(rows: Sequence[Row], name: str | None) -> Iterator[Row]:
    names: dict[str, set[str]] = {}
    for row in rows:
        names.setdefault(row.kind, set()).add(row.name)
    if name is not None and not any(name in theirs for theirs in names.values()):
        have = ", ".join(sorted({row.name for row in rows}))
        raise HistoryError(f"column 'Name' never has {name!r}: choose with --name among {have}")
    for kind in (FIRST, GAP):
        if len(names.get(kind, ())) > 1 and name not in names[kind]:
            have = ", ".join(sorted(names[kind]))
            raise HistoryError(f"rows of type {kind} have several names ({have}): choose one with --name")
    for row in rows:
        # A model's name chooses its events; the requests behind them are named by their path.
        if name not in names[row.kind] or row.name == name:
            yield row


def _seconds(span: Sequence[Row]) -> float:
    return span[-1].at_s - span[0].at_s if span else 0.0


def _plateau(span: Sequence[Row], settle_s: float) -> Plateau | None:
    kept = [row for row in span if row.at_s >= span[0].at_s + settle_s]
    if _seconds(kept) < SHORTEST_S:
        return None
    answer = [row for row in kept if row.kind not in (FIRST, GAP)]
    first, gap = ([row for row in kept if row.kind == kind] for kind in (FIRST, GAP))
    return Plateau(kept[0].users, _seconds(kept), _entry(first), _entry(gap), _entry(answer))


def _entry(rows: Sequence[Row]) -> Entry | None:
    """Return the differences of the totals, and the median of the windows' percentiles."""
    if not rows:
        return None
    by_name: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        by_name.setdefault((row.kind, row.name), []).append(row)
    requests = sum(theirs[-1].requests - theirs[0].requests for theirs in by_name.values())
    failures = sum(theirs[-1].failures - theirs[0].failures for theirs in by_name.values())
    total_s = sum(theirs[-1].total_s - theirs[0].total_s for theirs in by_name.values())
    is_one = len(by_name) == 1
    return Entry(
        requests=requests,
        failures=failures,
        mean_s=total_s / requests if requests else 0.0,
        p95_s=_typical([row.p95_s for row in rows]) if is_one else None,
        p99_s=_typical([row.p99_s for row in rows]) if is_one else None,
    )


def _typical(values: Sequence[float | None]) -> float | None:
    """Return the median; a window in which nothing ended has no percentile, and Locust writes 0."""
    known = [value for value in values if value is not None]
    return median([value for value in known if value] or known) if known else None
