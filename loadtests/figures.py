"""Figures: what a run's counts say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loadtests.histogram import Histogram
from loadtests.recorder import slot_s
from loadtests.scenario import Scenario
from loadtests.shapes import Stage, stages
from loadtests.tally import Cell, Share, Slot, Tally

Z_95 = 1.959964
ALL = "all"
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Times:
    """One kind of duration, in seconds. Infinite: so many never ended; NaN: there were none."""

    count: int
    endless: int
    mean_s: float
    p50_s: float
    p90_s: float
    p95_s: float
    p99_s: float
    most_s: float


@dataclass(frozen=True, slots=True)
class Part:
    """Figures of a part of the mix, of a stage, or of all requests."""

    name: str
    requests: int
    ok: int
    error_rate: float
    error_interval: Interval
    outcomes: Mapping[str, int]
    statuses: Mapping[str, int]
    messages: Mapping[str, int]
    totals: Mapping[str, int]
    times: Mapping[str, Times]


@dataclass(frozen=True, slots=True)
class StageFigures:
    """What one level of the load gave."""

    stage: Stage
    part: Part
    requests_per_s: float
    is_knee: bool = False


@dataclass(frozen=True, slots=True)
class ShareFigures:
    """What one variant got of its model's conversations."""

    model: str
    variant: str
    conversations: int
    share: float
    interval: Interval
    weight: float | None  # share that was declared
    flips: int
    failures: int
    judged: int


@dataclass(frozen=True, slots=True)
class Throughput:
    """Per second of the measured run."""

    offered: float  # requests that were to be sent
    answered: float  # that ended well in it
    tokens: float  # generated in it


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures of a run."""

    measured_s: float
    total: Part
    entries: tuple[Part, ...]
    stages: tuple[StageFigures, ...]
    shares: tuple[ShareFigures, ...]
    throughput: Throughput
    lag: Times
    warmup_requests: int
    tally: Tally = field(repr=False)
    samples: Sequence[Mapping[str, Any]] = field(repr=False)
    slot_s: float = 1.0


def figures(scenario: Scenario, run: Mapping[str, Any]) -> Figures:
    """Return the figures of a run's document, as the conductor wrote it."""
    tally = Tally.from_json(run["tally"])
    measured_s = max(1e-9, float(run["measured_s"]))
    total = Cell()
    for cell in tally.entries.values():
        total.merge(cell)
    samples = [sample for sample in run["samples"] if 0 <= sample["at_s"] <= measured_s]
    return Figures(
        measured_s=measured_s,
        total=part(ALL, total),
        entries=tuple(part(entry.label, tally.entries.get(entry.label, Cell())) for entry in scenario.mix),
        stages=tuple(_stages(scenario, tally, measured_s)),
        shares=tuple(shares(tally, _weights(samples))),
        throughput=_throughput(scenario, tally, measured_s),
        lag=times_of(tally.lag),
        warmup_requests=tally.warmup,
        tally=tally,
        samples=samples,
        slot_s=slot_s(scenario.duration),
    )


def part(name: str, cell: Cell) -> Part:
    """Return the figures of a cell."""
    requests, ok = cell.totals["requests"], cell.outcomes["ok"]
    return Part(
        name=name,
        requests=requests,
        ok=ok,
        error_rate=(requests - ok) / requests if requests else math.nan,
        error_interval=wilson(requests - ok, requests),
        outcomes=dict(sorted(cell.outcomes.items(), key=lambda pair: -pair[1])),
        statuses=dict(sorted(cell.statuses.items())),
        messages=dict(sorted(cell.messages.items(), key=lambda pair: -pair[1])),
        totals=dict(cell.totals),
        times={kind: times_of(times) for kind, times in cell.times.items()},
    )


def times_of(times: Histogram) -> Times:
    """Return what a histogram says."""
    p50_s, p90_s, p95_s, p99_s = (times.quantile(q) for q in (0.5, 0.9, 0.95, 0.99))
    most_s = times.greatest_s if times.count else math.nan
    return Times(times.count, times.endless, times.mean_s, p50_s, p90_s, p95_s, p99_s, most_s)


def wilson(count: int, of: int, *, z: float = Z_95) -> Interval:
    """Return Wilson's score interval of a share; at the default ``z`` of 95 %."""
    if not of:
        return 0.0, 1.0
    share, spread = count / of, z * z / of
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / of + spread / (4 * of)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def shares(tally: Tally, weights: Mapping[tuple[str, str], float]) -> Iterator[ShareFigures]:
    """Yield what each variant got; ``weights`` (percent) may name more variants than answered."""
    keys = sorted({*tally.shares, *(key for key in weights if key[0] in {model for model, _ in tally.shares})})
    totals: dict[str, int] = {}
    for (model, _), seen in tally.shares.items():
        totals[model] = totals.get(model, 0) + seen.firsts
    for model, variant in keys:
        share = tally.shares.get((model, variant)) or Share()  # a variant with a weight may answer nothing
        begun = share.firsts
        weight = weights.get((model, variant))
        yield ShareFigures(
            model=model,
            variant=variant,
            conversations=begun,
            share=begun / totals[model] if totals[model] else math.nan,
            interval=wilson(begun, totals[model]),
            weight=None if weight is None else weight / 100,
            flips=share.flips,
            failures=share.stats.failures,
            judged=share.stats.judged,
        )


def _weights(samples: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], float]:
    """Return the weights that the platform reported, in the mean over the run: a rollout may move them."""
    seen: dict[tuple[str, str], list[int]] = {}
    for sample in samples:
        for key, weight in sample["weights"].items():
            model, _, variant = key.rpartition("/")
            seen.setdefault((model, variant), []).append(weight)
    return {key: sum(weights) / len(weights) for key, weights in seen.items()}


def _throughput(scenario: Scenario, tally: Tally, measured_s: float) -> Throughput:
    last = round(measured_s / slot_s(scenario.duration))
    within: list[Slot] = [slot for number, slot in tally.slots.items() if 0 <= number < last]
    return Throughput(
        offered=sum(slot.arrivals for slot in within) / measured_s,
        answered=sum(slot.ok for slot in within) / measured_s,
        tokens=sum(slot.tokens for slot in within) / measured_s,
    )


def _stages(scenario: Scenario, tally: Tally, measured_s: float) -> Iterator[StageFigures]:
    begun = [stage for stage in stages(scenario.load.shape, scenario.duration) if stage.begin_s < measured_s]
    made = []
    for number, stage in enumerate(begun):
        seen = part(f"{stage.level:g}", tally.stages.get(number, Cell()))
        slots = [slot for at, slot in tally.slots.items() if stage.begin_s <= at * slot_s(scenario.duration) < stage.end_s]
        made.append(StageFigures(stage, seen, sum(slot.ok for slot in slots) / (stage.end_s - stage.begin_s)))
    knee = knee_of(made)
    for number, each in enumerate(made):
        yield StageFigures(each.stage, each.part, each.requests_per_s, number == knee)


def knee_of(found: Sequence[StageFigures]) -> int | None:
    """Return the stage with the most throughput for its response time (Kleinrock's power); None: there is no choice.

    Up to there more load brings more answers; beyond it mostly longer waits.
    """
    power = [_power(each) for each in found]
    best = max(power, default=0.0)
    return power.index(best) if len(found) > 2 and best > 0 else None


def _power(found: StageFigures) -> float:
    mean_s = found.part.times["e2e"].mean_s
    return found.requests_per_s / mean_s if mean_s > 0 and not math.isnan(mean_s) else 0.0
