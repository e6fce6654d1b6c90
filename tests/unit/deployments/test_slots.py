from __future__ import annotations

import asyncio

from deployments.slots import Slots
from tests.unit.serve_app.fakes import turns


def load(slots: Slots) -> tuple[int, int, int]:
    return slots.waiting, slots.running, slots.arrived


async def test_who_finds_no_place_waits_in_order() -> None:
    slots = Slots(2)
    order: list[int] = []
    may_leave = [asyncio.Event() for _ in range(4)]

    async def visit(i: int) -> None:
        async with slots:
            order.append(i)
            await may_leave[i].wait()

    visits = [asyncio.create_task(visit(i)) for i in range(4)]
    await turns()
    assert (order, load(slots)) == ([0, 1], (2, 2, 4))
    may_leave[1].set()
    await turns()
    assert (order, load(slots)) == ([0, 1, 2], (1, 2, 4))
    for event in may_leave:
        event.set()
    await asyncio.gather(*visits)
    assert (order, load(slots)) == ([0, 1, 2, 3], (0, 0, 4))


async def test_one_who_waits_and_leaves_waits_no_more() -> None:
    slots = Slots(1)
    async with slots:
        waiting = asyncio.create_task(slots.__aenter__())
        await turns()
        assert load(slots) == (1, 1, 2)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert load(slots) == (0, 1, 2)
    assert load(slots) == (0, 0, 2)


async def test_a_place_that_was_just_given_to_one_who_leaves_goes_to_the_next() -> None:
    slots = Slots(1)
    await slots.__aenter__()
    first, second = (asyncio.create_task(slots.__aenter__()) for _ in range(2))
    await turns()
    await slots.__aexit__()
    first.cancel()
    await asyncio.wait([first, second])
    assert (first.cancelled(), load(slots)) == (True, (0, 1, 3))
