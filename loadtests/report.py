"""Report: a run as one HTML file that needs nothing else, in light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autoscaling.simulation.report import FRAME, template_beside
from loadtests.charts import COLOURS, all_charts, colours
from loadtests.figures import Part, ShareFigures
from loadtests.gates import span
from loadtests.outcomes import Outcome
from loadtests.result import Result

BAR_WIDTH = 220
QUANTILES = ("p50_s", "p90_s", "p95_s", "p99_s", "most_s")
TITLES = {
    "ttft": "time to first token",
    "itl": "inter-token latency, a stream's mean",
    "gap": "every gap between tokens",
    "longest_gap": "a stream's longest gap",
    "e2e": "whole answer",
    "late": "sent after its time",
}


@dataclass(frozen=True, slots=True)
class TimesRow:
    """A line of the table of percentiles; ``kind`` is the class of its part's colour."""

    part: str
    kind: str
    title: str
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShareRow:
    """A variant's share as text and as places on a bar."""

    name: str
    cells: tuple[str, ...]
    low: float
    high: float
    at: float
    weight: float | None


@dataclass(frozen=True, slots=True)
class Change:
    """A figure beside that of an earlier run; ``mood`` is better, worse or same."""

    name: str
    before: str
    now: str
    change: str
    mood: str


def render(result: Result, earlier: Mapping[str, Any] | None = None) -> str:
    """Return the HTML; the same result gives the same text. ``earlier`` is the document of a run to compare with."""
    template = template_beside(__file__)
    seen = result.figures
    return template.render(
        title=f"Load test {result.scenario.name}",
        result=result,
        facts=result.facts.items(),
        tiles=list(tiles(result)),
        rows=list(rows(result)),
        failures=list(failures((*seen.entries, seen.total) if len(seen.entries) > 1 else seen.entries)),
        shares=[share_row(share) for share in seen.shares],
        changes=list(changes(result, earlier)) if earlier is not None else [],
        earlier=earlier["facts"].get("measured", "") if earlier is not None else "",
        charts=list(all_charts(seen, result.scenario.load.mode, earlier)),
        frame=FRAME,
        bar_width=BAR_WIDTH,
        colours=COLOURS,
        legend=colours(seen).items(),
    )


def tiles(result: Result) -> Iterator[tuple[str, str, str]]:
    """Yield the figures that come first: name, value, and what to know of it."""
    seen, times = result.figures, result.figures.total.times
    yield "TTFT p95", span(times["ttft"].p95_s), f"p50 {span(times['ttft'].p50_s)}"
    yield "ITL p95", span(times["itl"].p95_s), f"p50 {span(times['itl'].p50_s)}"
    yield "answered", f"{seen.throughput.answered:.4g}/s", f"of {seen.throughput.offered:.4g}/s asked for"
    yield "tokens", f"{seen.throughput.tokens:,.4g}/s", f"{seen.total.totals.get('tokens', 0):,} in all"
    low, high = (100 * end for end in seen.total.error_interval)
    yield "failed", _percent(seen.total.error_rate), f"of {seen.total.requests:,}; 95 %: {low:.2g} to {high:.2g} %"


def rows(result: Result) -> Iterator[TimesRow]:
    """Yield the table of percentiles."""
    seen, kinds = result.figures, colours(result.figures)
    parts = seen.entries if len(seen.entries) == 1 else (*seen.entries, seen.total)
    for part in parts:
        for kind, title in TITLES.items():
            times = part.times[kind]
            if times.count or times.endless:
                values = [getattr(times, quantile) for quantile in QUANTILES]
                cells = (f"{times.count:,}", *(span(value) for value in (times.mean_s, *values)))
                yield TimesRow(part.name, kinds.get(part.name, "all"), title, cells)


def failures(parts: Sequence[Part]) -> Iterator[tuple[str, str, str]]:
    """Yield what went wrong: part, class with its number, and the messages."""
    for part in parts:
        for outcome, count in part.outcomes.items():
            if outcome != Outcome.OK:
                said = [f"{number:,} x {text}" for text, number in part.messages.items() if text.startswith(f"{outcome}: ")]
                yield part.name, f"{outcome}: {count:,}", "; ".join(said[:3]).replace(f"{outcome}: ", "")


def share_row(share: ShareFigures) -> ShareRow:
    """Return a variant's line."""
    low, high = share.interval
    weight = "-" if share.weight is None else _percent(share.weight)
    failed = f"{share.failures:,} of {share.judged:,}"
    interval = f"{_percent(low)} to {_percent(high)}"
    cells = (f"{share.conversations:,}", _percent(share.share), interval, weight, f"{share.flips:,}", failed)
    at = 0.0 if math.isnan(share.share) else share.share
    width = float(BAR_WIDTH)
    left, right, dot = (round(width * value, 1) for value in (low, high, at))
    mark = None if share.weight is None else round(width * share.weight, 1)
    return ShareRow(f"{share.model}/{share.variant}", cells, left, right, dot, mark)


def changes(result: Result, earlier: Mapping[str, Any]) -> Iterator[Change]:
    """Yield figures beside those of an earlier run; what either lacks is left out."""
    now, before = result.to_json()["figures"], earlier["figures"]
    for name, path, unit, is_less_better in (
        ("TTFT p50", ("total", "times", "ttft", "p50_s"), "s", True),
        ("TTFT p95", ("total", "times", "ttft", "p95_s"), "s", True),
        ("ITL p50", ("total", "times", "itl", "p50_s"), "s", True),
        ("ITL p95", ("total", "times", "itl", "p95_s"), "s", True),
        ("whole answer p95", ("total", "times", "e2e", "p95_s"), "s", True),
        ("failed", ("total", "error_rate"), "%", True),
        ("answered per second", ("throughput", "answered"), "", False),
        ("tokens per second", ("throughput", "tokens"), "", False),
    ):
        old, new = _at(before, path), _at(now, path)
        if old is not None and new is not None:
            yield _change(name, old, new, unit=unit, is_less_better=is_less_better)


def _change(name: str, old: float, new: float, *, unit: str, is_less_better: bool) -> Change:
    ratio = new / old if old else math.nan
    change = "-" if math.isnan(ratio) else f"{100 * (ratio - 1):+.1f} %"
    mood = "same"
    if not math.isnan(ratio) and abs(ratio - 1) > 0.05:
        mood = "better" if (ratio < 1) == is_less_better else "worse"
    shown = [span(value) if unit == "s" else _percent(value) if unit == "%" else f"{value:,.4g}" for value in (old, new)]
    return Change(name, shown[0], shown[1], change, mood)


def _at(document: Any, path: Sequence[str]) -> float | None:
    for key in path:
        document = document.get(key) if isinstance(document, dict) else None
    return float(document) if isinstance(document, int | float) else None


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.3g} %"
