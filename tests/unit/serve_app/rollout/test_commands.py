from __future__ import annotations

import pytest

from serve_app.config import RolloutConfig
from serve_app.errors import RolloutConflict
from serve_app.rollout.commands import Verb, obey
from serve_app.rollout.plan import Declared, Move, Phase, Progress, Seen, advance, begin, reconcile
from serve_app.rollout.table import Share, Split

ROLLOUT = RolloutConfig.model_validate({"steps": [{"weight": 10}, {"weight": 50}, {"weight": 90}], "on_failure": "hold"})


def declared(rollout: RolloutConfig | None = ROLLOUT, **weights: int) -> Declared:
    shares = tuple(Share(variant=name, weight=weight) for name, weight in (weights or {"stable": 100, "canary": 0}).items())
    split = Split(name="chat", shares=shares, baseline="stable")
    return Declared(split, {share.variant: "r" for share in shares}, rollout)


PLAN = declared()
START = begin(PLAN, now_s=0.0, reason="declared")
RUNNING, _ = advance(START, PLAN, Seen(1, 0), now_s=1.0)


def at(phase: Phase) -> Progress:
    return START if phase is Phase.WAITING else RUNNING.model_copy(update={"phase": phase})


def order(verb: Verb, progress: Progress | None, said: Declared = PLAN) -> Move:
    return obey(verb, progress, said, now_s=9.0, by="ann")


def stands(move: Move) -> tuple[str, Phase, int, int, str]:
    made = move.progress
    return move.action, made.phase, made.step, made.weight("canary"), made.reason


@pytest.mark.parametrize("phase", [Phase.WAITING, Phase.RUNNING])
def test_a_rollout_under_way_is_paused_where_it_is(phase: Phase) -> None:
    before = at(phase)
    assert order(Verb.PAUSE, before) == Move("paused", before.model_copy(update={"phase": Phase.PAUSED, "reason": "by ann"}))


@pytest.mark.parametrize("phase", [Phase.PAUSED, Phase.HELD])
def test_a_stopped_rollout_goes_on_at_its_step(phase: Phase) -> None:
    assert stands(order(Verb.RESUME, at(phase))) == ("resumed", Phase.RUNNING, 0, 10, "by ann")


def test_a_rollout_that_was_paused_while_it_waited_waits_again_for_the_whole_time() -> None:
    paused = order(Verb.PAUSE, START).progress
    resumed = obey(Verb.RESUME, paused, PLAN, now_s=5000.0, by="ann").progress
    assert (resumed.phase, advance(resumed, PLAN, Seen(0, 0), now_s=5001.0)) == (Phase.WAITING, (resumed, None))


@pytest.mark.parametrize(
    "seen", [Seen(1, 3), Seen(0, 0), Seen(1, 0, failure="too slow")], ids=["crashes", "no-replica", "gate"]
)
def test_a_rollout_that_was_held_is_not_held_again_for_the_same_reason(seen: Seen) -> None:
    before, _ = advance(RUNNING, PLAN, Seen(0, 0), now_s=2.0)
    held, action = advance(before, PLAN, seen, now_s=40.0)
    resumed = obey(Verb.RESUME, held, PLAN, now_s=41.0, by="ann").progress
    after, _ = advance(resumed, PLAN, Seen(seen.ready, 0), now_s=42.0)
    assert (action, after.phase) == ("held", Phase.RUNNING)


@pytest.mark.parametrize("phase", [Phase.WAITING, Phase.RUNNING, Phase.PAUSED, Phase.HELD])
def test_promotion_enters_the_next_step_whatever_the_gates_say(phase: Phase) -> None:
    step = 0 if phase is Phase.WAITING else 1
    assert stands(order(Verb.PROMOTE, at(phase))) == ("promoted", Phase.RUNNING, step, (10, 50)[step], "by ann")


def test_promotion_from_the_last_step_completes() -> None:
    last = order(Verb.PROMOTE, order(Verb.PROMOTE, RUNNING).progress).progress
    assert stands(order(Verb.PROMOTE, last)) == ("promoted", Phase.COMPLETED, 2, 90, "by ann")


