"""Five times more requests than the replicas can take, in virtual time: who is answered, and who is refused when."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

import pytest

from serve_app.errors import RateLimited
from serve_app.pool import ReplicaPool, Target
from tests.unit.serve_app.fakes import entry
from tests.unit.serve_app.virtual_time import run_virtually

TARGET = Target("chat", "stable", 5)
REPLICAS = ("r1", "r2")
SERVICE_S = 0.5
CAPACITY_PER_S = len(REPLICAS) * TARGET.max_leases / SERVICE_S
SLO_S = 2.0  # longest wait for a place that a caller still has a use for
BOUND_S = 1.5
HIGH, NORMAL, LOW = 9, 5, 1
SHARES = {HIGH: 0.05, NORMAL: 0.35, LOW: 0.6}  # of what arrives: at five times the capacity, HIGH alone takes a quarter


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a request."""

    arrived_s: float
    priority: int
    waited_s: float
    is_refused: bool


@dataclass
class Overload:
    """Drives a pool; times are by the loop's clock."""

    max_expected_wait_s: float = BOUND_S
    told: list[Told] = field(default_factory=list)
    service_s: float = SERVICE_S
    shares: dict[int, float] = field(default_factory=lambda: dict(SHARES))
    most_waiting: int = 0
    pool: ReplicaPool = field(init=False)
    _random: random.Random = field(default_factory=lambda: random.Random(20))  # noqa: S311
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.pool = ReplicaPool(clock=asyncio.get_running_loop().time)
        self.pool.room.shedding.max_expected_wait_s = self.max_expected_wait_s
        self.pool.update([entry(r) for r in REPLICAS], is_complete=True)

    async def arrive(self, seconds: float, *, times: float) -> None:
        """Let requests come for so long, at so many times the capacity."""
        until_s = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < until_s:
            await asyncio.sleep(self._random.expovariate(times * CAPACITY_PER_S))
            [priority] = self._random.choices(list(self.shares), list(self.shares.values()))
            task = asyncio.create_task(self._request(priority))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _request(self, priority: int) -> None:
        loop = asyncio.get_running_loop()
        arrived_s = loop.time()
        try:
            lease = await self.pool.lease(lambda: TARGET, prefix=f"{arrived_s}", timeout_s=600, priority=priority)
        except RateLimited:
            self.told.append(Told(arrived_s, priority, loop.time() - arrived_s, is_refused=True))
            return
        finally:
            self.most_waiting = max(self.most_waiting, self.pool.waiting())
        self.told.append(Told(arrived_s, priority, loop.time() - arrived_s, is_refused=False))
        await asyncio.sleep(self.service_s * self._random.uniform(0.5, 1.5))
        lease.release()

    def waits_s(self, priority: int, *, is_refused: bool = False) -> list[float]:
        """Return how long those of a priority waited, shortest first."""
        return sorted(told.waited_s for told in self.told if (told.priority, told.is_refused) == (priority, is_refused))

    def goodput_ratio(self, seconds: float) -> float:
        """Return which part of what the replicas could answer so far was answered to callers who still had a use for it."""
        good = sum(not told.is_refused and told.waited_s <= SLO_S for told in self.told)
        return good / (CAPACITY_PER_S * seconds)


async def overloaded(seconds: float, *, max_expected_wait_s: float = BOUND_S) -> Overload:
    made = Overload(max_expected_wait_s)
    await made.arrive(seconds, times=5)
    await made.end()
    return made


def test_under_five_times_the_load_the_replicas_work_for_callers_who_still_wait() -> None:
    made = run_virtually(overloaded(12))
    assert made.goodput_ratio(12) >= 0.9
    assert made.most_waiting < 2.5 * 5 * CAPACITY_PER_S  # what comes until the pace is known


def test_without_shedding_nearly_all_answers_come_too_late() -> None:
    made = run_virtually(overloaded(12, max_expected_wait_s=0))
    assert made.goodput_ratio(12) < 0.6
    assert made.most_waiting > 40 * CAPACITY_PER_S


def test_the_highest_priority_is_never_refused_and_hardly_waits() -> None:
    made = run_virtually(overloaded(12))
    waits_s = made.waits_s(HIGH)
    assert made.waits_s(HIGH, is_refused=True) == []
    assert waits_s[int(0.95 * len(waits_s))] < 0.3
    assert waits_s[-1] < 0.6


