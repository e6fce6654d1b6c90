from __future__ import annotations

import asyncio

import pytest

from serve_app.needs import MISSED_S, Needs
from serve_app.pool import ReplicaPool, Target
from tests.unit.serve_app.fakes import FakeClock, entry, turns

STABLE, CANARY = ("chat", "stable"), ("chat", "canary")


def made(*replica_ids: str) -> tuple[Needs, ReplicaPool, FakeClock]:
    """Return the needs of a Router that knows these replicas of stable."""
    clock = FakeClock()
    pool = ReplicaPool(clock=clock)
    pool.update([entry(each) for each in replica_ids], is_complete=True)
    return Needs(pool, clock=clock), pool, clock


async def waiting(pool: ReplicaPool) -> asyncio.Task[object]:
    task: asyncio.Task[object] = asyncio.create_task(pool.lease(lambda: Target(*STABLE, 1), prefix="k", timeout_s=60))
    await turns()
    return task


@pytest.mark.parametrize(("replicas", "is_news"), [((), True), (("r1",), False)], ids=["none-ready", "busy"])
def test_a_first_request_that_waits_is_news_where_no_replica_is_ready(replicas: tuple[str, ...], is_news: bool) -> None:
    needs, _, _ = made(*replicas)
    needs.wait(STABLE)
    assert needs.news.is_set() == is_news


async def test_more_requests_for_what_was_told_are_no_news() -> None:
    needs, pool, _ = made()
    tasks = [await waiting(pool)]
    needs.wait(STABLE)
    assert (needs.tell(), needs.news.is_set()) == ({STABLE: 1}, False)
    tasks.append(await waiting(pool))
    needs.wait(STABLE)
    assert (needs.news.is_set(), needs.tell()) == (False, {STABLE: 2})
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert needs.tell() == {}
    needs.wait(STABLE)
    assert needs.news.is_set()


def test_a_variant_that_is_missed_counts_as_one_request_for_a_while() -> None:
    needs, _, clock = made("r1")
    needs.miss(CANARY)
    needs.miss(CANARY)
    assert (needs.news.is_set(), needs.tell()) == (True, {CANARY: 1})
    clock.now_s += MISSED_S
    assert needs.tell() == {CANARY: 1}
    clock.now_s += 0.1
    assert needs.tell() == {}


async def test_requests_that_wait_outnumber_one_that_is_missed() -> None:
    needs, pool, _ = made()
    needs.miss(STABLE)
    tasks = [await waiting(pool) for _ in range(2)]
    assert needs.tell() == {STABLE: 2}
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def test_a_variant_that_has_come_is_missed_no_more() -> None:
    needs, pool, _ = made()
    needs.miss(STABLE)
    pool.update([entry("r1")], is_complete=True)
    assert needs.tell() == {}
