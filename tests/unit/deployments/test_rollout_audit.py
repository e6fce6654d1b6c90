from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from deployments import rollouts as rollouts_module
from deployments.rollout_audit import AuditedRollouts
from deployments.rollouts import TTL_S
from serve_app.errors import PlatformError
from serve_app.observing.audit import NAME
from serve_app.observing.audit_config import digest
from serve_app.rollout.commands import Verb
from serve_app.rollout.directory import Directory
from tests.unit.deployments.fakes import MemoryState
from tests.unit.deployments.test_rollouts import canary, canary_entry, config
from tests.unit.deployments.ticking import end_ticking
from tests.unit.serve_app.fakes import FakeClock, entry
from tests.unit.serve_app.observing.lines import KeptLines, kept_lines
from tests.unit.serve_app.test_view import ANN, BOB

COMMON = ["time", "event", "actor", "subject", "before", "after", "request_id"]
ANNS = ANN.model_dump(mode="json")
BOBS = BOB.model_dump(mode="json")


@dataclass
class World:
    """A cluster; each ``start`` is another process."""

    clock: FakeClock = field(default_factory=FakeClock)
    state: MemoryState = field(default_factory=MemoryState)
    cluster: MemoryState = field(default_factory=MemoryState)
    started: list[AuditedRollouts] = field(default_factory=list)

    async def start(self, user_config: dict[str, object]) -> AuditedRollouts:
        it = AuditedRollouts(self.clock, state=self.state, cluster_state=self.cluster, wall=self.clock)
        self.started.append(it)
        await it.reconfigure(user_config)
        return it

    async def complete(self, user_config: dict[str, object]) -> AuditedRollouts:
        """Return one that has heard from a replica of each variant, when everybody could be heard."""
        it = await self.start(user_config)
        self.clock.now_s += TTL_S + 0.1
        await it.heartbeat(entry("r1"), 1)
        await it.heartbeat(canary_entry(), 1)
        return it


@pytest.fixture
def lines() -> Iterator[KeptLines]:
    with kept_lines(NAME) as kept:
        yield kept


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch, lines: KeptLines) -> AsyncIterator[World]:
    monkeypatch.setattr(rollouts_module, "TICK_S", 3600.0)  # tests tick themselves
    it = World()
    yield it
    await end_ticking(it.started)


def taken(lines: KeptLines) -> list[dict[str, Any]]:
    """Return what has been written since the last look."""
    found = lines.read
    lines.raw.clear()
    return found


def kinds(found: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(line["event"], line["actor"], line["subject"]) for line in found]


async def test_a_first_configuration_is_told_by_its_digest(world: World, lines: KeptLines) -> None:
    await world.start(config())
    [line] = lines.read
    assert list(line) == [*COMMON, "changes"]
    assert (line["event"], line["before"], line["after"]) == ("config.taken", None, {"digest": digest(config()["platform"])})
    assert (line["actor"], line["subject"], line["changes"]) == ("configuration", "platform", None)


async def test_a_change_is_told_by_its_paths_and_the_same_again_not_at_all(world: World, lines: KeptLines) -> None:
    it = await world.start(config(limits={"max_choices": 4}))
    first = taken(lines)[0]
    await it.reconfigure(config(limits={"max_choices": 8}))
    config_line, limits_line = taken(lines)
    assert config_line["before"] == first["after"]
    assert config_line["changes"] == [{"path": "limits.max_choices", "before": 4, "after": 8}]
    assert config_line["changes_count"] == 1
    assert (limits_line["event"], limits_line["subject"]) == ("limits.changed", "platform")
    assert (limits_line["before"], limits_line["after"]) == ({"max_choices": 4}, {"max_choices": 8})
    await it.reconfigure(config(limits={"max_choices": 8}))
    assert taken(lines) == []


async def test_bounds_of_scaling_are_among_the_changes(world: World, lines: KeptLines) -> None:
    def scaled(most: int) -> dict[str, object]:
        variant = {"name": "stable", "source": "org/m", "engine": {"kind": "simulated"}}
        scaling = {"min_replicas": 1, "max_replicas": most}
        return config(models=[{"name": "chat", "variants": [{**variant, "autoscaling": scaling}]}])

    it = await world.start(scaled(2))
    await it.reconfigure(scaled(6))
    path = "models[chat].variants[stable].autoscaling.max_replicas"
    assert lines.last["changes"] == [{"path": path, "before": 2, "after": 6}]


async def test_keys_of_the_configuration_are_told_once(world: World, lines: KeptLines) -> None:
    it = await world.start(config(auth={"keys": [ANNS]}))
    taken(lines)
    await it.reconfigure(config(auth={"keys": [{**ANNS, "tokens_per_minute": 100}, BOBS]}))
    found = taken(lines)
    assert kinds(found) == [
        ("config.taken", "configuration", "platform"),
        ("key.added", "configuration", "bob"),
        ("limits.changed", "configuration", "ann"),
    ]
    assert not any(key.hash[-64:] in str(found) for key in (ANN, BOB))


