"""Traces as CSV files: our own format, and those of two public sets."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from autoscaling.simulation.trace import DAY_S, LONGEST_S, Trace

Row = tuple[float, int, int]


@dataclass(frozen=True)
class Format:
    """How a family of files names its columns and writes time."""

    name: str
    columns: tuple[str, str, str]  # arrival, prompt tokens, output tokens
    seconds: Callable[[str], float]  # raises ValueError
    time: str  # what a time looks like, for errors
    least_tokens: int  # a row with fewer is a mistake
    from_first: bool  # whether time counts from the first request
    has_zone: Callable[[str], bool] | None = None  # of a time that `seconds` takes; None: times are numbers


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise ValueError(text)
    return value


def _timestamp(text: str) -> float:
    stamp = datetime.fromisoformat(text)
    # Without a zone every row has the same one; naming it keeps this machine's summer time out of the differences.
    return (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()


def _is_zoned(text: str) -> bool:
    return datetime.fromisoformat(text).tzinfo is not None


SECONDS = "seconds since the trace began, such as 12.5"
FORMATS = (
    Format("Manta's", ("arrival_s", "prompt_tokens", "output_tokens"), _number, SECONDS, least_tokens=1, from_first=False),
    Format(
        "Azure's",
        ("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
        _timestamp,
        "a time such as 2023-11-16 18:15:46.6805900",
        least_tokens=0,
        from_first=True,
        has_zone=_is_zoned,
    ),
    Format("BurstGPT's", ("Timestamp", "Request tokens", "Response tokens"), _number, SECONDS, least_tokens=0, from_first=True),
)


def read_csv(path: Path) -> Trace:
    """Return the trace of a file; its header says which format it has, and other columns are passed over.

    Requests are sorted by arrival, and the trace ends with the last. Rows of the public sets with 0 tokens are failed
    requests, and left out.

    Raises:
        ValueError: the file cannot be read or holds something else; says which line and column, and what belongs there.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            layout, rows = _parse(csv.reader(file), str(path))
    except (OSError, UnicodeDecodeError, csv.Error) as err:
        why = (err.strerror or str(err)).lower() if isinstance(err, OSError) else str(err)
        raise ValueError(f"{path} cannot be read: {why}; give a CSV file in UTF-8") from err
    if not rows:
        raise ValueError(f"{path} has no requests under its header; add rows of {','.join(layout.columns)}")
    rows.sort()
    if not layout.from_first and (first_s := rows[0][0]) > LONGEST_S:
        late = f"its first request arrives at {first_s:.15g}, after {first_s / DAY_S:,.0f} days"
        fix = "arrivals are seconds, not milliseconds, from the trace's start: subtract the first one"
        raise ValueError(f"{path}: {layout.columns[0]}: {late}; {fix}")
    return _trace(path.stem, rows, from_first=layout.from_first)


def _parse(lines: Iterator[list[str]], name: str) -> tuple[Format, list[Row]]:
    header = [column.strip() for column in next(lines, [])]
    for layout in FORMATS:
        if set(layout.columns) <= set(header):
            places = [header.index(column) for column in layout.columns]
            return layout, list(_rows(lines, layout, places, name=name))
    known = "; or ".join(f"{','.join(layout.columns)} ({layout.name})" for layout in FORMATS)
    got = ",".join(header)[:100] or "nothing"
    raise ValueError(f"{name}:1: the header names no known columns; write {known}; got {got}")


def _rows(lines: Iterator[list[str]], layout: Format, places: Sequence[int], *, name: str) -> Iterator[Row]:
    zones: set[bool] = set()
    for number, cells in enumerate(lines, start=2):
        where = f"{name}:{number}"
        if not cells:
            continue  # an empty line
        if len(cells) <= max(places):
            raise ValueError(f"{where}: {len(cells)} columns, the header needs {max(places) + 1}; complete the line")
        at_s = _cell(cells[places[0]], layout.seconds, words=layout.time, where=f"{where}: {layout.columns[0]}")
        _check_zones(cells[places[0]].strip(), layout, zones, where=f"{where}: {layout.columns[0]}")
        prompt, output = (
            _cell(
                cells[place],
                lambda text: _tokens(text, layout.least_tokens),
                words=f"a whole number of tokens, at least {layout.least_tokens}",
                where=f"{where}: {column}",
            )
            for place, column in zip(places[1:], layout.columns[1:], strict=True)
        )
        if prompt and output:
            yield at_s, int(prompt), int(output)


def _check_zones(text: str, layout: Format, zones: set[bool], *, where: str) -> None:
    """Refuse a time that has a zone where those before it have none, or the other way: between them lie unknown hours."""
    if layout.has_zone is None:
        return
    zones.add(has_zone := layout.has_zone(text))
    if len(zones) > 1:
        differs = "has a zone and those before it have none" if has_zone else "has no zone and those before it have one"
        raise ValueError(f"{where}: this time {differs}; write all with their zone, or none; got {text[:40]!r}")


def _cell(text: str, read: Callable[[str], float], *, words: str, where: str) -> float:
    try:
        return read(text.strip())
    except ValueError as err:
        raise ValueError(f"{where}: write {words}; got {text[:40]!r}") from err


def _tokens(text: str, least: int) -> int:
    count = int(text)
    if not least <= count < 2**31:
        raise ValueError(text)
    return count


def _trace(name: str, rows: Sequence[Row], *, from_first: bool) -> Trace:
    arrivals_s = np.array([row[0] for row in rows], dtype=np.float64)
    if from_first:
        arrivals_s -= arrivals_s[0]
    prompts = np.array([row[1] for row in rows], dtype=np.int64)
    outputs = np.array([row[2] for row in rows], dtype=np.int64)
    return Trace(name, arrivals_s, prompts, outputs, duration_s=max(1.0, float(arrivals_s[-1])))
