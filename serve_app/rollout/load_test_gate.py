"""The gate on a load test: whether its last run was of the step in force, and what it found. Pure; the clock is an argument."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from serve_app.config_rollouts import LoadTestGateConfig
from serve_app.rollout.gates import Reading, Verdict
from serve_app.rollout.load_tests import LoadTestResult, Traffic
from serve_app.rollout.plan import Declared, Progress

GATE = "load_test"
MOST_NAMED = 3  # failed gates of the run in a reason
VERDICTS = {"passed": Verdict.PROMOTE, "failed": Verdict.ROLL_BACK}


@dataclass(frozen=True, slots=True)
class Step:
    """What a run must have been of, to count.

    Attributes:
        name: the model, adapter or pipeline.
        variant: the canary.
        since_s: when what is in force began, by the platform's clock.
        weights: shares in force, of the canary and its baseline.
        revisions: what these two are made of.
    """

    name: str
    variant: str
    since_s: float
    weights: Mapping[str, int]
    revisions: Mapping[str, str]


def step_of(progress: Progress, declared: Declared) -> Step | None:
    """Return the step that a rollout is in; None before the first, and without a rollout."""
    if declared.rollout is None or progress.step < 0:
        return None
    return Step(
        name=declared.name,
        variant=declared.rollout.variant,
        since_s=max(progress.step_since_s, progress.tested_since_s),
        weights={name: progress.weight(name) for name in declared.compared},
        revisions={name: declared.revisions[name] for name in declared.compared},
    )


def read(gate: LoadTestGateConfig, result: LoadTestResult | None, step: Step, *, now_s: float) -> Reading:
    """Return what the last run of a scenario says of a step: it passed, it failed, or there is none that counts."""
    what = f"load test {gate.scenario}"
    if result is None:
        return Reading(GATE, Verdict.WAIT, f"waits for {what}: no result has been published")
    if why := next(_misfits(gate, result, step, now_s=now_s), None):
        return Reading(GATE, Verdict.WAIT, f"waits for {what}: the last run does not count, since {why}")
    seen = result.of(step.name, step.variant)
    reason = f"{what} {_found(result)}"
    rate = seen.failures / seen.requests
    return Reading(GATE, VERDICTS[result.verdict], reason, attempts=seen.requests, bad=seen.failures, observed_rate=rate)


def _misfits(gate: LoadTestGateConfig, result: LoadTestResult, step: Step, *, now_s: float) -> Iterator[str]:
    """Yield why a run says nothing of a step."""
    if result.begun_s < step.since_s:
        yield f"it began {step.since_s - result.begun_s:.0f} s before this step"
    if (age_s := now_s - result.ended_s) > gate.max_age:
        yield f"it ended {age_s:.0f} s ago (max_age is {gate.max_age:.0f} s)"
    for when, traffic in (("began", result.begin), ("ended", result.end)):
        yield from _changes(traffic, step, when=when)
    if not result.of(step.name, step.variant).requests:
        yield f"{step.name}/{step.variant} answered nothing in it"


def _changes(traffic: Traffic, step: Step, *, when: str) -> Iterator[str]:
    """Yield what was different when a run began or ended; the version of the table itself grows with other models' weights."""
    for variant, weight in step.weights.items():
        seen, what = traffic.of(step.name, variant), f"{step.name}/{variant}"
        if seen is None:
            yield f"{what} was not there when it {when}"
        elif seen.revision != step.revisions[variant]:
            yield f"{what} was made of something else when it {when}: {seen.revision}, now {step.revisions[variant]}"
        elif seen.weight != weight:
            yield f"{what} had {seen.weight} % when it {when}, now {weight} %"


def _found(result: LoadTestResult) -> str:
    if result.verdict == "passed":
        return f"passed: {len(result.gates)} gates"
    failed = result.failed
    told = [f"{gate.name} ({gate.reason})" if gate.reason else gate.name for gate in failed[:MOST_NAMED]]
    more = [f"{len(failed) - MOST_NAMED} more"] if len(failed) > MOST_NAMED else []
    return f"failed: {'; '.join([*told, *more])}"
