from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from autoscaling.document import DECISIONS, HELD, SCALING, ScalingDocument
from deployments import scaling_feed as feed_module
from deployments.scaling_feed import ALIVE_S, ScalingFeed
from serve_app.contracts import ReplicaState
from serve_app.rollout.directory import Directory
from serve_app.rollout.gathering import AWAY_S, Gathering
from serve_app.rollout.telemetry import RouterReport
from tests.unit.deployments.fakes import MemoryState
from tests.unit.serve_app.fakes import FakeClock, entry

DOCUMENT = ScalingDocument.model_validate(
    {
        "max_accelerators": 8,
        "apps": {
            "llm.chat.stable": {"deployment": "LLM", "settings": {"max_replicas": 3}, "units": 2, "priority": 7},
            "embedder.e": {"deployment": "Embedder", "settings": {"min_replicas": 2, "max_replicas": 4}, "units": 1},
        },
    }
)
DECISION = {"target": 3, "wanted": 3, "reason": "load", "at": 99.0}


@dataclass
class World:
    """A store, and what Rollouts knows; the wall clock is one of its own."""

    store: MemoryState = field(default_factory=MemoryState)
    wall: FakeClock = field(default_factory=FakeClock)
    directory: Directory = field(default_factory=lambda: Directory(ttl_s=1e9))
    gathering: Gathering = field(default_factory=Gathering)
    now_s: float = 0.0

    def feed(self) -> ScalingFeed:
        return ScalingFeed(self.store, wall=self.wall)

    def hold(self, count: int) -> None:
        held = {("chat", "stable"): count} if count else {}
        self.gathering.take(RouterReport("a", 1, 1, {}, {}, held=held), now_s=self.now_s)

    def replica(self, replica_id: str, state: ReplicaState = ReplicaState.READY) -> None:
        self.directory.heartbeat(entry(replica_id, state=state), seq=1, now_s=0.0)

    async def tick(self, feed: ScalingFeed, *, after_s: float = 1.0) -> dict[str, Any] | None:
        """Return what a tick has published of held requests."""
        self.wall.now_s += after_s
        self.now_s += after_s
        self.store.values.pop(HELD, None)
        await feed.tick(self.directory, self.gathering, self.now_s)
        found = self.store.values.get(HELD)
        return None if found is None else json.loads(found)


async def test_settings_are_published_when_they_are_declared_and_not_again() -> None:
    world = World()
    feed = world.feed()
    await feed.declare(DOCUMENT)
    assert ScalingDocument.model_validate_json(world.store.values.pop(SCALING)) == DOCUMENT
    await feed.declare(DOCUMENT)
    await world.tick(feed)
    assert SCALING not in world.store.values


async def test_settings_that_could_not_be_published_are_tried_again() -> None:
    world = World()
    feed = world.feed()
    world.store.is_away = True
    await feed.declare(DOCUMENT)
    assert await world.tick(feed) is None
    world.store.is_away = False
    assert await world.tick(feed) is not None
    assert ScalingDocument.model_validate_json(world.store.values[SCALING]) == DOCUMENT


async def test_a_store_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "TIMEOUT_S", 0.0)

    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    world = World()
    feed = world.feed()
    monkeypatch.setattr(world.store, "put", hang)
    monkeypatch.setattr(world.store, "get", hang)
    await feed.declare(DOCUMENT)
    await world.tick(feed)
    assert [app["decision"] for app in (await feed.report())["apps"]] == [None, None]


async def test_another_process_goes_on_with_what_was_declared() -> None:
    world = World()
    await world.feed().declare(DOCUMENT)
    after = world.feed()
    await after.restore()
    assert (await after.report())["budget"]["max_accelerators"] == 8
    world.store.values.clear()
    await world.tick(after)  # nothing was declared to it yet
    await after.declare(DOCUMENT)
    assert SCALING not in world.store.values


@pytest.mark.parametrize("kept", [None, b"", b'{"of": "another version"}'], ids=["nothing", "broken", "other"])
async def test_what_cannot_be_restored_is_begun_anew(kept: bytes | None) -> None:
    world = World()
    if kept is not None:
        world.store.values[SCALING] = kept
    feed = world.feed()
    await feed.restore()
    assert (await feed.report())["apps"] == []
    await feed.declare(DOCUMENT)
    assert ScalingDocument.model_validate_json(world.store.values[SCALING]) == DOCUMENT


