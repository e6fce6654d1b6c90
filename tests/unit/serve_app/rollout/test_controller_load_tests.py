"""Rollouts that need a load test: what lets a step go, what rolls it back, and what it waits for."""

from __future__ import annotations

from typing import Any

import pytest

from serve_app.rollout.commands import Verb
from serve_app.rollout.controller import statuses
from serve_app.rollout.load_tests import LoadTestResult
from serve_app.rollout.plan import Phase
from tests.unit.serve_app.load_testing import document, failed, traffic
from tests.unit.serve_app.rollout.test_controller import World, chat, restarted, served

STEPS = {
    "steps": [{"weight": 10, "pause": 5}, {"weight": 100, "pause": 5}],
    "gates": {"min_requests": 10, "load_test": {"scenario": "smoke"}},
}


def begun(**more: Any) -> World:
    """Return a world whose first step is in force, and whose other gates have passed."""
    world = World(chat(steps={**STEPS, **more}))
    healthy(world, 120)
    assert world.weights() == {"stable": 90, "canary": 10}
    return world


def healthy(world: World, seconds: int = 30) -> None:
    world.look(seconds, stable=served(), canary=served())


def publish(world: World, found: dict[str, Any], *, canary: int = 10) -> None:
    """Let a run come in that has taken place now."""
    now_s = world.clock.now_s
    looks = {"begin": traffic(canary=canary), "end": traffic(canary=canary)}
    told = {**found, **looks, "begun_s": now_s, "ended_s": now_s}
    world.controller.load_tests = {"smoke": LoadTestResult.model_validate(told)}


def reading(world: World) -> dict[str, Any]:
    (split,) = statuses(world.controller)
    return dict(split["readings"][-1])


def test_without_a_result_the_step_stays_and_the_status_says_what_it_waits_for() -> None:
    world = begun()
    assert {each["verdict"] for each in statuses(world.controller)[0]["readings"][:-1]} == {"promote"}
    assert (reading(world)["gate"], reading(world)["reason"]) == (
        "load_test",
        "waits for load test smoke: no result has been published",
    )


def test_a_run_that_passed_lets_the_step_go_and_the_next_one_needs_another() -> None:
    world = begun()
    publish(world, document())
    healthy(world)
    assert world.weights() == {"stable": 0, "canary": 100}
    assert "before this step" in reading(world)["reason"]
    healthy(world, 60)
    assert world.phase() is Phase.RUNNING
    publish(world, document(), canary=100)
    healthy(world)
    assert world.phase() is Phase.COMPLETED


def test_a_run_that_failed_rolls_back_and_the_history_has_its_gates_and_figures() -> None:
    world = begun()
    publish(world, failed())
    healthy(world, 1)
    made = world.controller.history.of("chat")[-1]
    assert (made.action, made.weights) == ("rolled_back", {"stable": 100, "canary": 0})
    assert made.reason.startswith("load test smoke failed: error_rate (30 of 100 requests failed); ttft_p95")
    assert made.readings[-1]["gate"] == "load_test"


def test_a_failed_run_of_another_canary_rolls_nothing_back() -> None:
    world = begun()
    publish(world, failed())
    world.declare(chat(steps=STEPS, revision="c2"))
    healthy(world, 120)
    assert (world.phase(), "made of something else" in reading(world)["reason"]) == (Phase.RUNNING, False)
    assert "before this step" in reading(world)["reason"]


def test_a_run_before_the_first_step_says_nothing() -> None:
    world = World(chat(steps=STEPS))
    world.fleet.replicas = 0
    publish(world, failed(), canary=0)
    healthy(world, 3)
    assert (world.phase(), [each["gate"] for each in statuses(world.controller)[0]["readings"]]) == (
        Phase.WAITING,
        ["error_rate", "hang"],
    )


def test_what_held_a_rollout_is_forgiven_when_it_is_let_go_on_also_by_the_next_process() -> None:
    world = begun(on_failure="hold")
    publish(world, failed())
    healthy(world, 2)
    assert world.phase() is Phase.HELD
    world.clock.now_s += 1
    world.controller.command("chat", Verb.RESUME, by="ann")
    after = restarted(world, chat(steps={**STEPS, "on_failure": "hold"}))
    after.controller.load_tests = world.controller.load_tests
    for each in (world, after):
        healthy(each, 3)
        assert (each.phase(), "before this step" in reading(each)["reason"]) == (Phase.RUNNING, True)


@pytest.mark.parametrize("verb", [Verb.PROMOTE, Verb.PROMOTE_FULLY])
def test_an_operator_needs_no_load_test(verb: Verb) -> None:
    world = begun()
    world.controller.command("chat", verb, by="ann")
    assert world.weights() == {"stable": 0, "canary": 100}


def test_a_load_test_that_is_added_later_keeps_what_the_other_gates_have_seen() -> None:
    plain = {**STEPS, "gates": {"min_requests": 10}}
    with_test = World(chat(steps=STEPS))
    without = World(chat(steps=plain))
    for world in (with_test, without):
        healthy(world, 3)
    assert (
        with_test.controller.evidence()["chat"]["state"]["config"] == without.controller.evidence()["chat"]["state"]["config"]
    )
