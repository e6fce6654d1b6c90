from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from serve_app.config import RolloutConfig
from serve_app.rollout.plan import ACTIVE, Declared, Move, Phase, Progress, Seen, advance, begin, reconcile, withdrawn
from serve_app.rollout.table import Share, Split

REVISIONS = {"stable": "s1", "canary": "c1", "next": "n1"}
READY, GOOD = Seen(1, 0), Seen(1, 0, is_good=True)
WAITING, AWAY, UNKNOWN = Seen(0, 0), Seen(0, 0), Seen(None, 0)


def rollout(*weights: int, pause: float = 60.0, **more: Any) -> RolloutConfig:
    steps = [{"weight": weight, "pause": pause} for weight in weights or (10, 50, 100)]
    return RolloutConfig.model_validate({"steps": steps, **more})


def declared(plan: RolloutConfig | None = None, **weights: int) -> Declared:
    """Return what says 100 to 0, and three steps."""
    shares = tuple(Share(variant=name, weight=weight) for name, weight in (weights or {"stable": 100, "canary": 0}).items())
    revisions = {share.variant: REVISIONS[share.variant] for share in shares}
    return Declared(Split(name="chat", shares=shares, baseline="stable"), revisions, plan)


PLAN = declared(rollout())


def walk(said: Declared, *looks: tuple[float, Seen]) -> tuple[Progress, list[str]]:
    """Return how far a rollout has come after some looks, and what happened."""
    progress, actions = begin(said, now_s=0.0, reason="declared"), []
    for now_s, seen in looks:
        progress, action = advance(progress, said, seen, now_s=now_s)
        actions += [action] if action else []
    return progress, actions


def weights(progress: Progress) -> dict[str, int]:
    return {share.variant: share.weight for share in progress.shares}


def at_first_step(said: Declared = PLAN) -> Progress:
    return walk(said, (1.0, READY))[0]


def test_a_rollout_begins_with_the_declared_weights_and_waits() -> None:
    assert begin(PLAN, now_s=5.0, reason="declared") == Progress(
        name="chat",
        phase=Phase.WAITING,
        shares=PLAN.split.shares,
        declared={"stable": 100, "canary": 0},
        revisions={"stable": "s1", "canary": "c1"},
        spec=PLAN.spec,
        compared=("canary", "stable"),
        started_s=5.0,
        step_since_s=5.0,
        reason="declared",
    )


def test_it_waits_while_the_variant_has_no_ready_replica() -> None:
    start = begin(PLAN, now_s=0.0, reason="declared")
    assert advance(start, PLAN, WAITING, now_s=100.0) == (start, None)


@pytest.mark.parametrize("seen", [READY, UNKNOWN], ids=["ready", "needs-none"])
def test_the_first_step_begins_when_the_variant_is_ready(seen: Seen) -> None:
    progress, actions = walk(PLAN, (1.0, seen))
    assert (progress.phase, progress.step, weights(progress), progress.step_since_s, progress.reason, actions) == (
        Phase.RUNNING,
        0,
        {"stable": 90, "canary": 10},
        1.0,
        "the variant is ready",
        ["advanced"],
    )


@pytest.mark.parametrize(
    ("now_s", "seen", "step"),
    [(60.9, GOOD, 0), (61.0, GOOD, 1), (9999.0, READY, 0), (9999.0, GOOD, 1)],
    ids=["pause-not-over", "pause-over", "gates-not-passed", "both-long-ago"],
)
def test_a_step_ends_when_its_pause_is_over_and_the_gates_have_passed(now_s: float, seen: Seen, step: int) -> None:
    assert walk(PLAN, (1.0, READY), (now_s, seen))[0].step == step


def test_a_whole_rollout_takes_every_step_and_completes_without_gates_at_100() -> None:
    progress, actions = walk(PLAN, (1.0, READY), (61.0, GOOD), (121.0, GOOD), (180.0, READY), (181.0, READY))
    assert (progress.phase, weights(progress), progress.reason, actions) == (
        Phase.COMPLETED,
        {"stable": 0, "canary": 100},
        "the step's time is over",
        ["advanced", "advanced", "advanced", "completed"],
    )


