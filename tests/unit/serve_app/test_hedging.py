"""A request that is slow is sent to a second replica, and the first answer counts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from serve_app.call import Call, Reply
from serve_app.config_router import RetryBudgetConfig
from serve_app.engine_errors import UpstreamRejected
from serve_app.errors import PlatformError, Unavailable
from serve_app.gateway import Gateway
from serve_app.lease import Lease, Target
from serve_app.observing.record import RequestRecord
from serve_app.rollout.telemetry import Outcome
from serve_app.upstream import ReplicaUnreachable
from tests.unit.serve_app.fakes import (
    SSE,
    Answer,
    FakeResponse,
    call,
    document,
    entry,
    gateway,
    leases_of,
    model,
    snapshot,
    turns,
    until,
    upstream_of,
)

KEY = ("chat", "stable")
AT_ONCE_S = 0.001
EVENTS = (b'data: {"choices": []}\n\n', b"data: [DONE]\n\n")


@dataclass
class Held:
    """An answer that comes when a test lets it; knows whether it was waited for until then."""

    answer: FakeResponse | Exception = field(default_factory=lambda: FakeResponse((b'{"from": "slow"}',)))
    may_come: asyncio.Event = field(default_factory=asyncio.Event)
    is_asked: bool = False
    is_dropped: bool = False

    async def __call__(self) -> FakeResponse:
        self.is_asked = True
        try:
            await self.may_come.wait()
        except asyncio.CancelledError:
            self.is_dropped = True
            raise
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


QUICK = (b'{"from": "quick"}',)


def hedged(*answers: Answer, after_s: float | None = AT_ONCE_S, replicas: int = 2, max_leases: int = 2) -> Gateway:
    """Return a gateway whose model has these replicas; whoever is asked gives the next answer."""
    chat = model(("stable", 100), max_leases=max_leases).model_copy(update={"hedge_after_s": after_s})
    it = gateway(*answers)
    it.update(snapshot(*(entry(f"r{i}") for i in range(replicas)), routing=document(models=(chat,))))
    return it


def asks(*, is_stream: bool = False) -> Call:
    return replace(call("s"), record=RequestRecord(), body={"model": "chat", "stream": is_stream}, raw=b'{"model": "chat"}')


async def send(it: Gateway, ask: Call | None = None) -> Reply:
    return await it.relay(ask or asks(), it.view.models["chat"])


def outcomes(it: Gateway) -> dict[Outcome, int]:
    return dict(it.attempts.stats(KEY).outcomes)


async def test_a_second_replica_is_asked_and_the_first_answer_counts() -> None:
    slow = Held()
    it = hedged(slow, FakeResponse(QUICK))
    ask = asks()
    assert (await send(it, ask)).body == QUICK[0]
    assert slow.is_dropped
    assert len(set(upstream_of(it).asked)) == 2
    assert (leases_of(it), it.hedges.counts) == (0, {("chat", "stable", "won"): 1})
    assert outcomes(it) == {Outcome.OK: 1, Outcome.ABANDONED: 1}  # which says nothing about the variant
    assert ask.record.attempts == [Outcome.OK]


async def test_where_the_first_replica_is_quicker_after_all_the_second_is_dropped() -> None:
    slow, slower = Held(), Held()
    it = hedged(slow, slower)
    sent = asyncio.create_task(send(it))
    await until(lambda: slower.is_asked)
    slow.may_come.set()
    assert (await sent).body == b'{"from": "slow"}'
    assert (slower.is_dropped, leases_of(it)) == (True, 0)
    assert it.hedges.counts == {("chat", "stable", "lost"): 1}


async def test_a_stream_is_hedged_until_its_first_byte_and_holds_one_place_after_it() -> None:
    slow = Held(FakeResponse(EVENTS, content_type=SSE))
    it = hedged(slow, FakeResponse(EVENTS, content_type=SSE))
    reply = await send(it, asks(is_stream=True))
    assert (slow.is_dropped, leases_of(it)) == (True, 1)
    assert not isinstance(reply.body, bytes)
    assert b"".join([piece async for piece in reply.body]) == b"".join(EVENTS)
    assert leases_of(it) == 0
    assert outcomes(it) == {Outcome.OK: 1, Outcome.ABANDONED: 1}


async def test_a_stream_that_answers_in_the_same_moment_is_closed() -> None:
    first, second = (Held(FakeResponse(EVENTS, content_type=SSE)) for _ in range(2))
    it = hedged(first, second)
    sent = asyncio.create_task(send(it, asks(is_stream=True)))
    await until(lambda: second.is_asked)
    first.may_come.set()
    second.may_come.set()
    reply = await sent
    assert leases_of(it) == 1
    assert not isinstance(reply.body, bytes)
    await reply.body.aclose()
    assert leases_of(it) == 0


@pytest.mark.parametrize("after_s", [None, 60.0], ids=["not-asked-for", "quick-enough"])
async def test_an_answer_in_time_is_asked_for_once(after_s: float | None) -> None:
    it = hedged(FakeResponse(QUICK), after_s=after_s)
    assert (await send(it)).body == QUICK[0]
    assert (len(upstream_of(it).asked), it.hedges.counts) == (1, {})


@pytest.mark.parametrize(("replicas", "taken"), [(1, 0), (2, 1)], ids=["no-other-replica", "no-place-there"])
async def test_nobody_waits_for_a_second_place(replicas: int, taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Held()
    it = hedged(slow, replicas=replicas, max_leases=1 if taken else 2)
    held = [it.pool.try_lease(Target("chat", "stable", 1), prefix="k") for _ in range(taken)]
    looked: list[Lease | None] = []
    try_lease = it.pool.try_lease

    def look(*args: Any, **more: Any) -> Lease | None:
        looked.append(try_lease(*args, **more))
        return looked[-1]

    monkeypatch.setattr(it.pool, "try_lease", look)
    sent = asyncio.create_task(send(it))
    await until(lambda: len(looked) == 2)
    await turns()
    assert (len(upstream_of(it).asked), leases_of(it), it.pool.waiting()) == (1, 1 + len(held), 0)
    slow.may_come.set()
    assert (await sent).body == b'{"from": "slow"}'
    assert (leases_of(it), it.hedges.counts) == (len(held), {})


async def test_a_spent_budget_of_retries_sends_nothing_twice() -> None:
    slow = Held()
    it = hedged(slow)
    it.budgets.limits = RetryBudgetConfig(ratio=0, min_per_s=0)
    sent = asyncio.create_task(send(it))
    await until(lambda: it.budgets.refused)
    await turns()
    assert leases_of(it) == 1
    slow.may_come.set()
    await sent
    assert (len(upstream_of(it).asked), it.budgets.refused, it.hedges.counts) == (1, {"chat": 1}, {})


async def test_a_failure_waits_for_the_other_ones_answer() -> None:
    slow = Held()
    it = hedged(slow, UpstreamRejected(500, b"out of memory"))
    sent = asyncio.create_task(send(it))
    await until(lambda: len(upstream_of(it).asked) == 2)
    await turns()
    assert not sent.done()
    slow.may_come.set()
    assert (await sent).body == b'{"from": "slow"}'


async def test_what_is_the_requests_own_fault_is_told_at_once() -> None:
    slow = Held()
    it = hedged(slow, FakeResponse((b'{"message": "too long"}',), status=400))
    with pytest.raises(UpstreamRejected):
        await send(it)
    assert (slow.is_dropped, leases_of(it)) == (True, 0)


async def test_where_both_replicas_fail_a_third_is_tried() -> None:
    slow = Held(ReplicaUnreachable("gone", was_sent=False))
    it = hedged(slow, ReplicaUnreachable("gone", was_sent=False), FakeResponse(QUICK), replicas=3)
    sent = asyncio.create_task(send(it))
    await until(lambda: len(upstream_of(it).asked) == 2)
    slow.may_come.set()
    assert (await sent).body == QUICK[0]
    assert len(set(upstream_of(it).asked)) == 3
    assert leases_of(it) == 0


async def test_where_all_fail_the_client_hears_why() -> None:
    it = hedged(Held(UpstreamRejected(500, b"one")), UpstreamRejected(500, b"two"))
    slow = upstream_of(it).answers[0]
    assert isinstance(slow, Held)
    sent = asyncio.create_task(send(it))
    await until(lambda: len(upstream_of(it).asked) == 2)
    slow.may_come.set()
    with pytest.raises(PlatformError) as caught:
        await sent
    assert not isinstance(caught.value, Unavailable)
    assert leases_of(it) == 0


async def test_a_client_that_leaves_leaves_neither_replica_at_work() -> None:
    slow, slower = Held(), Held()
    it = hedged(slow, slower)
    ask = asks()
    sent = asyncio.create_task(send(it, ask))
    await until(lambda: slower.is_asked)
    sent.cancel()
    await asyncio.wait([sent])
    assert (slow.is_dropped, slower.is_dropped, leases_of(it)) == (True, True, 0)
    assert outcomes(it) == {Outcome.CANCELLED: 1, Outcome.ABANDONED: 1}
    assert ask.record.attempts == [Outcome.CANCELLED]
    assert it.hedges._beaten == set()
