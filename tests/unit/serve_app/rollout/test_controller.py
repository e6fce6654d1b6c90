from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from serve_app.config import RolloutConfig
from serve_app.errors import RolloutConflict, UnknownRollout
from serve_app.rollout.commands import Verb
from serve_app.rollout.controller import Controller, Kept, statuses
from serve_app.rollout.document import RoutedModel, RoutedVariant, RoutingDocument
from serve_app.rollout.gathering import Gathering
from serve_app.rollout.histogram import Histogram
from serve_app.rollout.plan import Phase
from serve_app.rollout.table import Share, TrafficTable
from serve_app.rollout.telemetry import Outcome, RouterReport, VariantStats
from tests.unit.serve_app.fakes import PIPELINE, FakeClock

STEPS = {"steps": [{"weight": 10, "pause": 20}, {"weight": 100, "pause": 20}], "gates": {"min_requests": 10}}


def chat(*, steps: dict[str, Any] | None = STEPS, revision: str = "c1", may_sleep: bool = False, **weights: int) -> RoutedModel:
    """Return a model whose canary rolls out."""
    found = weights or {"stable": 100, "canary": 0}
    variants = tuple(
        RoutedVariant(
            name=name,
            weight=weight,
            max_leases=2,
            engine="simulated",
            revision=revision if name == "canary" else "s1",
            may_sleep=may_sleep,
        )
        for name, weight in found.items()
    )
    rollout = None if steps is None else RolloutConfig.model_validate(steps)
    return RoutedModel(name="chat", variants=variants, rollout=rollout)


@dataclass
class FakeFleet:
    """As many replicas, and losses, of every variant as a test says."""

    replicas: int = 1
    lost: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)

    def ready(self, model: str, variant: str, revision: str) -> int:
        self.asked.append((model, variant))
        return self.replicas

    def losses(self, model: str, variant: str, revision: str) -> int:
        return self.lost


def served(failed: int = 0, requests: int = 20) -> VariantStats:
    e2e = Histogram()
    for _ in range(requests - failed):
        e2e.observe(0.5)
    outcomes = Counter({Outcome.OK: requests - failed, Outcome.SERVER_ERROR: failed})
    return VariantStats(outcomes=outcomes, e2e=e2e)


class World:
    """A controller, its clock, its fleet, and one Router."""

    def __init__(self, *models: RoutedModel) -> None:
        self.clock = FakeClock()
        self.fleet = FakeFleet()
        self.gathering = Gathering()
        self.controller = Controller(self.gathering, wall=self.clock)
        self.seq = 0
        self.declare(*models)

    def declare(self, *models: RoutedModel) -> None:
        self.controller.declare(RoutingDocument(models=models))

    def look(self, seconds: int = 1, /, **stats: VariantStats) -> None:
        """Let seconds pass, in each of which the variants' requests end so."""
        for _ in range(seconds):
            self.clock.now_s += 1.0
            self.seq += 1
            told = {("chat", variant): each for variant, each in stats.items()}
            self.gathering.take(RouterReport("r", self.seq, 1, told, {}), now_s=self.clock.now_s)
            self.controller.tick(self.fleet, now_s=self.clock.now_s)

    def until(self, action: str, **stats: VariantStats) -> None:
        """Look until something has happened."""
        before = self.controller.history.actions("chat")[action]
        for _ in range(2000):
            self.look(**stats)
            if self.controller.history.actions("chat")[action] > before:
                return
        pytest.fail(f"{action} did not happen")

    def actions(self) -> list[str]:
        return [each.action for each in self.controller.history.of("chat")]

    def weights(self) -> dict[str, int]:
        return dict(self.controller.table.by_name["chat"].weights)

    def phase(self) -> Phase | None:
        progress = self.controller.progress("chat")
        return None if progress is None else progress.phase


def restarted(world: World, *models: RoutedModel) -> World:
    """Return what another process makes of what this one kept."""
    made = World.__new__(World)
    made.clock, made.fleet, made.gathering, made.seq = world.clock, world.fleet, Gathering(), 0
    made.controller = Controller(made.gathering, wall=made.clock)
    kept = Kept.model_validate_json(world.controller.keep().model_dump_json())
    made.controller.restore(kept, json.loads(json.dumps(world.controller.evidence())))
    made.declare(*models)
    return made