async def test_requests_that_wait_are_told_each_time_with_every_replica_there_is() -> None:
    world = World()
    feed = world.feed()
    world.hold(2)
    world.replica("r1")
    world.replica("r2", ReplicaState.STARTING)
    world.directory.drain("r1")
    for _ in range(2):
        told = await world.tick(feed)
        assert told == {
            "stamp": world.wall.now_s,
            "held": {"llm.chat.stable": 2},
            "holding": {"llm.chat.stable": 2},
            "draining": {"llm.chat.stable": 1},
        }


async def test_without_news_there_is_a_sign_of_life_now_and_then() -> None:
    world = World()
    feed = world.feed()
    assert await world.tick(feed) is not None
    assert await world.tick(feed, after_s=ALIVE_S / 2) is None
    assert await world.tick(feed, after_s=ALIVE_S / 2) is not None
    assert await world.tick(feed, after_s=-60.0) is not None  # the wall clock was set back


async def test_a_change_is_told_at_once() -> None:
    world = World()
    feed = world.feed()
    await world.tick(feed)
    world.replica("r1")
    assert (await world.tick(feed) or {})["holding"] == {"llm.chat.stable": 1}
    world.directory.drain("r1")
    assert (await world.tick(feed) or {})["draining"] == {"llm.chat.stable": 1}
    world.hold(1)
    assert (await world.tick(feed) or {})["held"] == {"llm.chat.stable": 1}
    world.hold(0)
    assert (await world.tick(feed) or {})["held"] == {}
    assert await world.tick(feed) is None


async def test_a_router_that_left_leaves_nothing_held_behind() -> None:
    world = World()
    feed = world.feed()
    world.hold(2)
    assert (await world.tick(feed, after_s=AWAY_S + 1) or {})["held"] == {}


async def test_the_report_joins_settings_decisions_and_what_is_held() -> None:
    world = World()
    feed = world.feed()
    await feed.declare(DOCUMENT)
    world.hold(2)
    world.replica("r1")
    await world.tick(feed)
    world.store.values[DECISIONS] = json.dumps({"llm.chat.stable": DECISION}).encode()
    told = await feed.report()
    embedder, stable = told["apps"]
    assert told["budget"] == {"max_accelerators": 8, "in_use": 4}  # of the embedder there should be two
    assert (embedder["name"], embedder["held"], embedder["holding"], embedder["decision"]) == ("embedder.e", 0, 2, None)
    settings = DOCUMENT.apps["llm.chat.stable"].settings.model_dump(mode="json")
    assert stable == {
        "name": "llm.chat.stable",
        "deployment": "LLM",
        "settings": settings,
        "is_fixed": False,
        "units": 2,
        "priority": 7,
        "price_per_hour": None,
        "held": 2,
        "holding": 1,
        "decision": DECISION,
    }


@pytest.mark.parametrize(
    ("decision", "held"),
    [(DECISION | {"held": 2.5}, 2.5), (DECISION, 0), (None, 0)],
    ids=["the-policy-sees-it", "an-older-policy", "no-decision"],
)
async def test_what_waits_for_a_stage_is_told_by_its_decision(decision: dict[str, Any] | None, held: float) -> None:
    world = World()
    feed = world.feed()
    await feed.declare(DOCUMENT)
    world.hold(2)
    await world.tick(feed)
    both = {} if decision is None else {"embedder.e": decision, "llm.chat.stable": decision}
    world.store.values[DECISIONS] = json.dumps(both).encode()
    assert [app["held"] for app in (await feed.report())["apps"]] == [held, 2]


async def test_of_what_no_directory_knows_there_are_as_many_as_decided() -> None:
    world = World()
    feed = world.feed()
    await feed.declare(DOCUMENT)
    world.store.values[DECISIONS] = json.dumps({"embedder.e": DECISION}).encode()
    assert [app["holding"] for app in (await feed.report())["apps"]] == [3, 0]


@pytest.mark.parametrize(
    "kept", [b"{", b"[]", b'{"llm.chat.stable": 3}', b'{"llm.chat.stable": {}}'], ids=["broken", "list", "number", "empty"]
)
async def test_decisions_that_cannot_be_read_are_none(kept: bytes) -> None:
    world = World()
    feed = world.feed()
    await feed.declare(DOCUMENT)
    world.store.values[DECISIONS] = kept
    assert [app["decision"] for app in (await feed.report())["apps"]] == [None, None]
