"""Plan: how far a rollout has come, and every step from one state to the next. Pure; the clock is an argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from pydantic import Field

from serve_app.config import Config, RolloutConfig
from serve_app.rollout.document import revision
from serve_app.rollout.table import Share, Split


class Phase(StrEnum):
    """Where a rollout stands."""

    WAITING = "waiting"  # for the variant's first ready replica
    RUNNING = "running"
    PAUSED = "paused"  # by an operator; gates are watched on
    HELD = "held"  # a gate has failed, and `on_failure` is hold
    COMPLETED = "completed"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"  # by an operator
    OVERRIDDEN = "overridden"  # by weights that were declared anew


ACTIVE = frozenset({Phase.WAITING, Phase.RUNNING, Phase.PAUSED, Phase.HELD})


@dataclass(frozen=True, slots=True)
class Declared:
    """What the configuration says of one model or pipeline."""

    split: Split
    revisions: Mapping[str, str]
    rollout: RolloutConfig | None = None

    @property
    def name(self) -> str:
        """The model or pipeline."""
        return self.split.name

    @property
    def spec(self) -> str:
        """A digest of the rollout's configuration; empty without one."""
        return "" if self.rollout is None else revision(self.rollout)

    @property
    def compared(self) -> tuple[str, ...]:
        """Variant and baseline; nothing without a rollout."""
        return () if self.rollout is None else (self.rollout.variant, self.rollout.baseline)


class Progress(Config):
    """How far one rollout has come. Times are seconds since the epoch, because they outlive processes."""

    name: str = Field(description="The model or pipeline.")
    phase: Phase = Field(description="Where it stands.")
    shares: tuple[Share, ...] = Field(description="Shares in force, unless it is overridden.")
    declared: dict[str, int] = Field(description="Declared weights that it began with.")
    revisions: dict[str, str] = Field(description="What the variants were made of when it began.")
    spec: str = Field("", description="Digest of the rollout's configuration; empty for an abort without a rollout.")
    compared: tuple[str, ...] = Field((), description="Variant and baseline that it compares.")
    step: int = Field(-1, description="Index of the step; -1 before the first.")
    started_s: float = Field(description="When it began.")
    step_since_s: float = Field(description="When its step, or its end, began.")
    ready_since_s: float | None = Field(None, description="When the variant's first replica was ready.")
    unready_since_s: float | None = Field(None, description="Since when it has had none.")
    tested_since_s: float = Field(0.0, description="Load tests that began before it count for nothing.")
    crashes: int = Field(0, description="Replicas of the variant that died or failed to start.")
    reason: str = Field("", description="Why it stands where it stands.")

    def weight(self, variant: str) -> int:
        """Return a variant's weight in force."""
        return next((share.weight for share in self.shares if share.variant == variant), 0)


class Seen(NamedTuple):
    """What is known of the variant right now."""

    ready: int | None  # replicas; None: unknown, or it needs none to be ready
    crashes: int  # since the last look
    failure: str = ""  # why its gates say that it must go; empty: they do not
    is_good: bool = False  # its gates say that it may go on
    is_tested: bool = True  # no load test is waited for


class Move(NamedTuple):
    """A step to another state, and what it is called in the history."""

    action: str
    progress: Progress


def begin(declared: Declared, *, now_s: float, reason: str) -> Progress:
    """Return a rollout at its start: declared weights, waiting for the variant to be ready."""
    return Progress(
        name=declared.name,
        phase=Phase.WAITING,
        shares=declared.split.shares,
        declared=dict(declared.split.weights),
        revisions=dict(declared.revisions),
        spec=declared.spec,
        compared=declared.compared,
        started_s=now_s,
        step_since_s=now_s,
        reason=reason,
    )


def reconcile(progress: Progress | None, declared: Declared, *, now_s: float) -> Move | None:
    """Return what a configuration does to a rollout: nothing when it says what it said before.

    A declared weight that changed is in force at once and ends the rollout; a variant that is made of something else
    begins it anew.
    """
    if declared.rollout is None:
        return _without_rollout(progress, declared, now_s=now_s)
    if progress is None or not progress.spec:
        return Move("started", begin(declared, now_s=now_s, reason="declared"))
    if reason := _restart_reason(progress, declared):
        return Move("restarted", begin(declared, now_s=now_s, reason=reason))
    if not _says_the_same(progress, declared):
        return Move("overridden", _overridden(progress, declared, now_s=now_s))
    return _followed(progress, declared, declared.rollout, now_s=now_s)