def test_a_table_says_what_is_declared() -> None:
    world = World(chat(steps=None, stable=90, canary=10))
    assert world.controller.table.version == 1
    assert (world.weights(), world.phase(), world.actions()) == ({"stable": 90, "canary": 10}, None, [])


def test_declaring_the_same_again_resets_nothing() -> None:
    world = World(chat())
    world.look(3)
    before = world.controller.keep()
    world.declare(chat())
    assert world.controller.keep() == before


def test_a_look_without_news_makes_no_new_table() -> None:
    world = World(chat())
    world.look()
    table = world.controller.table
    world.look(5)
    assert world.controller.table is table


def test_a_step_is_a_new_version_of_the_table_with_the_new_weights() -> None:
    world = World(chat())
    version = world.controller.table.version
    world.look()
    assert (world.controller.table.version, world.weights()) == (version + 1, {"stable": 90, "canary": 10})


def test_a_good_canary_is_promoted_by_its_gates_to_the_end() -> None:
    world = World(chat())
    world.until("completed", stable=served(), canary=served())
    assert (world.phase(), world.weights(), world.actions()) == (
        Phase.COMPLETED,
        {"stable": 0, "canary": 100},
        ["started", "advanced", "advanced", "completed"],
    )


def test_a_bad_canary_is_rolled_back_with_the_numbers_that_said_so() -> None:
    world = World(chat())
    world.until("rolled_back", stable=served(), canary=served(failed=10))
    made = world.controller.history.of("chat")[-1]
    assert (made.before, made.weights, made.phase) == (
        {"stable": 90, "canary": 10},
        {"stable": 100, "canary": 0},
        Phase.ROLLED_BACK,
    )
    assert world.controller.table.by_name["chat"].withdrawn == {"canary"}
    assert {reading["gate"]: reading["verdict"] for reading in made.readings}["error_rate"] == "roll_back"
    assert made.reason == next(reading["reason"] for reading in made.readings if reading["gate"] == "error_rate")


def test_without_requests_of_the_canary_a_step_is_never_passed() -> None:
    world = World(chat())
    world.look(200, stable=served())
    assert (world.phase(), world.weights()) == (Phase.RUNNING, {"stable": 90, "canary": 10})


def test_a_changed_weight_overrides_a_running_rollout_and_the_history_says_so() -> None:
    world = World(chat())
    world.look()
    world.declare(chat(stable=75, canary=25))
    made = world.controller.history.of("chat")[-1]
    assert (made.action, made.before, made.weights, made.reason) == (
        "overridden",
        {"stable": 90, "canary": 10},
        {"stable": 75, "canary": 25},
        "the declared weights are in force: stable 75, canary 25",
    )
    world.look(5)
    assert (world.weights(), world.phase()) == ({"stable": 75, "canary": 25}, Phase.OVERRIDDEN)


def test_another_revision_begins_anew_with_the_declared_weights() -> None:
    world = World(chat())
    world.look()
    world.declare(chat(revision="c2"))
    assert (world.weights(), world.phase(), world.actions()[-1]) == ({"stable": 100, "canary": 0}, Phase.WAITING, "restarted")


def test_evidence_against_one_revision_is_not_held_against_the_next() -> None:
    world = World(chat())
    world.look(2, stable=served(), canary=served(failed=1))
    assert world.controller.assessment("chat") is not None
    world.declare(chat(revision="c2"))
    assert (world.controller.assessment("chat"), world.controller.evidence()) == (None, {})


def test_a_restart_of_the_process_goes_on_at_the_same_step_with_the_same_version() -> None:
    world = World(chat())
    world.look()
    after = restarted(world, chat())
    assert after.controller.keep() == world.controller.keep()
    assert (after.controller.table, after.weights(), after.actions()) == (
        world.controller.table,
        {"stable": 90, "canary": 10},
        ["started", "advanced"],
    )