@pytest.mark.parametrize("phase", [Phase.WAITING, Phase.RUNNING, Phase.PAUSED, Phase.HELD])
def test_full_promotion_completes_at_the_last_step(phase: Phase) -> None:
    assert stands(order(Verb.PROMOTE_FULLY, at(phase))) == ("promoted", Phase.COMPLETED, 2, 90, "by ann")


@pytest.mark.parametrize("phase", sorted(set(Phase) - {Phase.ABORTED, Phase.ROLLED_BACK}))
def test_an_abort_takes_the_variant_out_in_any_phase(phase: Phase) -> None:
    move = order(Verb.ABORT, at(phase))
    assert (move.action, move.progress.phase, move.progress.shares) == (
        "aborted",
        Phase.ABORTED,
        (Share(variant="stable", weight=100), Share(variant="canary", weight=0, is_withdrawn=True)),
    )


def test_an_abort_works_before_a_rollout_was_begun() -> None:
    assert stands(order(Verb.ABORT, None)) == ("aborted", Phase.ABORTED, -1, 0, "by ann")


def test_an_abort_works_without_a_rollout() -> None:
    said = declared(None, stable=60, canary=40)
    move = order(Verb.ABORT, None, said)
    assert (stands(move), move.progress.weight("stable"), move.progress.spec) == (
        ("aborted", Phase.ABORTED, -1, 0, "by ann"),
        100,
        "",
    )


def test_a_second_abort_of_plain_weights_outlives_the_declaration_that_it_was_made_under() -> None:
    first, second, third = (declared(None, stable=100 - weight, canary=weight) for weight in (10, 20, 30))
    progress: Progress = order(Verb.ABORT, None, first).progress
    for said in (second, third):
        lifted = reconcile(progress, said, now_s=10.0)
        progress = progress if lifted is None else lifted.progress
    assert reconcile(order(Verb.ABORT, progress, third).progress, third, now_s=11.0) is None


@pytest.mark.parametrize("phase", Phase)
def test_a_restart_begins_anew_in_any_phase(phase: Phase) -> None:
    assert order(Verb.RESTART, at(phase)) == Move("restarted", begin(PLAN, now_s=9.0, reason="by ann"))


FITS = {
    Verb.PAUSE: "running, waiting",
    Verb.RESUME: "held, paused",
    Verb.PROMOTE: "held, paused, running, waiting",
    Verb.PROMOTE_FULLY: "held, paused, running, waiting",
}
CONFLICTS = [(verb, phase) for verb, fits in FITS.items() for phase in Phase if phase not in fits.split(", ")]


@pytest.mark.parametrize(("verb", "phase"), CONFLICTS)
def test_a_command_that_does_not_fit_the_phase_is_refused(verb: Verb, phase: Phase) -> None:
    with pytest.raises(RolloutConflict) as caught:
        order(verb, at(phase))
    assert caught.value.message == f"the rollout of 'chat' is {phase}; {verb} works while it is one of: {FITS[verb]}"


@pytest.mark.parametrize("verb", FITS)
def test_a_command_before_the_beginning_is_refused(verb: Verb) -> None:
    with pytest.raises(RolloutConflict, match="is not begun"):
        order(verb, None)


@pytest.mark.parametrize("phase", [Phase.ABORTED, Phase.ROLLED_BACK])
def test_an_abort_of_what_is_taken_out_is_refused(phase: Phase) -> None:
    with pytest.raises(RolloutConflict, match="goes to its baseline already"):
        order(Verb.ABORT, at(phase))


def test_an_abort_with_one_variant_is_refused() -> None:
    with pytest.raises(RolloutConflict, match="has one variant only"):
        order(Verb.ABORT, None, declared(None, stable=100))


@pytest.mark.parametrize("verb", sorted(set(Verb) - {Verb.ABORT}))
def test_without_a_rollout_there_is_nothing_to_command(verb: Verb) -> None:
    with pytest.raises(RolloutConflict, match="has no rollout in its configuration"):
        order(verb, None, declared(None))


def test_a_promotion_forgives_what_held_the_rollout() -> None:
    held = at(Phase.HELD).model_copy(update={"crashes": 9, "unready_since_s": 1.0})
    made = order(Verb.PROMOTE, held).progress
    assert (made.phase, made.crashes, made.unready_since_s) == (Phase.RUNNING, 0, None)
