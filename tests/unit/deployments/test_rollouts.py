from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from deployments import rollouts as rollouts_module
from deployments.rollouts import TTL_S, Rollouts
from serve_app.contracts import DirectorySnapshot, EngineLoad
from serve_app.rollout.document import RoutingDocument
from tests.unit.serve_app.fakes import PIPELINE, FakeClock, document, entry, model, turns


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollouts_module, "COALESCE_S", 0.0)


def config(**changes: Any) -> dict[str, object]:
    return {"routing": document(**changes).model_dump(mode="json")}


async def made(clock: FakeClock | None = None) -> Rollouts:
    it = Rollouts(clock or FakeClock())
    await it.reconfigure(config())
    return it


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
    assert (ids(snapshot), RoutingDocument.model_validate_json(snapshot.routing)) == (["r1"], document())


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
    await it.reconfigure(config(models=(model(("stable", 90), ("canary", 10)),)))
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
    monkeypatch.setattr(rollouts_module, "TTL_S", 0.004)  # it looks again every quarter of this
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
    monkeypatch.setattr(rollouts_module, "TTL_S", 0.004)  # it looks again every quarter of this
    clock.now_s += 1.0
    watching = await watch(it, await it.status())
    clock.now_s += TTL_S
    assert ids(await asyncio.wait_for(watching, 1)) == []


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
    "field": {"routing": {"modles": []}},
    "nothing": {},
    "sum": {"routing": document(models=(model(("stable", 90)),)).model_dump(mode="json")},
    "prompt": {
        "routing": document(
            pipelines=(
                PIPELINE.model_copy(update={"versions": (PIPELINE.versions[0].model_copy(update={"prompt": "{{ nope }}"}),)}),
            )
        ).model_dump(mode="json")
    },
}


@pytest.mark.parametrize("user_config", BAD.values(), ids=BAD.keys())
async def test_a_bad_configuration_leaves_the_old_one_in_force(user_config: Any) -> None:
    it = await made()
    before = await it.status()
    with pytest.raises((ValueError, KeyError)):
        await it.reconfigure(user_config)
    assert await it.status() == before
