from __future__ import annotations

import asyncio

import pytest

from serve_app.errors import RateLimited
from serve_app.pool import Lease, ReplicaPool, Target
from tests.unit.serve_app.fakes import FakeClock, entry, turns

STABLE = Target("chat", "stable", 1)
CANARY = Target("chat", "canary", 1)


class Line:
    """A pool whose replicas are busy, and who waits there; ``served`` are the names in their order."""

    def __init__(self, *, max_waiting: int = 10) -> None:
        self.pool = ReplicaPool(max_waiting=max_waiting, clock=FakeClock())
        self.pool.update([entry("r1"), entry("r2", variant="canary")], is_complete=True)
        self.served: list[str] = []
        self.refused: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._held: dict[str, Lease] = {}

    async def fill(self) -> None:
        for target in (STABLE, CANARY):
            held = await self.pool.lease(lambda target=target: target, prefix="k", timeout_s=60)  # type: ignore[misc]
            self._held[target.variant] = held

    async def wait(self, name: str, priority: int, *, target: Target = STABLE) -> None:
        self.tasks[name] = asyncio.create_task(self._wait(name, priority, target))
        await turns()

    async def free(self, variant: str = "stable") -> None:
        self._held[variant].release()
        await turns()

    async def _wait(self, name: str, priority: int, target: Target) -> None:
        try:
            self._held[target.variant] = await self.pool.lease(lambda: target, prefix="k", timeout_s=60, priority=priority)
            self.served.append(name)
        except RateLimited:
            self.refused.append(name)

    async def end(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


async def test_those_who_wait_are_served_by_priority_then_by_arrival() -> None:
    line = Line()
    await line.fill()
    for name, priority in {"a5": 5, "b5": 5, "c9": 9, "d0": 0, "e5": 5, "f9": 9}.items():
        await line.wait(name, priority)
    for _ in range(6):
        await line.free()
    assert line.served == ["c9", "f9", "a5", "b5", "e5", "d0"]


async def test_a_higher_priority_takes_the_place_of_the_youngest_of_the_lowest() -> None:
    line = Line(max_waiting=3)
    await line.fill()
    for name, priority in {"a1": 1, "b1": 1, "c3": 3}.items():
        await line.wait(name, priority)
    await line.wait("d5", 5)
    assert line.refused == ["b1"]
    assert line.pool.waiting() == 3
    assert line.pool.room.shedding.refused == {("chat", "stable", "1", "displaced"): 1}
    await line.end()


async def test_the_lowest_is_looked_for_among_all_variants() -> None:
    line = Line(max_waiting=2)
    await line.fill()
    await line.wait("canary", 2, target=CANARY)
    await line.wait("stable", 4)
    await line.wait("new", 5)
    assert line.refused == ["canary"]
    await line.free("canary")
    assert line.served == []
    await line.free()
    await line.free()
    assert line.served == ["new", "stable"]


@pytest.mark.parametrize("priority", [5, 4], ids=["equal", "lower"])
async def test_nobody_gives_way_to_an_equal_or_lower_priority(priority: int) -> None:
    line = Line(max_waiting=1)
    await line.fill()
    await line.wait("first", 5)
    await line.wait("second", priority)
    assert line.refused == ["second"]
    await line.free()
    assert line.served == ["first"]


async def test_where_nobody_may_wait_a_high_priority_is_refused_too() -> None:
    line = Line(max_waiting=0)
    await line.fill()
    await line.wait("a", 9)
    assert line.refused == ["a"]
    assert line.pool.room.shedding.refused == {("chat", "stable", "9", "queue_full"): 1}


async def test_one_who_was_displaced_and_leaves_at_the_same_moment_loses_nothing() -> None:
    line = Line(max_waiting=1)
    await line.fill()
    await line.wait("low", 1)
    high = asyncio.create_task(line.pool.lease(lambda: STABLE, prefix="k", timeout_s=60, priority=9))
    await asyncio.sleep(0)
    line.tasks["low"].cancel()
    await turns()
    assert line.pool.waiting() == 1
    await line.free()
    assert (await high).replica_id == "r1"
    assert line.pool.waiting() == 0
