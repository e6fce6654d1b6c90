"""Report: a comparison of policies as one HTML file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from autoscaling.simulation import chart
from autoscaling.simulation.chart import Chart, Line
from autoscaling.simulation.results import Result

ORACLE = "oracle"
COLOURS = 6
HOUR_S = 3600.0
HEADINGS = (
    "policy",
    "within SLO %",
    "TTFT p50 s",
    "TTFT p95 s",
    "TTFT p99 s",
    "ITL p95 ms",
    "queue p99 s",
    "replica-hours",
    "ratio to oracle",
    "reversals",
    "max replicas",
)
FRAME = {
    "width": chart.WIDTH,
    "height": chart.HEIGHT,
    "left": chart.LEFT,
    "right": chart.WIDTH - chart.RIGHT,
    "top": chart.TOP,
    "bottom": chart.HEIGHT - chart.BOTTOM,
}


@dataclass(frozen=True)
class Row:
    """A line of the table; ``kind`` is the class of its colour."""

    policy: str
    kind: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """What is said of one trace."""

    key: str
    trace: str
    summary: str
    rows: tuple[Row, ...]
    charts: tuple[Chart, ...]


def render(results: Sequence[Result], facts: Mapping[str, str], *, title: str = "Autoscaling policies compared") -> str:
    """Return the HTML; the same results and facts give the same text.

    Args:
        results: one for each policy on each trace; a policy named `oracle` is what the others are measured against.
        facts: what the reader should know of the run, by name: objectives, latency model, command.
        title: of the page.
    """
    template = template_beside(__file__)
    return template.render(
        title=title,
        facts=facts.items(),
        frame=FRAME,
        headings=HEADINGS,
        colours=COLOURS,
        sections=list(sections(results)),
    )


def sections(results: Sequence[Result]) -> Iterator[Section]:
    """Yield a section for each trace, in the order in which they first come."""
    for number, name in enumerate(dict.fromkeys(result.trace for result in results)):
        of_trace = [result for result in results if result.trace == name]
        key = f"t{number}"
        yield Section(key, name, _summary(of_trace[0]), tuple(rows(of_trace)), tuple(_charts(key, of_trace)))


def rows(results: Sequence[Result]) -> Iterator[Row]:
    """Yield the table of one trace, a line for each policy."""
    oracle = next((result.replica_seconds for result in results if result.policy == ORACLE), math.nan)
    kinds = _kinds(results)
    for result in results:
        service, ttft_s = result.service, result.service.ttft_s
        cells = (
            f"{100 * result.attainment:.2f}",
            *(_number(value, 2) for value in (ttft_s.p50, ttft_s.p95, ttft_s.p99)),
            _number(1000 * service.itl_s.p95, 0),
            _number(service.queue_s.p99, 2),
            _number(result.replica_seconds / HOUR_S, 2),
            _number(result.replica_seconds / oracle if oracle else math.nan, 2),
            str(result.reversals),
            str(result.cost.max_replicas),
        )
        yield Row(result.policy, kinds[result.policy], cells)


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:,.{digits}f}"


def _kinds(results: Sequence[Result]) -> dict[str, str]:
    """Return the colour of each policy; the oracle has its own, and others share where there are very many."""
    names = [name for name in dict.fromkeys(result.policy for result in results) if name != ORACLE]
    return {ORACLE: ORACLE, **{name: f"p{index % COLOURS}" for index, name in enumerate(names)}}


def _summary(result: Result) -> str:
    seconds = result.timeline.time_s[-1] if len(result.timeline.time_s) else 0.0
    return f"{result.service.requests:,} requests counted, over {seconds:,.0f} s"


def _charts(key: str, results: Sequence[Result]) -> Iterator[Chart]:
    yield _frontier(f"{key}-frontier", results)
    if not len(results[0].timeline.time_s):
        return
    yield _arrivals(f"{key}-arrivals", results[0])
    kinds = _kinds(results)
    oracle = next((result for result in results if result.policy == ORACLE), None)
    most = max(float(max(each.timeline.target.max(), each.timeline.ready.max())) for each in results)
    deepest = max(float(each.timeline.queue.max()) for each in results)
    for number, result in enumerate(each for each in results if each is not oracle):
        kind = kinds[result.policy]
        yield _replicas(f"{key}-replicas{number}", (result, oracle), kind, most=most)
        yield _queue(f"{key}-queue{number}", (result, oracle), kind, deepest=deepest)
    if oracle is not None and len(results) == 1:
        yield _replicas(f"{key}-replicas", (oracle, None), ORACLE, most=most)


def _frontier(key: str, results: Sequence[Result]) -> Chart:
    points = [(each.replica_seconds / HOUR_S, 100 * each.attainment, each.policy) for each in results]
    lowest, dearest = min(p[1] for p in points), max(p[0] for p in points)
    axes = (chart.axis("replica-hours", 0.0, dearest), chart.axis("within SLO (%)", min(lowest, 99.0), 100.0))
    kinds = _kinds(results)
    best = np.array(sorted(_undominated(points)))
    said = "; ".join(f"{policy} {y:.1f} % for {x:.2f}" for x, y, policy in points)
    return Chart(
        key,
        "Service against cost",
        f"Share of requests within the objectives against replica-hours: {said}.",
        *axes,
        note="dotted: what no policy here beats",
        lines=(Line(chart.curve(best[:, 0], best[:, 1], axes), "frontier"),),
        points=chart.scatter([(x, y, policy, kinds[policy]) for x, y, policy in points], axes),
    )


def _undominated(points: Sequence[tuple[float, float, str]]) -> Iterator[tuple[float, float]]:
    """Yield the points for which no other costs as little and serves better, or serves as well for less."""
    for x, y, _ in points:
        if not any(a <= x and b >= y and (a, b) != (x, y) for a, b, _ in points):
            yield x, y


def _arrivals(key: str, result: Result) -> Chart:
    line = result.timeline
    times, rates = chart.thinned(line.time_s[1:], line.arrivals_per_s[1:], np.mean)  # nothing comes before the first point
    most = float(rates.max()) if len(rates) else 0.0
    axes = (chart.time_axis(float(line.time_s[-1])), chart.axis("requests per second", 0.0, most))
    return Chart(
        key,
        "Arrivals",
        f"Requests per second over time, at most {most:.1f}.",
        *axes,
        lines=(Line(chart.curve(times, rates, axes), "load"),),
    )


Pair = tuple[Result, Result | None]  # what is shown, and the oracle behind it


def _replicas(key: str, pair: Pair, kind: str, *, most: float) -> Chart:
    result, oracle = pair
    line = result.timeline
    axes = (chart.time_axis(float(line.time_s[-1])), chart.axis("replicas", 0.0, most, whole=True))
    lines = [] if oracle is None else [Line(chart.stairs(oracle.timeline.time_s, oracle.timeline.ready, axes), ORACLE)]
    lines.append(Line(chart.stairs(line.time_s, line.target, axes), f"{kind} target"))
    lines.append(Line(chart.stairs(line.time_s, line.ready, axes), kind))
    spread = f"{line.ready.min():.0f} to {line.ready.max():.0f} replicas ready, at most {line.target.max():.0f} asked for"
    behind = "" if oracle is None else ", grey the oracle's"
    note = f"solid ready, dashed asked for{behind}"
    return Chart(key, f"{result.policy}: replicas", f"Over time: {spread}.", *axes, note=note, lines=tuple(lines))


def _queue(key: str, pair: Pair, kind: str, *, deepest: float) -> Chart:
    result, oracle = pair
    axes = (chart.time_axis(float(result.timeline.time_s[-1])), chart.axis("requests waiting", 0.0, deepest, whole=True))
    lines = []
    for each, colour in ((oracle, ORACLE), (result, kind)):
        if each is not None:
            times, depths = chart.thinned(each.timeline.time_s, each.timeline.queue, np.max)
            lines.append(Line(chart.curve(times, depths, axes), colour))
    most = f"{result.timeline.queue.max():,.0f}"
    return Chart(
        key,
        f"{result.policy}: queue depth",
        f"Requests waiting over time, at most {most}.",
        *axes,
        note=f"at most {most}",
        lines=tuple(lines),
    )


def template_beside(module_file: str) -> Template:
    """Return the page template `report.html.j2` in the folder of a module; what it is not given is an error."""
    return Environment(
        loader=FileSystemLoader(Path(module_file).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("report.html.j2")