def test_a_last_step_under_100_completes_only_when_the_gates_have_passed() -> None:
    said = declared(rollout(50))
    assert walk(said, (1.0, READY), (999.0, READY))[0].phase is Phase.RUNNING
    progress, _ = walk(said, (1.0, READY), (999.0, GOOD))
    assert (progress.phase, weights(progress), progress.reason) == (
        Phase.COMPLETED,
        {"stable": 50, "canary": 50},
        "every gate has passed",
    )


def test_steps_that_the_declared_weight_has_reached_are_skipped() -> None:
    said = declared(rollout(10, 50, 100), stable=50, canary=50)
    progress, _ = walk(said, (1.0, READY))
    assert (progress.step, weights(progress)) == (2, {"stable": 0, "canary": 100})


def test_a_third_variant_keeps_its_share_through_a_rollout() -> None:
    said = declared(rollout(20, 90), stable=85, canary=5, next=10)
    seen = [weights(walk(said, *looks)[0]) for looks in ([(1.0, READY)], [(1.0, READY), (61.0, GOOD)])]
    assert seen == [{"stable": 70, "canary": 20, "next": 10}, {"stable": 0, "canary": 90, "next": 10}]


@pytest.mark.parametrize("now_s", [2.0, 9999.0], ids=["in-the-pause", "after-it"])
def test_a_failed_gate_rolls_back_at_once(now_s: float) -> None:
    progress, actions = walk(PLAN, (1.0, READY), (now_s, Seen(1, 0, failure="too slow", is_good=True)))
    assert (progress.phase, progress.shares, progress.reason, progress.step_since_s, actions) == (
        Phase.ROLLED_BACK,
        (Share(variant="stable", weight=100), Share(variant="canary", weight=0, is_withdrawn=True)),
        "too slow",
        now_s,
        ["advanced", "rolled_back"],
    )


def test_a_failed_gate_holds_where_that_is_configured() -> None:
    said = declared(rollout(on_failure="hold"))
    failing = Seen(1, 0, failure="too slow", is_good=True)
    progress, actions = walk(said, (1.0, READY), (2.0, failing), (3.0, failing), (9999.0, GOOD))
    assert (progress.phase, weights(progress), progress.reason, actions) == (
        Phase.HELD,
        {"stable": 90, "canary": 10},
        "too slow",
        ["advanced", "held"],
    )


def test_a_roll_back_gives_back_the_declared_share_too_but_not_a_third_ones() -> None:
    said = declared(rollout(20), stable=85, canary=5, next=10)
    progress, _ = walk(said, (1.0, Seen(1, 0, failure="bad")))
    assert weights(progress) == {"stable": 90, "canary": 0, "next": 10}


@pytest.mark.parametrize(("now_s", "phase"), [(1800.0, Phase.WAITING), (1800.1, Phase.ROLLED_BACK)], ids=["in-time", "late"])
def test_a_variant_that_is_never_ready_is_given_up(now_s: float, phase: Phase) -> None:
    progress, _ = walk(PLAN, (now_s, WAITING))
    assert progress.phase is phase
    assert progress.reason == ("declared" if phase is Phase.WAITING else "no replica of canary was ready within 1800 s")


@pytest.mark.parametrize(("now_s", "phase"), [(32.0, Phase.RUNNING), (32.1, Phase.ROLLED_BACK)], ids=["in-time", "late"])
def test_a_variant_that_has_lost_its_replicas_too_long_is_rolled_back(now_s: float, phase: Phase) -> None:
    progress, _ = walk(PLAN, (1.0, READY), (2.0, AWAY), (now_s, AWAY))
    assert progress.phase is phase


@pytest.mark.parametrize("seen", [READY, UNKNOWN], ids=["ready-again", "needs-none"])
def test_the_time_without_a_replica_is_that_since_the_last_one(seen: Seen) -> None:
    said = declared(rollout())
    looks = [(1.0, READY), (2.0, AWAY), (30.0, READY), (31.0, seen), (60.0, AWAY), (90.0, AWAY)]
    assert walk(said, *looks)[0].phase is Phase.RUNNING


@pytest.mark.parametrize(("crashes", "phase"), [(2, Phase.RUNNING), (3, Phase.ROLLED_BACK)], ids=["allowed", "one-more"])
def test_crashes_add_up_over_a_rollout(crashes: int, phase: Phase) -> None:
    looks = [(2.0 + i, Seen(1, 1)) for i in range(crashes)]
    progress, _ = walk(PLAN, (1.0, READY), *looks)
    assert (progress.crashes, progress.phase) == (crashes, phase)