def _without_rollout(progress: Progress | None, declared: Declared, *, now_s: float) -> Move | None:
    if progress is None or (progress.phase is Phase.OVERRIDDEN and not progress.spec):
        return None
    if not progress.spec and progress.declared == declared.split.weights and progress.revisions == declared.revisions:
        return None  # an abort by hand, and nothing was declared anew
    return Move("overridden", _overridden(progress, declared, now_s=now_s))


def _followed(progress: Progress, declared: Declared, rollout: RolloutConfig, *, now_s: float) -> Move | None:
    """Return how a rollout goes on under a configuration that neither ends it nor begins it anew."""
    if progress.declared.keys() != declared.split.weights.keys():
        progress = _refitted(progress, declared)
        if progress.spec == declared.spec:
            return Move("refitted", progress)
    return _respecified(progress, declared, rollout, now_s=now_s) if progress.spec != declared.spec else None


def _says_the_same(progress: Progress, declared: Declared) -> bool:
    """Whether the declared weights are those that it began with; a variant of weight 0 that comes or goes changes none."""
    before, now = progress.declared, declared.split.weights
    return all(before.get(name, 0) == now.get(name, 0) for name in before.keys() | now.keys())


def _refitted(progress: Progress, declared: Declared) -> Progress:
    """Return the rollout with a share for every variant that is declared now."""
    had = {share.variant: share for share in progress.shares}
    weights = declared.split.weights
    changes = {
        "shares": tuple(had.get(name) or Share(variant=name, weight=0) for name in weights),
        "declared": dict(weights),
        "revisions": dict(declared.revisions),
        "reason": "a variant without weight came or went",
    }
    return progress.model_copy(update=changes)


def _restart_reason(progress: Progress, declared: Declared) -> str:
    if progress.compared != declared.compared:
        return "another variant or baseline was declared"
    changed = (each for each in declared.compared if progress.revisions.get(each) != declared.revisions[each])
    return f"{name} is made of something else than before" if (name := next(changed, None)) is not None else ""


def _overridden(progress: Progress, declared: Declared, *, now_s: float) -> Progress:
    said = ", ".join(f"{share.variant} {share.weight}" for share in declared.split.shares)
    changes = {
        "phase": Phase.OVERRIDDEN,
        "shares": declared.split.shares,
        "declared": dict(declared.split.weights),
        "revisions": dict(declared.revisions),
        "spec": declared.spec,
        "step_since_s": now_s,
        "reason": f"the declared weights are in force: {said}",
    }
    return progress.model_copy(update=changes)


def _respecified(progress: Progress, declared: Declared, rollout: RolloutConfig, *, now_s: float) -> Move:
    if progress.phase in (Phase.ROLLED_BACK, Phase.ABORTED, Phase.OVERRIDDEN):
        return Move("restarted", begin(declared, now_s=now_s, reason="the rollout was declared anew"))
    if progress.phase is Phase.COMPLETED:
        return Move("changed", progress.model_copy(update={"spec": declared.spec}))
    reached = [i for i, step in enumerate(rollout.steps) if step.weight <= progress.weight(rollout.variant)]
    changes = {
        "spec": declared.spec,
        "step": max(reached, default=-1),
        "step_since_s": now_s,
        "reason": "steps or gates changed",
    }
    return Move("changed", progress.model_copy(update=changes))


def advance(progress: Progress, declared: Declared, seen: Seen, *, now_s: float) -> tuple[Progress, str | None]:
    """Return the rollout after a look at its variant, and what happened if anything did.

    Called every second or so; the ``action`` is None while it stays where it is.
    """
    rollout = declared.rollout
    if rollout is None or progress.phase not in ACTIVE:
        return progress, None
    progress = _watched(progress, seen, now_s=now_s)
    failure = _broken(progress, rollout, now_s=now_s) or seen.failure
    if failure and progress.phase is not Phase.HELD:
        return _failed(progress, declared, failure, now_s=now_s)
    if progress.phase is Phase.WAITING and (seen.ready is None or seen.ready > 0):
        return next_step(progress, declared, now_s=now_s, reason="the variant is ready")
    if progress.phase is Phase.RUNNING and _may_go_on(progress, declared, seen, now_s=now_s):
        return next_step(progress, declared, now_s=now_s, reason=_passed(progress, declared))
    return progress, None


