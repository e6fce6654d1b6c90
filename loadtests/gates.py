"""Gates: whether a run held what it must hold, one finding for each gate, with its figures in words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from loadtests.figures import ALL, Figures, Part, ShareFigures, shares
from loadtests.gates_config import Canary, Gates, Limits, Split
from loadtests.tally import Share
from serve_app.rollout.verdict import Verdict, assess

# field -> (time, quantile's name, what it is called)
TIMES = {
    "ttft_p50": ("ttft", "p50_s", "TTFT p50"),
    "ttft_p95": ("ttft", "p95_s", "TTFT p95"),
    "ttft_p99": ("ttft", "p99_s", "TTFT p99"),
    "itl_p50": ("itl", "p50_s", "ITL p50"),
    "itl_p95": ("itl", "p95_s", "ITL p95"),
    "gap_p99": ("gap", "p99_s", "gap p99"),
    "e2e_p95": ("e2e", "p95_s", "whole answer p95"),
}


class State(StrEnum):
    """What a gate found."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"  # too little to say; fails nothing


@dataclass(frozen=True, slots=True)
class Finding:
    """What one gate found: ``name`` is its field in the gates' file."""

    name: str
    state: State
    reason: str


def findings(gates: Gates, seen: Figures) -> tuple[Finding, ...]:
    """Return what every gate found."""
    return tuple(_findings(gates, seen))


def has_failed(found: tuple[Finding, ...]) -> bool:
    """Return whether a gate failed."""
    return any(finding.state is State.FAILED for finding in found)


def _findings(gates: Gates, seen: Figures) -> Iterator[Finding]:
    counted = seen.total.requests
    few = f"{counted:,} of the {gates.min_requests:,} counted requests that a verdict needs"
    yield Finding("min_requests", State.PASSED if counted >= gates.min_requests else State.FAILED, few)
    yield from _limits(gates, seen.total, prefix="")
    yield from _least(gates, seen)
    parts = {part.name: part for part in seen.entries}
    for name, limits in gates.entries.items():
        if name in parts:
            yield from _limits(limits, parts[name], prefix=f"entries.{name}.")
        else:
            known = ", ".join(parts)
            yield Finding(f"entries.{name}", State.FAILED, f"the scenario has no part {name!r}; it has {known}")
    if gates.split is not None:
        yield from _split(gates.split, seen)
    if gates.canary is not None:
        yield _canary(gates.canary, seen)


def _limits(limits: Limits, part: Part, *, prefix: str) -> Iterator[Finding]:
    where = "" if part.name == ALL else f" of {part.name}"
    for field, (kind, quantile, title) in TIMES.items():
        if (limit_s := getattr(limits, field)) is not None:
            value_s: float = getattr(part.times[kind], quantile)
            yield _at_most(f"{prefix}{field}", value_s, limit_s, title=f"{title}{where}")
    if limits.error_rate is not None:
        low, high = part.error_interval
        failed = part.requests - part.ok
        rate = f"{failed:,} of {part.requests:,} requests{where} failed ({_percent(part.error_rate)}"
        reason = f"{rate}, 95 % interval {_percent(low)} to {_percent(high)}; most {_percent(limits.error_rate)})"
        holds = part.error_rate <= limits.error_rate  # of nothing, NaN never is
        yield Finding(f"{prefix}error_rate", State.PASSED if holds else State.FAILED, reason)


def _at_most(name: str, value_s: float, limit_s: float, *, title: str) -> Finding:
    limit = f"most {span(limit_s)}"
    if math.isnan(value_s):
        return Finding(name, State.FAILED, f"{title}: there is nothing to measure ({limit})")
    if math.isinf(value_s):
        return Finding(name, State.FAILED, f"{title}: so many requests never got there ({limit})")
    state = State.PASSED if value_s <= limit_s else State.FAILED
    return Finding(name, state, f"{title} is {span(value_s)} ({limit})")


def _least(gates: Gates, seen: Figures) -> Iterator[Finding]:
    asked = (
        ("throughput", gates.throughput, seen.throughput.answered, "requests/s were answered well"),
        ("tokens_per_s", gates.tokens_per_s, seen.throughput.tokens, "tokens/s were generated"),
    )
    for name, least, value, words in asked:
        if least is not None:
            state = State.PASSED if value >= least else State.FAILED
            yield Finding(name, state, f"{value:,.4g} {words} (least {least:,.4g})")


def _split(split: Split, seen: Figures) -> Iterator[Finding]:
    found = [share for share in _with_weights(split, seen) if split.model in (None, share.model)]
    if all(share.weight is None for share in found):
        why = "no weight is known: name them in `split.weights`, or set MANTA_API_KEY to a key with `admin: true`"
        missing = why if found else "no answer said which variant it is from"
        yield Finding("split.deviation", State.FAILED, missing)
    for share in found:
        if share.weight is not None:
            yield _share(split, share, weight=share.weight)
    if split.flips is not None and found:
        flips = sum(share.flips for share in found)
        state = State.PASSED if flips <= split.flips else State.FAILED
        yield Finding("split.flips", state, f"{flips:,} turns were answered by another variant (most {split.flips:,})")


def _with_weights(split: Split, seen: Figures) -> list[ShareFigures]:
    if not split.weights:
        return list(seen.shares)
    models = {model for model, _ in seen.tally.shares} if split.model is None else {split.model}
    return list(shares(seen.tally, {(model, name): weight for model in models for name, weight in split.weights.items()}))


def _share(split: Split, share: ShareFigures, *, weight: float) -> Finding:
    """Fail only what chance does not explain: the whole interval is further off the weight than is allowed."""
    name = f"split.deviation[{share.model}/{share.variant}]"
    low, high = share.interval
    got = f"{_percent(share.share)} of {share.model}'s conversations went to {share.variant}"
    reason = f"{got} (95 % interval {_percent(low)} to {_percent(high)}, weight {_percent(weight)})"
    least, most = weight - split.deviation, weight + split.deviation
    if math.isnan(share.share):
        return Finding(name, State.FAILED, f"no conversation of {share.model} was answered")
    if high < least or low > most:
        return Finding(name, State.FAILED, f"{reason}; {100 * split.deviation:g} points are allowed")
    is_known = low >= least and high <= most
    return Finding(name, State.PASSED if is_known else State.UNDECIDED, reason)


def _canary(canary: Canary, seen: Figures) -> Finding:
    name = "canary"
    canaries, baseline = (seen.tally.shares.get((canary.model, variant)) for variant in (canary.variant, canary.baseline))
    if canaries is None or baseline is None:
        missing = canary.variant if canaries is None else canary.baseline
        return Finding(name, _undecided(canary), f"{canary.model}/{missing} answered nothing")
    return _compared(canary, canaries, baseline)


def _compared(canary: Canary, canaries: Share, baseline: Share) -> Finding:
    assessment = assess(canary.gates, canaries.stats, baseline.stats)
    wanted = assessment.verdict
    told = "; ".join(f"{reading.gate}: {reading.reason}" for reading in assessment.readings if reading.verdict is wanted)
    states = {Verdict.PROMOTE: State.PASSED, Verdict.ROLL_BACK: State.FAILED, Verdict.WAIT: _undecided(canary)}
    return Finding("canary", states[wanted], f"{canary.variant} against {canary.baseline}: {wanted.replace('_', ' ')}; {told}")


def _undecided(canary: Canary) -> State:
    return State.UNDECIDED if canary.undecided == "pass" else State.FAILED


def span(seconds: float) -> str:
    """Return a duration in words, with three digits."""
    if not math.isfinite(seconds):
        return "-" if math.isnan(seconds) else "never"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.3g} %"
