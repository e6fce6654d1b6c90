"""Comparison of policies at equal service: what the same attainment costs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

NEARLY = 0.001  # of attainment, on one trace
NO_WORSE = 0.01  # of attainment, on every trace


@dataclass(frozen=True, slots=True)
class Run:
    """What one policy did on one trace, with one seed."""

    trace: str
    seed: int
    family: str
    label: str
    settings: tuple[tuple[str, float], ...]
    attainment: float
    replica_s: float
    reversals: int
    ttft_p99_s: float
    reversals_after_change: int | None = None  # within 600 s after the rate jumped, where it does


@dataclass(frozen=True, slots=True)
class Score:
    """The runs of one policy on one trace, over the seeds."""

    family: str
    label: str
    attainment: float
    worst_attainment: float
    replica_s: float
    reversals: float
    most_reversals: int
    ttft_p99_s: float
    worst_ttft_p99_s: float
    most_reversals_after_change: int | None

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Score:
        """Return means and worsts of runs that differ in their seeds only."""
        after = [run.reversals_after_change for run in runs if run.reversals_after_change is not None]
        return cls(
            family=runs[0].family,
            label=runs[0].label,
            attainment=fmean(run.attainment for run in runs),
            worst_attainment=min(run.attainment for run in runs),
            replica_s=fmean(run.replica_s for run in runs),
            reversals=fmean(run.reversals for run in runs),
            most_reversals=max(run.reversals for run in runs),
            ttft_p99_s=fmean(run.ttft_p99_s for run in runs),
            worst_ttft_p99_s=max(run.ttft_p99_s for run in runs),
            most_reversals_after_change=max(after, default=None),
        )


@dataclass(frozen=True, slots=True)
class Saving:
    """What ours costs beside another policy of at least nearly its attainment."""

    trace: str
    label: str
    attainment: float
    ours: float  # attainment
    mean: float  # share of the other's replica-seconds that ours saves; negative: it costs more
    worst: float  # of one seed


Scores = Mapping[str, Mapping[str, Score]]  # trace -> label -> score


def scores(runs: Iterable[Run]) -> dict[str, dict[str, Score]]:
    """Return the score of each policy on each trace, in the order in which they first come."""
    found: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        found.setdefault(run.trace, {}).setdefault(run.label, []).append(run)
    return {trace: {label: Score.of(each) for label, each in labels.items()} for trace, labels in found.items()}


def cheapest(of_trace: Mapping[str, Score], family: str, *, attainment: float) -> Score | None:
    """Return the score with the fewest replica-seconds among a family's that reach an attainment; None when none does."""
    able = [each for each in of_trace.values() if each.family == family and each.attainment >= attainment]
    return min(able, key=lambda each: each.replica_s, default=None)


def best(of_trace: Mapping[str, Score], family: str) -> Score | None:
    """Return a family's score of the highest attainment, the cheapest of equals; None without any."""
    of_family = (each for each in of_trace.values() if each.family == family)
    return max(of_family, key=lambda each: (each.attainment, -each.replica_s), default=None)


def cheapest_for_all(found: Scores, family: str, ours: str, *, oracle: str) -> str | None:
    """Return the one setting of a family that is worse than ours on no trace, by more than NO_WORSE, and costs least.

    Cost is the mean over traces of replica-seconds over the oracle's: otherwise the longest trace would decide alone.
    """
    labels = [label for label, each in next(iter(found.values())).items() if each.family == family]

    def is_able(label: str) -> bool:
        return all(label in each and each[label].attainment >= each[ours].attainment - NO_WORSE for each in found.values())

    def cost(label: str) -> float:
        return fmean(each[label].replica_s / of_family(each, oracle).replica_s for each in found.values())

    return min((label for label in labels if is_able(label)), key=cost, default=None)


def of_family(of_trace: Mapping[str, Score], family: str) -> Score:
    """Return the only score of a family. Raises StopIteration without one."""
    return next(each for each in of_trace.values() if each.family == family)


def saving(runs: Sequence[Run], trace: str, other: str, *, ours: str) -> Saving:
    """Return what ours saves against another policy on a trace, seed by seed."""

    def by_seed(label: str) -> dict[int, Run]:
        return {run.seed: run for run in runs if run.trace == trace and run.label == label}

    mine, theirs = by_seed(ours), by_seed(other)
    saved = [1 - run.replica_s / theirs[seed].replica_s for seed, run in mine.items() if seed in theirs]
    return Saving(
        trace=trace,
        label=other,
        attainment=fmean(run.attainment for run in theirs.values()),
        ours=fmean(run.attainment for run in mine.values()),
        mean=fmean(saved),
        worst=min(saved),
    )