def test_replicas_that_fail_to_start_end_a_rollout_that_waits() -> None:
    progress, actions = walk(PLAN, (1.0, Seen(0, 3)))
    assert (progress.reason, actions) == ("3 replicas of canary died or failed to start; 2 are allowed", ["rolled_back"])


def test_a_paused_rollout_stays_where_it_is() -> None:
    paused = at_first_step().model_copy(update={"phase": Phase.PAUSED})
    assert advance(paused, PLAN, GOOD, now_s=9999.0) == (paused, None)


@pytest.mark.parametrize("seen", [Seen(1, 0, failure="bad"), Seen(1, 3)], ids=["gate", "crashes"])
def test_a_paused_rollout_is_guarded_on(seen: Seen) -> None:
    paused = at_first_step().model_copy(update={"phase": Phase.PAUSED})
    assert advance(paused, PLAN, seen, now_s=9999.0)[1] == "rolled_back"


@pytest.mark.parametrize("phase", sorted(set(Phase) - ACTIVE))
def test_a_rollout_that_is_over_is_not_looked_at(phase: Phase) -> None:
    over = at_first_step().model_copy(update={"phase": phase})
    assert advance(over, PLAN, Seen(1, 9, failure="bad", is_good=True), now_s=9999.0) == (over, None)


def test_an_abort_of_plain_weights_leaves_only_the_baseline() -> None:
    said = declared(None, stable=60, canary=30, next=10)
    made = withdrawn(begin(said, now_s=0.0, reason=""), said, Phase.ABORTED, reason="by ann", now_s=3.0)
    assert made.shares == (
        Share(variant="stable", weight=100),
        Share(variant="canary", weight=0, is_withdrawn=True),
        Share(variant="next", weight=0, is_withdrawn=True),
    )


def test_a_rollout_that_is_declared_starts() -> None:
    assert reconcile(None, PLAN, now_s=7.0) == Move("started", begin(PLAN, now_s=7.0, reason="declared"))


@pytest.mark.parametrize("phase", Phase)
def test_a_declaration_that_says_the_same_changes_nothing(phase: Phase) -> None:
    progress = at_first_step().model_copy(update={"phase": phase})
    assert reconcile(progress, declared(rollout()), now_s=7.0) is None


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("variant", ["stable", "canary"])
def test_a_variant_made_of_something_else_begins_anew(phase: Phase, variant: str) -> None:
    said = replace(PLAN, revisions={**PLAN.revisions, variant: "x"})
    move = reconcile(at_first_step().model_copy(update={"phase": phase}), said, now_s=7.0)
    reason = f"{variant} is made of something else than before"
    assert move == Move("restarted", begin(said, now_s=7.0, reason=reason))


def test_a_third_variant_made_of_something_else_disturbs_nobody() -> None:
    said = declared(rollout(20), stable=85, canary=5, next=10)
    changed = replace(said, revisions={**said.revisions, "next": "x"})
    assert reconcile(at_first_step(said), changed, now_s=7.0) is None


@pytest.mark.parametrize("phase", Phase)
def test_another_variant_on_trial_begins_anew(phase: Phase) -> None:
    before = declared(rollout(20), stable=90, canary=5, next=5)
    after = replace(before, rollout=rollout(20, variant="next"))
    move = reconcile(at_first_step(before).model_copy(update={"phase": phase}), after, now_s=7.0)
    assert move == Move("restarted", begin(after, now_s=7.0, reason="another variant or baseline was declared"))


@pytest.mark.parametrize("phase", Phase)
def test_a_changed_weight_is_in_force_and_ends_the_rollout(phase: Phase) -> None:
    said = declared(rollout(), stable=75, canary=25)
    move = reconcile(at_first_step().model_copy(update={"phase": phase}), said, now_s=7.0)
    assert move is not None
    assert (move.action, move.progress.phase, move.progress.shares, move.progress.reason) == (
        "overridden",
        Phase.OVERRIDDEN,
        said.split.shares,
        "the declared weights are in force: stable 75, canary 25",
    )
    assert reconcile(move.progress, said, now_s=8.0) is None