def _watched(progress: Progress, seen: Seen, *, now_s: float) -> Progress:
    """Note whether the variant has a ready replica, and what it has lost; the same object when there is nothing new."""
    ready_since, unready_since = progress.ready_since_s, progress.unready_since_s
    if seen.ready:
        ready_since, unready_since = ready_since or now_s, None
    elif seen.ready == 0 and ready_since is not None:
        unready_since = unready_since or now_s
    before = (progress.ready_since_s, progress.unready_since_s, 0)
    if (ready_since, unready_since, seen.crashes) == before:
        return progress
    changes = {"ready_since_s": ready_since, "unready_since_s": unready_since, "crashes": progress.crashes + seen.crashes}
    return progress.model_copy(update=changes)


def _broken(progress: Progress, rollout: RolloutConfig, *, now_s: float) -> str:
    name = rollout.variant
    if progress.crashes > rollout.max_crashes:
        return f"{progress.crashes} replicas of {name} died or failed to start; {rollout.max_crashes} are allowed"
    was_ready = progress.phase is not Phase.WAITING or progress.ready_since_s is not None
    if not was_ready and now_s - progress.step_since_s > rollout.ready_timeout:
        return f"no replica of {name} was ready within {rollout.ready_timeout:.0f} s"
    if progress.unready_since_s is not None and now_s - progress.unready_since_s > rollout.unready_timeout:
        return f"{name} had no ready replica for {rollout.unready_timeout:.0f} s"
    return ""


def _failed(progress: Progress, declared: Declared, failure: str, *, now_s: float) -> tuple[Progress, str]:
    if declared.rollout is not None and declared.rollout.on_failure == "hold":
        return progress.model_copy(update={"phase": Phase.HELD, "reason": failure}), "held"
    return withdrawn(progress, declared, Phase.ROLLED_BACK, reason=failure, now_s=now_s), "rolled_back"


def _may_go_on(progress: Progress, declared: Declared, seen: Seen, *, now_s: float) -> bool:
    rollout = declared.rollout
    if rollout is None or progress.step < 0:
        return True
    is_over = now_s - progress.step_since_s >= rollout.steps[progress.step].pause
    # Once the variant has everything there is nothing left to compare it with.
    return is_over and seen.is_tested and (seen.is_good or progress.weight(rollout.baseline) == 0)


def _passed(progress: Progress, declared: Declared) -> str:
    if progress.step < 0:
        return "the steps were declared anew"
    compared = declared.rollout is not None and progress.weight(declared.rollout.baseline) > 0
    return "every gate has passed" if compared else "the step's time is over"


def next_step(progress: Progress, declared: Declared, *, now_s: float, reason: str) -> tuple[Progress, str]:
    """Enter the first later step with a greater share; after the last one the rollout is complete."""
    rollout = declared.rollout
    if rollout is None:
        return progress, "changed"
    now = progress.weight(rollout.variant)
    later = (i for i, step in enumerate(rollout.steps) if i > progress.step and step.weight > now)
    if (step := next(later, None)) is None:
        return progress.model_copy(update={"phase": Phase.COMPLETED, "step_since_s": now_s, "reason": reason}), "completed"
    shares = _shares(declared, rollout, rollout.steps[step].weight)
    changes = {"phase": Phase.RUNNING, "step": step, "step_since_s": now_s, "shares": shares, "reason": reason}
    return progress.model_copy(update=changes), "advanced"


def _shares(declared: Declared, rollout: RolloutConfig, weight: int) -> tuple[Share, ...]:
    weights = dict(declared.split.weights)
    have = weights[rollout.variant] + weights[rollout.baseline]
    weights |= {rollout.variant: weight, rollout.baseline: have - weight}
    return tuple(Share(variant=name, weight=each) for name, each in weights.items())


def withdrawn(progress: Progress, declared: Declared, phase: Phase, *, reason: str, now_s: float) -> Progress:
    """Return the rollout with its variant taken out; without a rollout, all but the baseline are."""
    weights = dict(declared.split.weights)
    baseline = declared.split.baseline
    out = {declared.rollout.variant} if declared.rollout is not None else set(weights) - {baseline}
    weights[baseline] += sum(weights[name] for name in out)
    weights |= dict.fromkeys(out, 0)
    shares = tuple(Share(variant=name, weight=each, is_withdrawn=name in out) for name, each in weights.items())
    return progress.model_copy(update={"phase": phase, "shares": shares, "step_since_s": now_s, "reason": reason})
