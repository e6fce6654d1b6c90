from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from deployments import rollouts as rollouts_module
from deployments.declared import declared
from deployments.rollout_load_tests import KEY, MOST_AHEAD_S, LoadTestedRollouts
from deployments.rollouts import TTL_S
from serve_app.errors import BadRequest, RolloutConflict, Unavailable
from serve_app.rollout.document import revisions
from tests.unit.deployments.fakes import MemoryState
from tests.unit.deployments.test_rollouts import canary_entry, chat, config
from tests.unit.deployments.ticking import end_ticking
from tests.unit.serve_app.fakes import FakeClock, entry
from tests.unit.serve_app.load_testing import document, failed

ROLLOUT = {"steps": [{"weight": 10}, {"weight": 50}], "gates": {"load_test": {"scenario": "smoke"}}}
CONFIG = config(models=[chat(("stable", 100), ("canary", 0), rollout=ROLLOUT)])


class World:
    """The stores and the clock of one cluster; each ``start`` is another process."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.state = MemoryState()
        self.started: list[LoadTestedRollouts] = []

    async def start(self) -> LoadTestedRollouts:
        it = LoadTestedRollouts(self.clock, state=self.state, cluster_state=MemoryState(), wall=self.clock)
        self.started.append(it)
        await it.reconfigure(CONFIG)
        return it

    def run(self, **changes: Any) -> dict[str, Any]:
        """Return a result whose run is over now."""
        return document(begun_s=self.clock.now_s, ended_s=self.clock.now_s, **changes)


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(rollouts_module, "TICK_S", 3600.0)  # tests tick themselves
    it = World()
    yield it
    await end_ticking(it.started)


async def test_a_result_is_listed_with_when_and_by_whom_it_came(world: World) -> None:
    it = await world.start()
    kept = await it.publish_load_test(world.run(), "ci")
    assert (kept["by"], kept["received_s"], kept["result"]["scenario"]) == ("ci", world.clock.now_s, "smoke")
    assert await it.load_tests() == [kept]


async def test_results_survive_the_process(world: World) -> None:
    kept = await (await world.start()).publish_load_test(world.run(), "ci")
    after = await world.start()
    assert await after.load_tests() == [kept]
    assert list(after._controller.load_tests) == ["smoke"]


async def test_results_that_cannot_be_read_any_more_are_passed_over(world: World) -> None:
    world.state.values[KEY] = b'{"of": "another version"}'
    assert await (await world.start()).load_tests() == []


async def test_what_cannot_be_kept_changes_nothing_and_says_so(world: World) -> None:
    it = await world.start()
    world.state.is_away = True
    with pytest.raises(Unavailable, match="publish it again"):
        await it.publish_load_test(world.run(), "ci")
    assert (await it.load_tests(), it._controller.load_tests) == ([], {})


async def test_two_that_come_together_are_both_kept(world: World) -> None:
    it = await world.start()
    await asyncio.gather(it.publish_load_test(world.run(), "ci"), it.publish_load_test(world.run(scenario="rag"), "ci"))
    assert {each["result"]["scenario"] for each in json.loads(world.state.values[KEY])["results"]} == {"smoke", "rag"}


async def test_an_earlier_run_is_refused(world: World) -> None:
    it = await world.start()
    await it.publish_load_test(world.run(), "ci")
    world.clock.now_s -= 10
    with pytest.raises(RolloutConflict):
        await it.publish_load_test(world.run(), "ci")


@pytest.mark.parametrize(("ahead_s", "is_fine"), [(MOST_AHEAD_S, True), (MOST_AHEAD_S + 1, False)], ids=["little", "much"])
async def test_a_clock_that_is_far_ahead_is_told(ahead_s: float, is_fine: bool, world: World) -> None:
    it = await world.start()
    told = document(begun_s=0.0, ended_s=world.clock.now_s + ahead_s)
    if is_fine:
        await it.publish_load_test(told, "ci")
    else:
        with pytest.raises(BadRequest, match="set the load generator's clock") as caught:
            await it.publish_load_test(told, "ci")
        assert caught.value.param == "ended_s"


async def test_a_failed_run_of_the_step_in_force_rolls_back(world: World) -> None:
    it = await world.start()
    world.clock.now_s += TTL_S + 0.1
    for each in (entry("r1"), canary_entry()):
        await it.heartbeat(each, 1)
    await it.tick()
    (model,) = declared(CONFIG).routing.models
    made_of = revisions(model)
    variants = [
        {"model": "chat", "variant": name, "weight": weight, "revision": made_of[name]}
        for name, weight in (("stable", 90), ("canary", 10))
    ]
    looks = {"begin": {"version": 2, "digest": "d", "variants": variants}}
    now_s = world.clock.now_s
    await it.publish_load_test({**failed(begun_s=now_s, ended_s=now_s), **looks, "end": looks["begin"]}, "ci")
    await it.tick()
    (split,) = [each for each in (await it.rollouts())["splits"] if each["name"] == "chat"]
    assert (split["phase"], split["reason"].startswith("load test smoke failed: error_rate")) == ("rolled_back", True)
