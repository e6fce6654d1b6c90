from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from deployments import rollouts as rollouts_module
from deployments.declared import declared
from deployments.rollouts import TTL_S, Rollouts
from serve_app.contracts import DirectorySnapshot, EngineLoad, ReplicaEntry
from serve_app.errors import RolloutConflict, UnknownRollout
from serve_app.rollout.controller import Kept
from serve_app.rollout.document import RoutingDocument, revisions
from serve_app.rollout.table import TrafficTable
from serve_app.rollout.telemetry import Outcome, RouterReport, VariantStats
from tests.unit.deployments.fakes import MemoryState
from tests.unit.deployments.ticking import end_ticking
from tests.unit.serve_app.fakes import PIPELINE, FakeClock, entry, turns, until


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollouts_module, "COALESCE_S", 0.0)


def chat(*weights: tuple[str, int], **more: Any) -> dict[str, Any]:
    engine = {"kind": "simulated"}
    variants = [{"name": name, "source": "org/m", "weight": weight, "engine": engine} for name, weight in weights]
    return {"name": "chat", "variants": variants, **more}


def config(**changes: Any) -> dict[str, object]:
    """Return a user_config whose platform has a model, a pipeline and an embedder."""
    platform = {
        "models": [chat(("stable", 100))],
        "pipelines": [PIPELINE.model_dump(mode="json", exclude_unset=True)],
        "embedders": [{"name": "minilm", "source": "org/minilm"}],
    }
    return {"platform": {**platform, **changes}}


def canary_entry() -> ReplicaEntry:
    """Return a ready replica that is made of what ``canary`` declares."""
    (model,) = declared(canary()).routing.models
    return entry("c1", "canary", revision=revisions(model)["canary"])


@dataclass
class World:
    """The stores and the clock of one cluster; each ``start`` is another process."""

    clock: FakeClock = field(default_factory=FakeClock)
    state: MemoryState = field(default_factory=MemoryState)
    cluster: MemoryState = field(default_factory=MemoryState)
    started: list[Rollouts] = field(default_factory=list)

    def new(self) -> Rollouts:
        it = Rollouts(self.clock, state=self.state, cluster_state=self.cluster, wall=self.clock)
        self.started.append(it)
        return it

    async def start(self, user_config: dict[str, object]) -> Rollouts:
        it = self.new()
        await it.reconfigure(user_config)
        return it

    async def complete(self, user_config: dict[str, object]) -> Rollouts:
        """Return one that has heard from a replica of each variant, when everybody could be heard."""
        it = await self.start(user_config)
        self.clock.now_s += TTL_S + 0.1
        await it.heartbeat(entry("r1"), 1)
        await it.heartbeat(canary_entry(), 1)
        return it


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(rollouts_module, "TICK_S", 3600.0)  # tests tick themselves
    it = World()
    yield it
    await end_ticking(it.started)


async def made(clock: FakeClock | None = None) -> Rollouts:
    return await World(clock or FakeClock()).start(config())


ROLLOUT = {"steps": [{"weight": 10}, {"weight": 50}]}


def canary(**changes: Any) -> dict[str, object]:
    """Return a configuration whose canary rolls out."""
    return config(models=[chat(("stable", 100), ("canary", 0), rollout=ROLLOUT, **changes)])


def table(snapshot: DirectorySnapshot) -> TrafficTable:
    return TrafficTable.model_validate_json(snapshot.traffic)


def weights(snapshot: DirectorySnapshot) -> dict[str, int]:
    return dict(table(snapshot).by_name["chat"].weights)


def ids(snapshot: DirectorySnapshot) -> list[str]:
    return [e.replica_id for e in snapshot.replicas]


async def watch(it: Rollouts, seen: DirectorySnapshot) -> asyncio.Task[DirectorySnapshot]:
    task = asyncio.create_task(it.watch(seen.epoch, seen.version))
    await turns()
    assert not task.done()
    return task


async def test_a_newcomer_is_told_at_once() -> None:
    it = await made()
    await it.heartbeat(entry("r1"), 1)
    snapshot = await it.watch("", -1)
    routing = RoutingDocument.model_validate_json(snapshot.routing)
    assert (ids(snapshot), routing) == (["r1"], declared(config()).routing)


async def test_a_watch_wakes_when_a_replica_comes_drains_or_goes() -> None:
    it = await made()
    seen = await it.watch("", -1)
    states = []
    for change in (it.heartbeat(entry("r1"), 1), it.drain("r1"), it.deregister("r1")):
        watching = await watch(it, seen)
        await change
        seen = await asyncio.wait_for(watching, 1)
        states.append([e.state.value for e in seen.replicas])
    assert states == [["ready"], ["draining"], []]


