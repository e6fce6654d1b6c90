"""Criteria: what makes an attempt bad, by the gate and what the baseline does. Every gate counts bad attempts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from serve_app.config_rollouts import GatesConfig
from serve_app.rollout.histogram import Histogram
from serve_app.rollout.sequential import Tally, is_surprising, upper_rank, upper_rate
from serve_app.rollout.telemetry import Outcome, VariantStats, Waiting

NEVER_S = 1e9
SHORT_S = 5.0  # what the short window of a baseline holds, and a block of the canary's attempts
HANG = "hang"  # the gate that is always there
HANG_S = 10.0  # no younger attempt hangs
HANG_RATIO, HANG_FEW_RATIO = 4.0, 10.0  # times the baseline's longest; the latter where it has few
HANG_FEW = 20
HANG_ALLOWED = 0.005
STALLED = 10.0  # a mean gap may recover, but hardly from so many times what is allowed


class Measure(StrEnum):
    """What a gate looks at."""

    ERRORS = "errors"
    TTFT = "time to first token"
    ITL = "inter-token latency"
    E2E = "time of a whole answer"
    HANG = "hang"


@dataclass(frozen=True, slots=True)
class Gate:
    """One thing a canary must hold: ``limit`` is what an error rate may grow by, or a ratio of ``q``-quantiles."""

    name: str
    measure: Measure
    limit: float
    q: float = 0.0


@dataclass(frozen=True, slots=True)
class Criterion:
    """What counts as bad in one block of attempts (times in seconds), and how large a share of them may be.

    To reject, ``threshold_s`` stands on an upper bound of the baseline's quantile; to accept, ``fair_s`` stands on the
    quantile itself, since a bound that is too high would let a bad canary pass. The baseline's own attempts are counted
    over the same quantile without the ratio.
    """

    baseline: float  # its failure rate, or quantile in seconds
    allowed: float  # share that may be bad
    usual: float  # the baseline's own share, as long as nothing happens
    good: float  # shares between which acceptance tells
    bad: float
    margin: float = 0.0  # of the share over the baseline's own
    threshold_s: float = NEVER_S
    matched_s: float = NEVER_S
    fair_s: float = NEVER_S
    fair_matched_s: float = NEVER_S
    first_s: float = NEVER_S  # age from which an attempt without a first byte hangs


def gates_of(config: GatesConfig) -> tuple[Gate, ...]:
    """Return the gates that are configured, and the one against hangs."""
    found = [Gate("error_rate", Measure.ERRORS, config.error_rate)] if config.error_rate is not None else []
    ratios = (
        ("ttft_p50_ratio", Measure.TTFT, config.ttft_p50_ratio, 0.5),
        ("ttft_p95_ratio", Measure.TTFT, config.ttft_p95_ratio, 0.95),
        ("itl_p50_ratio", Measure.ITL, config.itl_p50_ratio, 0.5),
        ("itl_p95_ratio", Measure.ITL, config.itl_p95_ratio, 0.95),
        ("e2e_p95_ratio", Measure.E2E, config.e2e_p95_ratio, 0.95),
    )
    found += [Gate(name, measure, limit, q) for name, measure, limit, q in ratios if limit is not None]
    return (*found, Gate(HANG, Measure.HANG, HANG_RATIO))


def criterion(gate: Gate, long: VariantStats) -> Criterion | None:
    """Return what a gate asks, by the baseline's long window; None: that holds too little to say."""
    if gate.measure is Measure.ERRORS:
        return _of_errors(gate, ended(gate, long, 0.0))
    durations = histogram(gate, long)
    return _of_hangs(long) if gate.measure is Measure.HANG else _of_quantile(gate, durations)


def _of_errors(gate: Gate, seen: Tally) -> Criterion | None:
    if not seen.attempts:
        return None
    rate = seen.bad / seen.attempts
    return Criterion(
        baseline=rate,
        allowed=min(1.0, upper_rate(seen) + gate.limit),
        usual=rate,
        good=rate + gate.limit / 2,
        bad=rate + 2 * gate.limit,
        margin=gate.limit,
    )


def _of_quantile(gate: Gate, durations: Histogram) -> Criterion | None:
    rank = upper_rank(durations.total, gate.q)
    bound_s = durations.value_at(rank) if rank is not None else None
    fair_s = durations.quantile(gate.q)
    if bound_s is None or fair_s is None:
        return None
    share = 1 - gate.q
    return Criterion(
        baseline=fair_s,
        allowed=share,
        usual=share,
        good=share,
        bad=2 * share if gate.q >= 0.9 else share + 0.15,
        threshold_s=gate.limit * bound_s,
        matched_s=bound_s,
        fair_s=gate.limit * fair_s,
        fair_matched_s=fair_s,
    )


def _of_hangs(long: VariantStats) -> Criterion | None:
    longest_s, hung_s = _hung_s(long.e2e), _hung_s(long.ttft)
    if longest_s is None:
        return None
    share, baseline_s = HANG_ALLOWED, long.e2e.value_at(long.e2e.total) or 0.0
    # An answer may take minutes, but what has not even begun hangs much earlier.
    first_s = hung_s if hung_s is not None else NEVER_S
    return Criterion(baseline_s, share, share, share, 2 * share, threshold_s=longest_s, matched_s=longest_s, first_s=first_s)


def _hung_s(durations: Histogram) -> float | None:
    """Return the age from which an attempt is taken to hang, by the longest time that the baseline took."""
    longest_s = durations.value_at(durations.total)
    if longest_s is None:
        return None
    return max(HANG_S, longest_s * (HANG_RATIO if durations.total >= HANG_FEW else HANG_FEW_RATIO))


def histogram(gate: Gate, stats: VariantStats) -> Histogram:
    """Return the durations that a gate looks at; a gate on errors looks at none."""
    if gate.measure is Measure.TTFT:
        return stats.ttft
    return stats.itl if gate.measure is Measure.ITL else stats.e2e


def ended(gate: Gate, stats: VariantStats, over_s: float) -> Tally:
    """Return how many of the attempts that ended were bad: failed, or took longer than ``over_s``."""
    if gate.measure is Measure.ERRORS:
        return Tally(stats.failures, stats.judged)
    slow = histogram(gate, stats).over(over_s)
    if gate.measure is Measure.ITL:
        return Tally(slow, stats.itl.total)
    # What ran out of time has no duration: it took longer than all that have one.
    late = stats.outcomes[Outcome.TIMEOUT]
    return Tally(slow + late, stats.judged if gate.measure is Measure.HANG else histogram(gate, stats).total + late)


def overdue(gate: Gate, waiting: Waiting, over_s: float, *, first_s: float = NEVER_S) -> int:
    """Return how many open attempts are bad already, by their age; of hangs at least that many."""
    if gate.measure is Measure.ERRORS:
        return 0
    if gate.measure is Measure.ITL:
        return waiting.gap.over(STALLED * over_s)
    if gate.measure is Measure.TTFT:
        return waiting.first.over(over_s)
    # An attempt may be in both, so the numbers must not be added.
    return max(waiting.whole.over(over_s), waiting.first.over(first_s))


def fair_rates(asked: Criterion, now: Tally) -> tuple[float, float]:
    """Return the shares that acceptance tells apart: higher ones while the baseline itself is worse than usual."""
    good = asked.good
    if is_surprising(now, asked.usual):
        good = max(good, now.bad / now.attempts)
    return min(good, 0.998), min(good + asked.bad - asked.good, 0.999)