def test_who_is_refused_hears_so_at_once() -> None:
    made = run_virtually(overloaded(12))
    late = [told for told in made.told if told.is_refused and told.waited_s > 0]
    assert [told for told in late if told.arrived_s > 3] == []  # until then nobody could know how long it would take
    assert max(told.waited_s for told in late) < 4
    assert made.pool.room.shedding.refused.keys() == {
        ("chat", "stable", str(priority), "expected_wait") for priority in (NORMAL, LOW)
    }


def test_after_the_overload_everybody_is_served_again() -> None:
    async def main() -> Overload:
        made = Overload()
        await made.arrive(10, times=5)
        await made.arrive(10, times=0.8)
        await made.end()
        return made

    after = [told for told in run_virtually(main()).told if told.arrived_s > 14]
    assert len(after) > 50
    assert [told for told in after if told.is_refused or told.waited_s > SLO_S] == []


def test_a_burst_on_idle_replicas_is_served_however_long_the_answers_take() -> None:
    async def main() -> Overload:
        made = Overload(max_expected_wait_s=60, service_s=20)
        await made.arrive(1, times=2)
        await asyncio.sleep(120)
        return made

    made = run_virtually(main())
    assert len(made.told) > 3 * len(REPLICAS) * TARGET.max_leases
    assert [told for told in made.told if told.is_refused] == []
    assert made.pool.waiting() == 0


def test_those_who_wait_are_refused_once_the_replicas_are_too_slow_for_them() -> None:
    async def main() -> tuple[int, int, int]:
        made = Overload(max_expected_wait_s=4)
        await made.arrive(10, times=5)
        before, told = made.pool.waiting(), len(made.told)
        made.service_s = 10 * SERVICE_S
        await asyncio.sleep(10)
        after, refused = made.pool.waiting(), sum(each.is_refused for each in made.told[told:])
        await made.end()
        return before, after, refused

    before, after, refused = run_virtually(main())
    assert before > 2 * CAPACITY_PER_S
    assert after < 2 * 4 * CAPACITY_PER_S / 10
    assert refused > before / 2


def test_the_time_in_which_replicas_start_says_nothing_about_their_pace() -> None:
    async def main() -> Overload:
        made = Overload(max_expected_wait_s=10)
        made.pool.update([], is_complete=True)
        await made.arrive(0.1, times=1)
        await asyncio.sleep(180)
        made.pool.update([entry(r) for r in REPLICAS], is_complete=True)
        await made.arrive(20, times=1.2)
        await made.end()
        return made

    made = run_virtually(main())
    assert made.told[0].waited_s == pytest.approx(180, abs=0.2)
    assert [told for told in made.told if told.is_refused] == []


def test_who_is_overtaken_for_ever_is_refused_and_not_left_to_wait() -> None:
    async def main() -> tuple[Overload, int]:
        made = Overload(max_expected_wait_s=10)
        made.shares = {LOW: 1.0}
        await made.arrive(5, times=2.5)
        before = made.pool.waiting()
        made.shares = {HIGH: 1.0}
        await made.arrive(15, times=1.5)
        await made.end()
        return made, before

    made, before = run_virtually(main())
    gave_up = [waited_s for waited_s in made.waits_s(LOW, is_refused=True) if waited_s > 0]
    assert before > 5 * CAPACITY_PER_S
    assert len(gave_up) > before / 2
    assert gave_up[-1] < 10  # they would have waited for ten minutes
    assert made.waits_s(HIGH, is_refused=True) == []


def test_one_who_has_less_time_than_the_queue_takes_is_refused() -> None:
    async def main() -> tuple[float, float]:
        made = Overload(max_expected_wait_s=10)
        await made.arrive(5, times=5)
        began_s = asyncio.get_running_loop().time()
        try:
            await made.pool.lease(lambda: TARGET, prefix="k", timeout_s=2, priority=LOW)
        except RateLimited as err:
            return asyncio.get_running_loop().time() - began_s, err.retry_after_s or 0.0
        finally:
            await made.end()
        return -1.0, -1.0

    waited_s, retry_after_s = run_virtually(main())
    assert waited_s == 0
    assert retry_after_s > 2


def test_a_refusal_is_told_without_letting_anything_else_run() -> None:
    async def main() -> None:
        made = Overload()
        await made.arrive(5, times=5)
        refused = made.pool.lease(lambda: TARGET, prefix="k", timeout_s=60, priority=LOW)
        with pytest.raises(RateLimited, match="model 'chat' is overloaded"):
            refused.send(None)  # one that waits would come back from this
        await made.end()

    run_virtually(main())
