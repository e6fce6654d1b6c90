"""Charts: the pictures of a run's report, on the axes and paths of the simulator's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoscaling.simulation import chart
from autoscaling.simulation.chart import Axis, Chart, Line
from loadtests.figures import Figures
from loadtests.gates import span
from loadtests.scenario import Mode
from loadtests.tally import Slot

COLOURS = 6
SHOWN_SHARE = 0.995  # of a distribution; the rest would flatten it


@dataclass(frozen=True, slots=True)
class Series:
    """A line of a chart: points, and the class of its colour."""

    points: Sequence[tuple[float, float]]
    kind: str
    is_stairs: bool = False


def all_charts(seen: Figures, mode: Mode, earlier: Mapping[str, Any] | None) -> Iterator[Chart]:
    """Yield the pictures for which there is something to show."""
    kinds = colours(seen)
    for kind, title in (
        ("ttft", "Time to first token"),
        ("itl", "Inter-token latency (mean of a stream)"),
        ("e2e", "Whole answer"),
    ):
        yield from _cdf(seen, kind, title, kinds=kinds, earlier=earlier)
    yield from _rates(seen)
    yield _tokens(seen)
    yield from _ttft_over_time(seen)
    yield from _concurrency(seen)
    yield from _replicas(seen)
    yield from _ramp(seen, mode)


def colours(seen: Figures) -> dict[str, str]:
    """Return the class of colour of each part of the mix."""
    return {part.name: f"p{number % COLOURS}" for number, part in enumerate(seen.entries)}


def _cdf(
    seen: Figures, kind: str, title: str, *, kinds: Mapping[str, str], earlier: Mapping[str, Any] | None
) -> Iterator[Chart]:
    lines = [
        Series(cell.times[kind].cumulated(), kinds[name])
        for name, cell in seen.tally.entries.items()
        if name in kinds and cell.times[kind].count
    ]
    if not lines:
        return
    before = [
        Series([(x, y) for x, y in points], f"{kinds[name]} earlier")
        for name, points in ((earlier or {}).get("cdf", {}).get(kind, {})).items()
        if name in kinds and points
    ]
    shown = [*before, *lines]
    most_s = max(_upper_end(series.points) for series in shown)
    scale = 0.001 if most_s < 1 else 1.0
    x = chart.axis("milliseconds" if scale < 1 else "seconds", 0.0, most_s, scale=scale)
    cut = [
        Series([(series.points[0][0], 0.0), *((min(a, x.high), b) for a, b in series.points)], series.kind) for series in shown
    ]
    times = seen.total.times[kind]
    note = f"p50 {span(times.p50_s)}, p95 {span(times.p95_s)}, p99 {span(times.p99_s)}" + (
        ", dashed: earlier run" if before else ""
    )
    percent = [Series([(a, 100 * b) for a, b in series.points], series.kind) for series in cut]
    yield _chart(
        f"cdf-{kind}", f"{title}: share of requests", (x, chart.axis("% at or under", 0.0, 100.0)), series=percent, note=note
    )


def _upper_end(points: Sequence[tuple[float, float]]) -> float:
    reached = points[-1][1]
    return next((x for x, y in points if y >= SHOWN_SHARE * reached), points[-1][0])


def _rates(seen: Figures) -> Iterator[Chart]:
    slots = _slots(seen)
    if not slots:
        return
    offered, ok, failed = (
        [(at, getattr(slot, name) / seen.slot_s) for at, slot in slots] for name in ("arrivals", "ok", "failed")
    )
    most = max(y for _, y in (*offered, *ok, *failed))
    axes = (chart.time_axis(seen.measured_s), chart.axis("requests per second", 0.0, most))
    lines = [Series(offered, "load target"), Series(ok, "good"), Series(failed, "bad")]
    yield _chart("rates", "Throughput", axes, series=lines, note="dashed: asked for, green: answered, red: failed")


def _tokens(seen: Figures) -> Chart:
    points = [(at, slot.tokens / seen.slot_s) for at, slot in _slots(seen)] or [(0.0, 0.0)]
    axes = (chart.time_axis(seen.measured_s), chart.axis("tokens per second", 0.0, max(y for _, y in points)))
    return _chart(
        "tokens", "Generated tokens", axes, series=[Series(points, "load")], note=f"mean {seen.throughput.tokens:,.4g}/s"
    )


def _ttft_over_time(seen: Figures) -> Iterator[Chart]:
    slots = [(at, slot.ttft) for at, slot in _slots(seen) if slot.ttft.count]
    if len(slots) < 2:
        return
    middle, high = ([(at, times.quantile(q)) for at, times in slots] for q in (0.5, 0.95))
    most_s = max(y for _, y in high)
    scale, unit = (0.001, "milliseconds") if most_s < 1 else (1.0, "seconds")
    axes = (chart.time_axis(seen.measured_s), chart.axis(unit, 0.0, most_s, scale=scale))
    lines = [Series(high, "p1"), Series(middle, "p0")]
    yield _chart("ttft", "Time to first token, by when a request was due", axes, series=lines, note="blue: median, orange: p95")


def _concurrency(seen: Figures) -> Iterator[Chart]:
    if not seen.samples:
        return
    shown = [Series([(each["at_s"], float(each["open"])) for each in seen.samples], "load", is_stairs=True)]
    note = "grey: open at the client"
    asked = [each for each in seen.samples if each["held"] is not None]
    if asked:
        waiting = [(each["at_s"], float(sum(each["waiting"].values()) + each["held"])) for each in asked]
        running = [(each["at_s"], float(sum(each["running"].values()))) for each in asked]
        shown += [Series(running, "p0", is_stairs=True), Series(waiting, "p1", is_stairs=True)]
        note += ", blue: running in engines, orange: queue depth"
    most = max(y for series in shown for _, y in series.points)
    axes = (chart.time_axis(seen.measured_s), chart.axis("requests", 0.0, most, whole=True))
    yield _chart("open", "Open requests and queue depth", axes, series=shown, note=note)


def _replicas(seen: Figures) -> Iterator[Chart]:
    asked = [each for each in seen.samples if each["replicas"]]
    if not asked:
        return
    names = sorted({name for each in asked for name in each["replicas"]})
    lines = [
        Series([(each["at_s"], float(each["replicas"].get(name, 0))) for each in asked], f"p{number % COLOURS}", is_stairs=True)
        for number, name in enumerate(names)
    ]
    most = max(y for series in lines for _, y in series.points)
    axes = (chart.time_axis(seen.measured_s), chart.axis("ready replicas", 0.0, most, whole=True))
    named = ", ".join(f"{name} {asked[-1]['replicas'].get(name, 0)}" for name in names)
    yield _chart("replicas", "Replicas", axes, series=lines, note=f"at the end: {named}")


def _ramp(seen: Figures, mode: Mode) -> Iterator[Chart]:
    found = [each for each in seen.stages if each.part.requests]
    if len(found) < 2:
        return
    unit = "users" if mode is Mode.CLOSED else "requests per second asked for"
    levels = chart.axis(unit, 0.0, max(each.stage.level for each in found))
    knee = next((each for each in found if each.is_knee), None)
    told = f"knee at {knee.stage.level:g}" if knee is not None else ""
    rates = [(each.stage.level, each.requests_per_s) for each in found]
    answered = chart.axis("answered per second", 0.0, max(y for _, y in rates))
    yield _chart("ramp-rate", "Throughput by level", (levels, answered), series=[Series(rates, "good")], note=told)
    late = [(each.stage.level, each.part.times["ttft"].p95_s) for each in found]
    finite = [(x, y) for x, y in late if math.isfinite(y)]
    if finite:
        axes = (levels, chart.axis("seconds", 0.0, max(y for _, y in finite)))
        yield _chart("ramp-ttft", "TTFT p95 by level", axes, series=[Series(finite, "p1")], note=told)


def _slots(seen: Figures) -> list[tuple[float, Slot]]:
    """Return what happened in each interval, also where nothing did."""
    return [
        (number * seen.slot_s, seen.tally.slots.get(number, Slot())) for number in range(round(seen.measured_s / seen.slot_s))
    ]


def _chart(key: str, title: str, axes: tuple[Axis, Axis], *, series: Sequence[Series], note: str = "") -> Chart:
    lines = tuple(Line(_path(each, axes), each.kind) for each in series if each.points)
    return Chart(key, title, f"{title}. {note}.", *axes, note=note, lines=lines)


def _path(series: Series, axes: tuple[Axis, Axis]) -> str:
    xs, ys = (np.array([float(point[place]) for point in series.points]) for place in (0, 1))
    xs, ys = chart.thinned(xs, ys, np.max)
    return chart.stairs(xs, ys, axes) if series.is_stairs else chart.curve(xs, ys, axes)