async def test_a_watch_wakes_when_the_weights_change() -> None:
    it = await made()
    watching = await watch(it, await it.status())
    await it.reconfigure(config(models=[chat(("stable", 90), ("canary", 10))]))
    snapshot = await asyncio.wait_for(watching, 1)
    assert RoutingDocument.model_validate_json(snapshot.routing).models[0].weights == (("stable", 90), ("canary", 10))


async def test_a_heartbeat_without_news_wakes_nobody() -> None:
    it = await made()
    await it.heartbeat(entry("r1"), 1)
    watching = await watch(it, await it.status())
    await it.heartbeat(entry("r1"), 2)
    await turns(10)
    assert not watching.done()
    await it.heartbeat(replace(entry("r1"), load=EngineLoad(running=1)), 3)
    assert (await asyncio.wait_for(watching, 1)).replicas[0].load.running == 1


async def test_a_watch_without_news_returns_after_the_poll_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollouts_module, "TTL_S", 0.004)  # it looks again every eighth of this
    clock = FakeClock()
    it = await made(clock)
    seen = await it.status()
    watching = await watch(it, seen)
    await asyncio.sleep(0.005)
    assert not watching.done()
    monkeypatch.setattr(it, "_started_s", float("inf"))  # so that becoming complete is no news
    clock.now_s += rollouts_module.POLL_S
    assert await asyncio.wait_for(watching, 1) == seen


async def test_a_watch_notices_that_a_replica_fell_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    it = await made(clock)
    await it.heartbeat(entry("r1"), 1)
    monkeypatch.setattr(rollouts_module, "TTL_S", 0.004)  # it looks again every eighth of this
    clock.now_s += 1.0
    watching = await watch(it, await it.status())
    for _ in range(4):
        clock.now_s += TTL_S / 4
        await asyncio.sleep(0.01)
    assert ids(await asyncio.wait_for(watching, 1)) == []


async def test_a_process_that_stood_still_gives_up_nobody_whom_it_could_not_hear() -> None:
    clock = FakeClock()
    it = await made(clock)
    await it.heartbeat(entry("r1"), 1)
    clock.now_s += 60.0
    assert ids(await it.status()) == ["r1"]
    for _ in range(4):
        clock.now_s += TTL_S / 4 + 0.1
        found = ids(await it.status())
    assert found == []  # it has said nothing since


async def test_a_store_that_takes_long_takes_no_time_from_those_who_are_to_be_heard() -> None:
    class SlowState(MemoryState):
        async def get(self, key: str) -> bytes | None:
            clock.now_s += 2 * TTL_S
            return await super().get(key)

    clock = FakeClock()
    it = await World(clock, state=SlowState()).start(config())
    assert not (await it.status()).is_complete
    clock.now_s += TTL_S + 0.1
    assert (await it.status()).is_complete


async def test_a_restart_is_another_epoch_and_incomplete_until_everybody_could_be_heard() -> None:
    clock = FakeClock()
    before, after = await made(clock), await made(clock)
    first, second = await before.status(), await after.status()
    assert first.epoch != second.epoch
    assert (second.version, second.is_complete) == (first.version, False)
    assert not (await after.watch(first.epoch, first.version)).is_complete
    clock.now_s += TTL_S + 0.1
    third = await after.watch(second.epoch, second.version)  # being complete is news
    assert (third.is_complete, third.version) == (True, second.version + 1)


BAD: dict[str, Any] = {
    "field": {"platform": {"modles": []}},
    "nothing": {},
    "sum": config(models=[chat(("stable", 90))]),
    "scaling": config(scaling={"max_accelerators": 0}),
    "prompt": config(
        pipelines=[{**PIPELINE.model_dump(), "versions": [{**PIPELINE.versions[0].model_dump(), "prompt": "{{ nope }}"}]}]
    ),
}


@pytest.mark.parametrize("user_config", BAD.values(), ids=BAD.keys())
async def test_a_bad_configuration_is_refused_and_leaves_the_old_one_in_force(user_config: Any, world: World) -> None:
    it = await world.start(config())
    before = await it.status()
    await it.reconfigure(user_config)
    assert await it.status() == before
    assert (await it.rollouts())["refused"].startswith("the configuration was refused, the one before stays in force: ")