def test_a_restart_of_the_process_forgets_no_evidence() -> None:
    world = World(chat())
    world.look(30, stable=served(), canary=served())
    after = restarted(world, chat())
    after.look(stable=served(), canary=served())
    counted = [each.controller.assessment("chat") for each in (world, after)]
    before, later = (made.readings[0].attempts for made in counted if made is not None)
    assert later >= before - 6 * 20  # a block that was not over is left out


def test_what_was_declared_anew_while_the_process_was_away_is_in_force() -> None:
    world = World(chat())
    world.look()
    version = world.controller.table.version
    after = restarted(world, chat(stable=40, canary=60))
    assert (after.controller.table.version, after.weights(), after.actions()[-1]) == (
        version + 1,
        {"stable": 40, "canary": 60},
        "overridden",
    )


def test_a_restored_roll_back_stays_rolled_back() -> None:
    world = World(chat())
    world.until("rolled_back", stable=served(), canary=served(failed=10))
    after = restarted(world, chat())
    after.look(100, stable=served(), canary=served())
    assert (after.weights(), after.controller.table.by_name["chat"].withdrawn) == (
        {"stable": 100, "canary": 0},
        frozenset({"canary"}),
    )


def test_a_model_that_is_removed_leaves_the_table_and_keeps_its_history() -> None:
    world = World(chat())
    world.look(2, stable=served(), canary=served())
    world.declare()
    assert (world.controller.table.splits, world.phase(), world.controller.evidence(), statuses(world.controller)) == (
        (),
        None,
        {},
        [],
    )
    assert world.actions() == ["started", "advanced"]
    with pytest.raises(UnknownRollout):
        world.controller.require("chat")


def test_a_model_that_comes_back_starts_anew() -> None:
    world = World(chat())
    world.look()
    world.declare()
    world.declare(chat())
    assert (world.phase(), world.weights(), world.actions()) == (
        Phase.WAITING,
        {"stable": 100, "canary": 0},
        ["started", "advanced", "started"],
    )


def test_crashes_count_from_when_the_rollout_looks_first() -> None:
    world = World(chat())
    world.fleet.lost = 7
    world.look(3)
    assert world.phase() is Phase.RUNNING
    world.fleet.lost = 10
    world.look()
    assert (world.phase(), world.actions()[-1]) == (Phase.ROLLED_BACK, "rolled_back")


def test_losses_that_a_restarted_process_does_not_know_are_no_crashes() -> None:
    world = World(chat())
    world.fleet.lost = 5
    world.look(2)
    after = restarted(world, chat())
    after.fleet.lost = 0
    after.look(2)
    assert after.phase() is Phase.RUNNING


@pytest.mark.parametrize("may_sleep", [False, True], ids=["awake", "may-sleep"])
def test_only_a_variant_that_may_not_sleep_must_have_a_ready_replica(may_sleep: bool) -> None:
    world = World(chat(may_sleep=may_sleep))
    world.fleet.replicas = 0
    world.look(40)
    assert world.phase() is (Phase.RUNNING if may_sleep else Phase.WAITING)


def test_a_canary_that_falls_asleep_is_not_rolled_back() -> None:
    world = World(chat(may_sleep=True))
    world.look()
    world.fleet.replicas = 0
    world.look(60)
    assert world.phase() is Phase.RUNNING


def test_versions_of_a_pipeline_need_no_replica() -> None:
    v1 = PIPELINE.versions[0]
    rollout = RolloutConfig.model_validate({"variant": "v2", "baseline": "v1", "steps": [{"weight": 20}]})
    versions = (v1, v1.model_copy(update={"name": "v2", "weight": 0}))
    pipeline = PIPELINE.model_copy(update={"versions": versions, "rollout": rollout})
    world = World()
    world.controller.declare(RoutingDocument(pipelines=(pipeline,)))
    world.look()
    assert (world.controller.table.by_name["docs"].weights, world.fleet.asked) == ({"v1": 80, "v2": 20}, [])


def test_a_command_is_in_force_and_recorded_when_it_returns() -> None:
    world = World(chat())
    made = world.controller.command("chat", Verb.PROMOTE_FULLY, by="ann")
    assert (made.action, made.phase, made.weights, made.before, made.reason, world.weights()) == (
        "promoted",
        Phase.COMPLETED,
        {"stable": 0, "canary": 100},
        {"stable": 100, "canary": 0},
        "by ann",
        {"stable": 0, "canary": 100},
    )
    assert world.controller.history.of("chat")[-1] == made


