"""Requests of an adapter go where it is loaded, and the same few replicas take the same adapter."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from serve_app.contracts import EngineLoad, ReplicaEntry, ReplicaState
from serve_app.pool import Lease, ReplicaPool, Target
from serve_app.replica_set import KEEP_TOGETHER, Balance, ReplicaSet
from serve_app.ring import point_of
from tests.unit.serve_app.fakes import FakeClock, turns

PREFIX = Balance()
LEGAL = "legal/v1"
POINTS = [point_of(f"key {i}") for i in range(300)]


def entry(replica_id: str, *adapters: str, load: int = 0, state: ReplicaState = ReplicaState.READY) -> ReplicaEntry:
    made = EngineLoad(open_requests=load)
    return ReplicaEntry(replica_id, "chat", "stable", f"http://{replica_id}", state, made, adapters=adapters)


def replicas(*entries: ReplicaEntry, max_leases: int = 1000) -> ReplicaSet:
    made = ReplicaSet(clock=FakeClock(), on_place=lambda: None)
    made.limit(max_leases)
    for each in entries:
        made.add(each)
    return made


def chosen(made: ReplicaSet, point: int, balance: Balance = PREFIX, exclude: tuple[str, ...] = ()) -> str:
    replica = made.choose(point, balance, exclude, adapter=LEGAL)
    assert replica is not None
    return replica.entry.replica_id


def many(*holders: str, count: int = 8, load: int = 0) -> ReplicaSet:
    return replicas(*(entry(f"r{i}", *([LEGAL] if f"r{i}" in holders else []), load=load) for i in range(count)))


@pytest.mark.parametrize("choice", ["prefix", "least_loaded", "random"])
def test_a_replica_that_has_the_adapter_comes_first(choice: str) -> None:
    made = many("r5")
    assert {chosen(made, point, Balance(choice)) for point in POINTS} == {"r5"}  # type: ignore[arg-type]


def test_among_those_that_have_it_the_prefix_decides_and_keeps_to_one() -> None:
    made = many("r1", "r4", "r6")
    shares = Counter(chosen(made, point) for point in POINTS)
    assert set(shares) == {"r1", "r4", "r6"}
    assert min(shares.values()) > 50
    assert all(chosen(made, point) == chosen(many("r1", "r4", "r6"), point) for point in POINTS)


def test_one_more_that_has_it_takes_prefixes_from_the_others_and_moves_none_between_them() -> None:
    before, after = many("r1", "r4"), many("r1", "r4", "r6")
    moved = [(chosen(before, p), chosen(after, p)) for p in POINTS if chosen(before, p) != chosen(after, p)]
    assert {new for _, new in moved} == {"r6"}
    assert 50 < len(moved) < 150


def test_without_a_prefix_choice_the_least_loaded_of_them_is_taken() -> None:
    made = replicas(entry("r1", LEGAL, load=3), entry("r2", LEGAL, load=2), entry("r3", load=0), entry("r4", load=9))
    assert {chosen(made, point, Balance("least_loaded")) for point in POINTS} == {"r2"}


def test_where_nobody_has_it_the_adapter_has_a_place_of_its_own_on_the_ring() -> None:
    made = many()
    [home] = {chosen(made, point) for point in POINTS}
    assert home == chosen(many(), POINTS[0], Balance("random"))
    plain = Counter(r.entry.replica_id for p in POINTS if (r := made.choose(p, PREFIX)) is not None)
    assert len(plain) == 8


def test_over_its_fair_share_the_next_replica_of_the_adapters_ring_takes_it() -> None:
    made = many("r5")
    taken = []
    for _ in range(3 * KEEP_TOGETHER):
        replica = made.choose(POINTS[0], PREFIX, adapter=LEGAL)
        assert replica is not None
        made.take(replica)
        taken.append(replica.entry.replica_id)
    clockwise = [made._by_seat[seat].entry.replica_id for seat in made._ring.walk(point_of(LEGAL))]
    others = [name for name in clockwise if name != "r5"]
    assert taken[:KEEP_TOGETHER] == ["r5"] * KEEP_TOGETHER
    assert taken[KEEP_TOGETHER : 2 * KEEP_TOGETHER] == others[:1] * KEEP_TOGETHER


def test_one_that_drains_is_ejected_or_was_tried_is_no_choice() -> None:
    made = many("r1", "r2", "r3")
    made.refresh(made.replicas["r1"], entry("r1", LEGAL, state=ReplicaState.DRAINING))
    made.leave(made.replicas["r2"], 1e9)
    assert {chosen(made, point) for point in POINTS} == {"r3"}
    assert chosen(made, POINTS[0], exclude=("r3",)) not in ("r1", "r2", "r3")


def test_reports_say_what_is_loaded_now() -> None:
    made = many("r1")
    made.refresh(made.replicas["r1"], entry("r1", "other/v1"))
    made.refresh(made.replicas["r2"], entry("r2", LEGAL, "other/v1"))
    assert chosen(made, POINTS[0]) == "r2"
    made.remove(made.replicas["r2"])
    made.remove(made.replicas["r1"])
    assert made._holders._by_adapter == {}


def test_requests_without_an_adapter_go_where_they_went() -> None:
    plain, adapted = many(), many("r1", "r2")
    for point in POINTS:
        first, second = plain.choose(point, PREFIX), adapted.choose(point, PREFIX)
        assert first is not None
        assert second is not None
        assert first.entry.replica_id == second.entry.replica_id


def pool(*entries: ReplicaEntry) -> ReplicaPool:
    made = ReplicaPool(clock=FakeClock())
    made.update(entries, is_complete=True)
    return made


TARGET = Target("chat", "stable", 2, LEGAL)


async def lease(made: ReplicaPool, target: Target = TARGET) -> Lease:
    return await made.lease(lambda: target, prefix="k", timeout_s=60)


async def test_a_lease_says_whether_the_replica_has_the_adapter() -> None:
    made = pool(entry("r1", LEGAL), entry("r2", "other/v1"))
    assert [(await lease(made)).has_adapter for _ in range(3)] == [True, True, False]
    assert (await lease(made, TARGET._replace(adapter=None))).has_adapter is True


async def test_requests_of_adapters_wait_in_their_variants_line() -> None:
    made = pool(entry("r1", LEGAL))
    held = [await lease(made) for _ in range(2)]
    plain = asyncio.create_task(lease(made, TARGET._replace(adapter=None)))
    adapted = asyncio.create_task(lease(made))
    await turns()
    assert made.held() == {("chat", "stable"): 2}
    held[0].release()
    await turns()
    assert (plain.done(), adapted.done()) == (True, False)
    held[1].release()
    assert (await adapted).replica_id == "r1"