async def test_a_good_configuration_after_a_bad_one_is_taken(world: World) -> None:
    it = await world.start(config())
    await it.reconfigure(BAD["field"])
    await it.reconfigure(canary())
    assert ((await it.rollouts())["refused"], weights(await it.status())) == (None, {"stable": 100, "canary": 0})


@pytest.mark.parametrize("user_config", BAD.values(), ids=BAD.keys())
async def test_a_bad_configuration_raises_where_there_never_was_a_good_one(user_config: Any, world: World) -> None:
    with pytest.raises((ValueError, KeyError)):
        await world.new().reconfigure(user_config)


async def test_a_bad_configuration_after_a_restart_falls_back_to_the_last_good_one(world: World) -> None:
    before = await (await world.complete(canary())).status()
    it = await world.start(BAD["field"])
    after = await it.status()
    assert (after.routing, after.traffic) == (before.routing, before.traffic)
    assert (await it.rollouts())["refused"] is not None


async def test_a_kept_configuration_that_cannot_be_read_any_more_is_passed_over(world: World) -> None:
    world.cluster.values["routing"] = b'{"of": "another version"}'
    assert weights(await (await world.start(config())).status()) == {"stable": 100}


async def test_rollouts_are_not_looked_at_before_every_replica_could_be_heard(world: World) -> None:
    it = await world.start(canary())
    await it.heartbeat(canary_entry(), 1)
    await it.tick()
    assert weights(await it.status()) == {"stable": 100, "canary": 0}
    world.clock.now_s += TTL_S + 0.1
    await it.heartbeat(canary_entry(), 2)
    await it.tick()
    assert weights(await it.status()) == {"stable": 90, "canary": 10}


async def test_a_watch_wakes_when_a_rollout_takes_a_step(world: World) -> None:
    it = await world.complete(canary())
    watching = await watch(it, await it.status())
    await it.tick()
    assert weights(await asyncio.wait_for(watching, 1)) == {"stable": 90, "canary": 10}


async def test_progress_survives_the_process(world: World) -> None:
    before = await world.complete(canary())
    await before.tick()
    after = await world.start(canary())
    assert table(await after.status()) == table(await before.status())
    assert await after.rollout_history("chat") == await before.rollout_history("chat")
    status = (await after.rollouts())["splits"][0]
    assert (status["phase"], status["step"]) == ("running", 0)


async def test_what_gates_have_seen_is_kept_now_and_then(world: World) -> None:
    it = await world.complete(canary())
    await it.tick()
    assert "evidence" not in world.state.values
    world.clock.now_s += rollouts_module.SAVE_EVIDENCE_S
    await it.heartbeat(canary_entry(), 2)
    await it.tick()
    assert list(json.loads(world.state.values["evidence"])) == ["chat"]
    assert (await (await world.start(canary())).rollouts())["splits"][0]["phase"] == "running"


async def test_a_command_is_kept_when_it_returns(world: World) -> None:
    it = await world.complete(canary())
    made = await it.command_rollout("chat", "abort", "ann")
    kept = Kept.model_validate_json(world.state.values["progress"])
    assert (made["action"], kept.history[-1].model_dump(mode="json")) == ("aborted", made)
    assert table(await (await world.start(canary())).status()).by_name["chat"].withdrawn == {"canary"}


@pytest.mark.parametrize(
    ("name", "verb", "error"),
    [("chatt", "abort", UnknownRollout), ("chat", "resume", RolloutConflict)],
    ids=["unknown", "conflict"],
)
async def test_a_command_that_cannot_be_obeyed_is_refused(name: str, verb: str, error: type[Exception], world: World) -> None:
    it = await world.start(canary())
    with pytest.raises(error):
        await it.command_rollout(name, verb, "ann")


async def test_a_history_of_nothing_that_is_served_is_unknown(world: World) -> None:
    with pytest.raises(UnknownRollout):
        await (await world.start(canary())).rollout_history("chatt")


async def test_a_store_that_is_away_stops_nothing_and_is_tried_again(world: World) -> None:
    it = await world.complete(canary())
    kept = dict(world.state.values), dict(world.cluster.values)
    world.state.is_away = world.cluster.is_away = True
    await it.tick()
    await it.command_rollout("chat", "abort", "ann")
    await it.reconfigure(canary(fallback=False))
    assert weights(await it.status()) == {"stable": 100, "canary": 0}
    assert (world.state.values, world.cluster.values) == kept
    world.state.is_away = world.cluster.is_away = False
    await it.tick()
    after = await (await world.start(BAD["field"])).status()
    assert (after.traffic, after.routing) == ((await it.status()).traffic, (await it.status()).routing)