async def test_a_change_of_keys_during_a_restart_is_told(world: World, lines: KeptLines) -> None:
    await world.start(config(auth={"keys": [ANNS, BOBS]}))
    taken(lines)
    await world.start(config(auth={"keys": [ANNS]}))
    assert kinds(taken(lines))[1:] == [("key.removed", "configuration", "bob")]


async def test_a_configuration_that_is_refused_is_told_each_time(world: World, lines: KeptLines) -> None:
    it = await world.start(config())
    taken(lines)
    await it.reconfigure(config(limits={"max_choices": "many", "max_bodies": "s3cret"}))
    [line] = taken(lines)
    assert (line["event"], line["before"]) == ("config.refused", {"digest": digest(config()["platform"])})
    assert [change["path"] for change in line["changes"]] == ["limits.max_bodies", "limits.max_choices"]
    assert "s3cret" not in str(line)
    await it.reconfigure(config(limits={"max_choices": 4}))
    assert [line["event"] for line in taken(lines)] == ["config.taken", "limits.changed"]


async def test_a_first_configuration_that_is_refused_is_told(world: World, lines: KeptLines) -> None:
    with pytest.raises(ValueError, match="max_choices"):
        await world.start(config(limits={"max_choices": "many"}))
    assert kinds(lines.read) == [("config.refused", "configuration", "platform")]


async def test_a_configuration_that_is_no_document_is_told(world: World, lines: KeptLines) -> None:
    with pytest.raises(ValueError, match="has no `platform`"):
        await world.start({"plattform": {}})
    assert kinds(lines.read) == [("config.refused", "configuration", "platform")]


async def test_a_command_is_told_with_who_gave_it_and_what_it_did(world: World, lines: KeptLines) -> None:
    it = await world.complete(canary())
    await it.tick()
    taken(lines)
    await it.command_rollout("chat", "abort", "ann", request_id="q1")
    [line] = taken(lines)
    assert list(line) == [*COMMON, "verb", "action", "phase", "step", "reason"]
    assert (line["event"], line["actor"], line["subject"], line["request_id"]) == ("rollout.commanded", "ann", "chat", "q1")
    assert line["before"] == {"weights": {"stable": 90, "canary": 10}}
    assert line["after"] == {"weights": {"stable": 100, "canary": 0}}
    assert (line["verb"], line["action"], line["reason"]) == ("abort", "aborted", "by ann")


async def test_a_command_that_cannot_be_obeyed_is_told_too(world: World, lines: KeptLines) -> None:
    it = await world.start(config())
    taken(lines)
    with pytest.raises(PlatformError):
        await it.command_rollout("chat", "pause", "ann")
    [line] = taken(lines)
    assert list(line) == [*COMMON, "verb", "error"]
    assert (line["event"], line["actor"], line["verb"], line["error"]) == (
        "rollout.refused",
        "ann",
        "pause",
        "rollout_conflict",
    )


async def test_what_a_rollout_does_by_itself_is_told_with_its_figures(world: World, lines: KeptLines) -> None:
    it = await world.complete(canary())
    assert kinds(taken(lines)) == [
        ("rollout.decided", "configuration", "chat"),
        ("config.taken", "configuration", "platform"),
    ]
    await it.tick()
    [line] = taken(lines)
    assert list(line) == [*COMMON, "action", "phase", "step", "reason", "readings"]
    assert (line["event"], line["actor"], line["action"]) == ("rollout.decided", "gates", "advanced")
    assert {reading["gate"] for reading in line["readings"]} >= {"error_rate"}
    assert all("evidence" in reading for reading in line["readings"])


async def test_a_decision_during_a_command_is_not_the_operators(world: World, lines: KeptLines) -> None:
    it = await world.complete(canary())
    taken(lines)
    holds, goes = asyncio.Event(), asyncio.Event()
    save = it._save

    async def slowly() -> None:
        goes.set()
        await holds.wait()
        await save()

    it._save = slowly  # type: ignore[method-assign]
    commanded = asyncio.create_task(it.command_rollout("chat", "pause", "ann"))
    await goes.wait()
    it._controller.tick(Directory(ttl_s=1), now_s=world.clock.now_s)
    it._controller.command("chat", Verb.RESUME, by="nobody")
    holds.set()
    await commanded
    assert kinds(taken(lines)) == [("rollout.commanded", "ann", "chat"), ("rollout.decided", "gates", "chat")]


async def test_a_restart_tells_the_configuration_again_and_no_decision_twice(world: World, lines: KeptLines) -> None:
    await (await world.complete(canary())).tick()
    taken(lines)
    await world.start(canary())
    assert kinds(taken(lines)) == [("config.taken", "configuration", "platform")]