@pytest.mark.parametrize("phase", sorted(ACTIVE))
def test_other_steps_take_over_from_the_share_that_is_reached(phase: Phase) -> None:
    said = declared(rollout(5, 10, 30))
    move = reconcile(at_first_step().model_copy(update={"phase": phase}), said, now_s=7.0)
    assert move is not None
    made = move.progress
    assert (move.action, made.phase, made.step, made.step_since_s, weights(made)) == (
        "changed",
        phase,
        1,
        7.0,
        {"stable": 90, "canary": 10},
    )


def test_steps_that_all_lie_ahead_are_entered_at_once() -> None:
    said = declared(rollout(40, 80))
    move = reconcile(at_first_step(), said, now_s=7.0)
    assert move is not None
    made, action = advance(move.progress, said, READY, now_s=7.0)
    assert (action, made.step, weights(made)) == ("advanced", 0, {"stable": 60, "canary": 40})


@pytest.mark.parametrize("phase", [Phase.ROLLED_BACK, Phase.ABORTED, Phase.OVERRIDDEN])
def test_other_steps_or_gates_begin_anew_what_had_ended_badly(phase: Phase) -> None:
    said = declared(rollout(5))
    move = reconcile(at_first_step().model_copy(update={"phase": phase}), said, now_s=7.0)
    assert move == Move("restarted", begin(said, now_s=7.0, reason="the rollout was declared anew"))


def test_other_steps_leave_a_completed_rollout_completed() -> None:
    said = declared(rollout(5))
    completed = at_first_step().model_copy(update={"phase": Phase.COMPLETED})
    assert reconcile(completed, said, now_s=7.0) == Move("changed", completed.model_copy(update={"spec": said.spec}))


def test_without_a_rollout_nothing_is_begun() -> None:
    assert reconcile(None, declared(None), now_s=7.0) is None


@pytest.mark.parametrize("phase", Phase)
def test_a_rollout_that_is_no_longer_declared_leaves_the_declared_weights(phase: Phase) -> None:
    said = declared(None)
    move = reconcile(at_first_step().model_copy(update={"phase": phase}), said, now_s=7.0)
    assert move is not None
    assert (move.action, move.progress.phase, weights(move.progress)) == (
        "overridden",
        Phase.OVERRIDDEN,
        {"stable": 100, "canary": 0},
    )
    assert reconcile(move.progress, said, now_s=8.0) is None


@pytest.mark.parametrize("phase", Phase)
def test_a_rollout_that_is_declared_again_starts(phase: Phase) -> None:
    removed = reconcile(at_first_step().model_copy(update={"phase": phase}), declared(None), now_s=7.0)
    assert removed is not None
    assert reconcile(removed.progress, PLAN, now_s=8.0) == Move("started", begin(PLAN, now_s=8.0, reason="declared"))


ABORTED = withdrawn(begin(declared(None), now_s=0.0, reason=""), declared(None), Phase.ABORTED, reason="by ann", now_s=3.0)


def test_an_abort_of_plain_weights_outlives_the_same_declaration() -> None:
    assert reconcile(ABORTED, declared(None), now_s=7.0) is None


@pytest.mark.parametrize(
    "said",
    [declared(None, stable=90, canary=10), replace(declared(None), revisions={"stable": "s1", "canary": "c2"})],
    ids=["weights", "revision"],
)
def test_an_abort_of_plain_weights_is_lifted_by_another_declaration(said: Declared) -> None:
    move = reconcile(ABORTED, said, now_s=7.0)
    assert move is not None
    assert (move.action, move.progress.phase) == ("overridden", Phase.OVERRIDDEN)


def test_a_variant_without_weight_that_comes_or_goes_ends_no_rollout() -> None:
    progress = at_first_step()
    more = declared(PLAN.rollout, stable=100, canary=0, next=0)
    action, refitted = reconcile(progress, more, now_s=50.0) or pytest.fail("nothing happened")
    assert (action, refitted.phase, refitted.step) == ("refitted", progress.phase, progress.step)
    assert weights(refitted) == {**weights(progress), "next": 0}
    assert reconcile(refitted, more, now_s=51.0) is None
    action, back = reconcile(refitted, PLAN, now_s=52.0) or pytest.fail("nothing happened")
    assert (action, weights(back)) == ("refitted", weights(progress))