async def test_a_store_that_cannot_be_read_at_the_start_is_no_reason_to_begin_anew(world: World) -> None:
    await (await world.complete(canary())).tick()
    it = world.new()
    world.state.is_away = True
    with pytest.raises(OSError, match="away"):
        await it.reconfigure(canary())
    world.state.is_away = False
    await it.reconfigure(canary())
    assert weights(await it.status()) == {"stable": 90, "canary": 10}


async def test_nothing_is_kept_again_without_news(world: World) -> None:
    it = await world.complete(canary())
    await it.tick()
    world.state.values.clear()
    world.cluster.values.clear()
    await it.tick()
    await it.reconfigure(canary())
    assert (world.state.values, world.cluster.values) == ({}, {})


async def test_what_routers_report_reaches_the_statistics(world: World) -> None:
    it = await world.complete(canary())
    counted = VariantStats(outcomes=Counter({Outcome.OK: 3, Outcome.BROKEN: 1}))
    await it.report(RouterReport("a", 1, 1, {("chat", "canary"): counted}, {}))
    await it.tick()
    told = await it.rollouts()
    stats = {each["variant"]: each["total"]["outcomes"] for each in told["stats"] if each["name"] == "chat"}
    assert (stats, told["routers"]) == ({"stable": {}, "canary": {"ok": 3, "broken": 1}}, {"a": 1})
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def budgeted() -> dict[str, object]:
    """Return a configuration whose only model holds two accelerators and shares four."""
    model = chat(("stable", 100))
    model["variants"][0] |= {
        "accelerator": "L40S",
        "engine": {"kind": "simulated", "tensor_parallel_size": 2},
        "autoscaling": {"max_replicas": 3},
    }
    return config(models=[model], scaling={"max_accelerators": 4})


async def test_scaling_settings_and_held_requests_are_published(world: World) -> None:
    it = await world.complete(budgeted())
    assert json.loads(world.cluster.values["scaling"])["max_accelerators"] == 4
    await it.report(RouterReport("a", 1, 1, {}, {}, held={("chat", "stable"): 3}))
    await it.tick()
    assert json.loads(world.cluster.values["held"]) == {
        "stamp": world.clock.now_s,
        "held": {"llm.chat.stable": 3},
        "holding": {"llm.chat.stable": 1, "llm.chat.canary": 1},
        "draining": {},
    }
    told = await it.scaling()
    held = {app["name"]: app["held"] for app in told["apps"]}
    assert (told["budget"], held["llm.chat.stable"]) == ({"max_accelerators": 4, "in_use": 2}, 3)


async def test_nothing_is_published_of_replicas_before_every_one_could_be_heard(world: World) -> None:
    it = await world.start(budgeted())
    await it.tick()
    assert "held" not in world.cluster.values


async def test_bad_scaling_settings_are_refused_with_the_routing_beside_them(world: World) -> None:
    it = await world.start(canary())
    kept = dict(world.cluster.values)
    await it.reconfigure(BAD["scaling"])
    assert (weights(await it.status()), world.cluster.values) == ({"stable": 100, "canary": 0}, kept)
    assert "the configuration was refused" in (await it.rollouts())["refused"]


async def test_scaling_settings_survive_a_process_that_gets_none_that_are_good(world: World) -> None:
    await world.start(budgeted())
    kept = dict(world.cluster.values)
    it = await world.start(BAD["field"])
    assert ((await it.scaling())["budget"]["max_accelerators"], world.cluster.values) == (4, kept)


async def test_a_look_that_fails_is_logged_and_the_next_one_follows(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    it = world.new()
    looks: list[str] = []

    async def fail() -> None:
        looks.append("look")
        raise RuntimeError("odd")

    monkeypatch.setattr(rollouts_module, "TICK_S", 0.0)
    monkeypatch.setattr(it, "tick", fail)
    with caplog.at_level(logging.ERROR, logger="ray.serve"):
        await it.reconfigure(canary())
        await until(lambda: len(looks) >= 2)
    await it.check_health()
    assert "a look at the rollouts failed" in caplog.text


async def test_a_process_that_looks_no_more_is_not_healthy(world: World) -> None:
    it = await world.start(canary())
    await it.check_health()
    assert it._ticking is not None
    it._ticking.cancel()
    await asyncio.wait([it._ticking])
    with pytest.raises(RuntimeError, match="no longer looked at"):
        await it.check_health()