def test_a_command_that_is_refused_changes_nothing() -> None:
    world = World(chat())
    before = world.controller.keep()
    with pytest.raises(RolloutConflict):
        world.controller.command("chat", Verb.RESUME, by="ann")
    assert world.controller.keep() == before


def test_a_command_for_nothing_that_is_served_is_refused() -> None:
    with pytest.raises(UnknownRollout):
        World(chat()).controller.command("chatt", Verb.ABORT, by="ann")


def test_an_abort_of_plain_weights_is_lifted_by_other_weights_only() -> None:
    world = World(chat(steps=None, stable=60, canary=40))
    world.controller.command("chat", Verb.ABORT, by="ann")
    world.declare(chat(steps=None, stable=60, canary=40))
    assert world.weights() == {"stable": 100, "canary": 0}
    world.declare(chat(steps=None, stable=70, canary=30))
    assert (world.weights(), world.controller.table.by_name["chat"].withdrawn) == ({"stable": 70, "canary": 30}, frozenset())


def test_a_rollout_that_is_removed_leaves_the_declared_weights() -> None:
    world = World(chat())
    world.look()
    world.declare(chat(steps=None))
    assert (world.weights(), world.phase(), world.actions()[-1]) == (
        {"stable": 100, "canary": 0},
        Phase.OVERRIDDEN,
        "overridden",
    )


def test_another_baseline_is_known_without_a_new_version() -> None:
    world = World(chat(steps=None, stable=50, canary=50))
    version = world.controller.table.version
    both = {"variant": "stable", "baseline": "canary", "steps": [{"weight": 60}]}
    world.declare(chat(steps=both, stable=50, canary=50))
    table = world.controller.table
    assert (table.version, table.by_name["chat"].baseline) == (version, "canary")


@pytest.mark.parametrize("canary", [served(), served(failed=10)], ids=["good", "bad"])
def test_all_that_is_said_of_a_rollout_is_plain_json(canary: VariantStats) -> None:
    world = World(chat())
    world.look(40, stable=served(), canary=canary)
    kept = world.controller.keep()
    history = [made.model_dump(mode="json") for made in world.controller.history.of("chat")]
    evidence = world.controller.evidence()
    assert json.loads(json.dumps([statuses(world.controller), history, evidence], allow_nan=False))
    assert Kept.model_validate_json(kept.model_dump_json()) == kept
    assert any(made["readings"] for made in history)


def test_a_status_says_how_a_rollout_stands() -> None:
    world = World(chat())
    world.look()
    [status] = statuses(world.controller)
    assert {key: status[key] for key in status if key not in ("readings", "step_since_s")} == {
        "name": "chat",
        "phase": "running",
        "reason": "the variant is ready",
        "step": 0,
        "steps": [{"weight": 10, "pause": 20.0}, {"weight": 100, "pause": 20.0}],
        "crashes": 0,
        "variant": "canary",
        "baseline": "stable",
        "weights": {"stable": 90, "canary": 10},
        "declared_weights": {"stable": 100, "canary": 0},
        "withdrawn": [],
        "verdict": "wait",
    }


def test_a_status_of_plain_weights_says_only_those() -> None:
    [status] = statuses(World(chat(steps=None)).controller)
    assert (status["phase"], status["steps"], status["variant"], status["verdict"]) == (None, [], None, None)


def test_statuses_can_be_asked_of_some() -> None:
    world = World(chat())
    assert [status["name"] for status in statuses(world.controller, ["chat", "nobody"])] == ["chat"]


def test_a_table_that_was_kept_is_in_force_until_something_is_declared() -> None:
    kept = World(chat(steps=None, stable=90, canary=10)).controller.keep()
    controller = Controller(Gathering(), wall=FakeClock())
    controller.restore(kept, {})
    assert controller.table == TrafficTable(version=1, splits=kept.splits)
    assert controller.table.by_name["chat"].shares == (
        Share(variant="stable", weight=90),
        Share(variant="canary", weight=10),
    )
