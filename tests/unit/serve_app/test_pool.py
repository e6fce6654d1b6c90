from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from serve_app import waiting_room
from serve_app.contracts import ReplicaState
from serve_app.errors import DeadlineExceeded, PlatformError, RateLimited, Unavailable, UnknownModel
from serve_app.pool import DRAIN_S, Lease, ReplicaPool, Target
from serve_app.replica_set import BALANCE, EJECTION, Balance
from serve_app.rollout.telemetry import Outcome
from tests.unit.serve_app.fakes import FakeClock, entry, turns, until

STABLE = Target("chat", "stable", 2)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make those who wait look again at once."""
    monkeypatch.setattr(waiting_room, "RECHOOSE_S", 0.001)


LEAST_LOADED = Balance("least_loaded")


def pool(*replica_ids: str, clock: FakeClock | None = None, max_waiting: int = 10, balance: Balance = BALANCE) -> ReplicaPool:
    made = ReplicaPool(max_waiting=max_waiting, balance=balance, clock=clock or FakeClock())
    made.update([entry(r) for r in replica_ids], is_complete=True)
    return made


async def lease(made: ReplicaPool, *, target: Target = STABLE, prefix: str = "k", exclude: tuple[str, ...] = ()) -> Lease:
    return await made.lease(lambda: target, prefix=prefix, timeout_s=60, exclude=exclude)


def unreachable(made: ReplicaPool, replica_id: str) -> None:
    made.judge(Lease(replica_id, "stable", "", True, lambda: None), Outcome.UNREACHABLE)


async def full(*replica_ids: str, max_waiting: int = 10) -> tuple[ReplicaPool, list[Lease]]:
    made = pool(*replica_ids, max_waiting=max_waiting)
    return made, [await lease(made) for _ in range(2 * len(replica_ids))]


async def test_leases_go_to_the_least_loaded() -> None:
    made = pool("r1", "r2", "r3", balance=LEAST_LOADED)
    assert sorted([(await lease(made)).replica_id for _ in range(3)]) == ["r1", "r2", "r3"]


async def test_what_other_routers_have_open_counts_as_load() -> None:
    made = pool(balance=LEAST_LOADED)
    made.update([entry("r1", open_requests=3), entry("r2")], is_complete=True)
    assert [(await lease(made)).replica_id for _ in range(2)] == ["r2", "r2"]


async def test_an_old_report_does_not_turn_ended_requests_of_ours_into_those_of_others() -> None:
    made = pool("r1", balance=LEAST_LOADED)
    leases = [await lease(made) for _ in range(2)]
    reported = [entry("r1", open_requests=2), entry("r2", open_requests=1)]
    made.update(reported, is_complete=True)
    for each in leases:
        each.release()
    made.update(reported, is_complete=True)
    assert (await lease(made)).replica_id == "r1"


async def test_a_prefix_keeps_its_replica_while_there_is_room() -> None:
    made = pool("r1", "r2", "r3")
    chosen = set()
    for prefix in [f"k{i}" for i in range(30)]:
        found = set()
        for _ in range(3):
            held = await lease(made, prefix=prefix)
            found.add(held.replica_id)
            held.release()
        assert len(found) == 1
        chosen |= found
    assert chosen == {"r1", "r2", "r3"}


async def test_one_prefix_does_not_fill_a_replica_while_others_are_idle() -> None:
    made = pool("r1", "r2", "r3")
    target = Target("chat", "stable", 100)
    for _ in range(30):
        await lease(made, target=target)
    assert sorted(r.leases for r in made._replicas.values()) == [4, 13, 13]  # at most 1.25 times 30 / 3


async def test_a_lease_is_tried_without_waiting() -> None:
    made, leases = await full("r1")
    assert made.try_lease(STABLE, prefix=b"k") is None
    assert made.try_lease(Target("chat", "canary", 2), prefix="k") is None
    leases[0].release()
    found = made.try_lease(STABLE, prefix="k")
    assert found is not None
    assert found.replica_id == "r1"


async def test_nobody_tries_past_those_who_wait() -> None:
    clock = FakeClock()
    made = pool("r1", clock=clock)
    unreachable(made, "r1")
    waiting = asyncio.create_task(lease(made))
    await turns()
    clock.now_s += EJECTION.base_s  # the place is free, but the one who waits has not looked yet
    assert made.try_lease(STABLE, prefix="k") is None
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_a_replica_gets_no_more_than_max_leases() -> None:
    made, leases = await full("r1")
    waiting = asyncio.create_task(lease(made))
    await turns()
    assert (waiting.done(), made.waiting(), len(leases)) == (False, 1, 2)
    leases[0].release()
    assert ((await waiting).replica_id, made.waiting()) == ("r1", 0)


async def test_those_who_wait_are_served_in_their_order_and_before_newcomers() -> None:
    made, leases = await full("r1")
    order: list[str] = []

    async def take(name: str) -> None:
        await lease(made, prefix=name)
        order.append(name)

    tasks = [asyncio.create_task(take(name)) for name in ("a", "b")]
    await turns()
    leases[0].release()
    newcomer = asyncio.create_task(take("c"))  # comes when the place is free, but it is promised
    await turns()
    assert (order, made.waiting()) == (["a"], 2)
    leases[1].release()
    await turns()
    assert order == ["a", "b"]
    newcomer.cancel()
    await asyncio.wait([*tasks, newcomer])


async def test_a_place_given_back_twice_is_one_place() -> None:
    made, leases = await full("r1")
    leases[0].release()
    leases[0].release()
    await lease(made)
    assert made.try_lease(STABLE, prefix="k") is None


async def test_a_full_waiting_room_refuses_with_a_time_to_come_back() -> None:
    made, _ = await full("r1", max_waiting=1)
    waiting = asyncio.create_task(lease(made))
    await turns()
    with pytest.raises(RateLimited, match=r"model 'chat' is busy and 1 requests wait already") as caught:
        await lease(made)
    assert (caught.value.retry_after_s, made.waiting()) == (5, 1)
    waiting.cancel()
    await asyncio.wait([waiting])


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("replicas", "error"), [((), Unavailable), (("r1",), DeadlineExceeded)], ids=["no-replica", "all-busy"]
)
async def test_waiting_ends_with_the_deadline(replicas: tuple[str, ...], error: type[PlatformError]) -> None:
    clock = FakeClock()
    made = pool(*replicas, clock=clock)
    for _ in range(2 * len(replicas)):
        await lease(made)
    waiting = asyncio.create_task(lease(made))
    await turns()
    clock.now_s += 61
    with pytest.raises(error):
        await waiting
    assert (made.waiting(), made.room._queues) == (0, {})


async def test_no_time_left_still_takes_a_free_place() -> None:
    made = pool("r1")
    assert (await made.lease(lambda: STABLE, prefix="k", timeout_s=-1)).replica_id == "r1"


async def test_a_waiter_that_is_cancelled_leaves_nothing_behind() -> None:
    made, leases = await full("r1")
    waiting = asyncio.create_task(lease(made))
    await turns()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert (made.waiting(), made.room._queues) == (0, {})
    leases[0].release()
    assert (await lease(made)).replica_id == "r1"


async def test_a_lease_handed_to_a_waiter_that_is_being_cancelled_goes_to_the_next() -> None:
    made, leases = await full("r1")
    first, second = asyncio.create_task(lease(made)), asyncio.create_task(lease(made))
    await turns()
    leases[0].release()  # first has the lease in hand ...
    first.cancel()  # ... and is cancelled before it runs again
    await asyncio.wait([first])
    assert first.cancelled()
    assert (await second).replica_id == "r1"


async def test_a_new_replica_serves_those_who_wait() -> None:
    made = pool()
    waiting = asyncio.create_task(lease(made))
    await turns()
    made.update([entry("r1")], is_complete=True)
    assert (await waiting).replica_id == "r1"


@pytest.mark.parametrize("state", [ReplicaState.STARTING, ReplicaState.DRAINING])
async def test_only_ready_replicas_are_used(state: ReplicaState) -> None:
    made = ReplicaPool(clock=FakeClock())
    made.update([entry("r1", state=state), entry("r2")], is_complete=True)
    assert [(await lease(made)).replica_id for _ in range(2)] == ["r2", "r2"]
    assert not ReplicaPool(clock=FakeClock()).has_ready("chat", "stable")


@pytest.mark.parametrize(("way", "seconds"), [(unreachable, EJECTION.base_s), (ReplicaPool.drain, DRAIN_S)])
async def test_a_replica_that_failed_is_left_alone_for_a_while(way: Callable[[ReplicaPool, str], None], seconds: float) -> None:
    clock = FakeClock()
    made = pool("r1", "r2", clock=clock)
    way(made, "r1")
    way(made, "r9")  # gone already: nothing happens
    assert [(await lease(made)).replica_id for _ in range(2)] == ["r2", "r2"]
    clock.now_s += seconds
    assert (await lease(made)).replica_id == "r1"


async def test_what_was_sent_before_an_ejection_says_nothing_once_the_replica_is_trusted_again() -> None:
    clock = FakeClock()
    made = pool("r1", "r2", clock=clock)
    target = Target("chat", "stable", 100)
    old = [await lease(made, target=target, exclude=("r2",)) for _ in range(4 * EJECTION.consecutive_failures)]
    for each in old[: EJECTION.consecutive_failures]:
        made.judge(each, Outcome.TIMEOUT)
    assert list(made.ejected()) == ["r1"]
    assert [each.is_suspect for each in old] == [True] * len(old)
    clock.now_s += EJECTION.base_s
    trial = await lease(made, target=target, exclude=("r2",))
    made.judge(trial, Outcome.OK)
    for each in old[EJECTION.consecutive_failures :]:
        made.judge(each, Outcome.TIMEOUT)
    assert made.ejected() == {}
    new = [await lease(made, target=target, exclude=("r2",)) for _ in range(EJECTION.consecutive_failures)]
    assert [each.is_suspect for each in (trial, *new)] == [False] * (1 + len(new))
    for each in new:
        made.judge(each, Outcome.TIMEOUT)
    assert list(made.ejected()) == ["r1"]


@pytest.mark.usefixtures("quick")
async def test_those_who_wait_notice_the_end_of_an_ejection() -> None:
    clock = FakeClock()
    made = pool("r1", clock=clock)
    unreachable(made, "r1")
    assert (made.has_ready("chat", "stable"), made.can_take("chat", "stable")) == (True, False)
    waiting = asyncio.create_task(lease(made))
    await turns()
    clock.now_s += EJECTION.base_s
    assert (await waiting).replica_id == "r1"


async def test_an_excluded_replica_is_the_last_resort() -> None:
    made = pool("r1", "r2")
    assert [(await lease(made, exclude=("r1",))).replica_id for _ in range(3)] == ["r2", "r2", "r1"]


@pytest.mark.usefixtures("quick")
async def test_one_who_waits_moves_on_when_its_variant_changes() -> None:
    made, [_, held] = await full("r1")
    target = STABLE
    waiting = asyncio.create_task(made.lease(lambda: target, prefix="k", timeout_s=60))
    await turns()
    target = Target("chat", "canary", 2)
    made.update([entry("r1"), entry("c1", "canary")], is_complete=True)
    assert (await waiting).replica_id == "c1"
    assert made.room._queues == {}
    held.release()


@pytest.mark.usefixtures("quick")
async def test_requests_are_held_for_the_variant_that_each_waits_for_now() -> None:
    made = pool()
    target = STABLE
    moving = asyncio.create_task(made.lease(lambda: target, prefix="k", timeout_s=60))
    staying = asyncio.create_task(lease(made))
    await turns()
    assert made.held() == {("chat", "stable"): 2}
    target = Target("chat", "canary", 2)
    await until(lambda: len(made.held()) == 2)
    assert made.held() == {("chat", "stable"): 1, ("chat", "canary"): 1}
    made.update([entry("r1")], is_complete=True)
    assert made.held() == {("chat", "canary"): 1}  # it has its place, though it has not taken it yet
    moving.cancel()
    await asyncio.wait([moving, staying])
    assert made.held() == {}


async def test_one_whose_place_another_took_is_held_no_more() -> None:
    made = pool(max_waiting=1)
    low = asyncio.create_task(made.lease(lambda: STABLE, prefix="k", timeout_s=60, priority=0))
    await turns()
    high = asyncio.create_task(lease(made))
    await asyncio.wait([low])
    assert made.held() == {("chat", "stable"): 1}
    high.cancel()
    await asyncio.wait([high])


async def test_a_request_waits_only_when_no_place_can_be_made_for_it() -> None:
    made, leases = await full("r1")
    asked: list[tuple[str, str]] = []

    def make_place(key: tuple[str, str]) -> bool:
        asked.append(key)
        leases.pop().release()
        return True

    made.room.on_wait = make_place
    assert ((await lease(made)).replica_id, made.waiting()) == ("r1", 0)

    def refuse(key: tuple[str, str]) -> bool:
        asked.append(key)
        return False

    made.room.on_wait = refuse
    waiting = asyncio.create_task(lease(made))
    await turns()
    assert (made.waiting(), asked) == (1, [STABLE[:2]] * 2)
    waiting.cancel()
    await asyncio.wait([waiting])


@pytest.mark.usefixtures("quick")
async def test_one_who_moves_on_is_made_a_place_where_it_waits_next() -> None:
    made = pool()
    made.update([entry("c1", "canary")], is_complete=True)
    canary = Target("chat", "canary", 1)
    held = await lease(made, target=canary)
    target = STABLE

    def make_place(key: tuple[str, str]) -> bool:
        if key == canary[:2]:
            held.release()
        return key == canary[:2]

    made.room.on_wait = make_place
    waiting = asyncio.create_task(made.lease(lambda: target, prefix="k", timeout_s=60))
    await turns()
    target = canary
    assert (await waiting).replica_id == "c1"


@pytest.mark.usefixtures("quick")
async def test_what_the_choice_raises_ends_the_waiting() -> None:
    made, _ = await full("r1")
    answers = iter([STABLE])

    def choose() -> Target:
        if (target := next(answers, None)) is None:
            raise UnknownModel("chat")
        return target

    with pytest.raises(UnknownModel):
        await made.lease(choose, prefix="k", timeout_s=60)
    assert (made.waiting(), made.room._queues) == (0, {})


def test_an_incomplete_directory_makes_nothing_forgotten() -> None:
    made = pool("r1", "r2")
    made.update([entry("r3")], is_complete=False)
    assert sorted(e.replica_id for e in made.entries()) == ["r1", "r2", "r3"]
    made.update([entry("r3")], is_complete=True)
    assert [e.replica_id for e in made.entries()] == ["r3"]


async def test_an_id_that_moves_to_another_variant_is_another_replica() -> None:
    made = pool("r1")
    held = await lease(made)
    made.update([entry("r1", "canary")], is_complete=True)
    assert (made.has_ready("chat", "stable"), made.has_ready("chat", "canary")) == (False, True)
    held.release()
    assert [r.leases for r in made._replicas.values()] == [0]


async def test_leases_survive_updates() -> None:
    made, leases = await full("r1")
    made.update([entry("r1", open_requests=2)], is_complete=True)
    assert made.try_lease(STABLE, prefix="k") is None
    for each in leases:
        each.release()
    assert [r.leases for r in made._replicas.values()] == [0]


async def test_a_lease_on_a_forgotten_replica_can_be_given_back() -> None:
    made, leases = await full("r1")
    made.update([], is_complete=True)
    leases[0].release()
    assert made.entries() == ()


async def test_half_a_surrogate_pair_in_the_prefix_is_harmless() -> None:
    assert (await lease(pool("r1"), prefix="\ud800")).replica_id == "r1"
