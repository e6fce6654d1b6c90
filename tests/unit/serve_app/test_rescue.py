"""Two attempts at one request: whatever meets in one moment, nothing leaks, and neither pays for the other."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from serve_app.engine_errors import Unreadable
from serve_app.limits.permit import Permit
from serve_app.observing.record import RequestRecord
from serve_app.overtaken import BY_SAME, LEAST_WAIT_S
from serve_app.rollout.telemetry import Outcome
from tests.unit.serve_app.fakes import (
    SSE,
    FakeResponse,
    call,
    document,
    entry,
    gateway,
    leases_of,
    model,
    snapshot,
    turns,
    upstream_of,
)
from tests.unit.serve_app.overtaking import RESCUED, STREAM, WHOLE, Lab, leave, never, stream, whole

OOPS = FakeResponse((b"oops",), status=500)
ERROR_EVENT = FakeResponse((b'data: {"error": {"message": "oom", "code": 500}}\n\n', b"data: [DONE]\n\n"), content_type=SSE)


def gate(may: asyncio.Event, answer: FakeResponse) -> Callable[[], Awaitable[FakeResponse]]:
    async def late() -> FakeResponse:
        await may.wait()
        return answer

    return late


class Both:
    """A request at ``r0`` that was overtaken, and the second attempt at ``r1``; tests say when each answers."""

    def __init__(self, lab: Lab, **told: Any) -> None:
        self.lab = lab
        self.first, self.second = asyncio.Event(), asyncio.Event()
        self.record = RequestRecord()
        self.asked = replace(call(), raw=b"{}", record=self.record, **told)

    async def begin(self, first: FakeResponse, second: FakeResponse) -> asyncio.Task[Any]:
        lab, body = self.lab, self.asked.body
        lab.open("r0")
        upstream_of(lab.it).answers[:] = [gate(self.first, first)]
        asking = asyncio.create_task(lab.it.relay(self.asked, lab.it.view.models["chat"]))
        await turns(12)
        await lab.answered(BY_SAME, at="r0", body={**body, "longer": "x" * 100})
        lab.open("r1")
        await lab.look(answer=gate(self.second, second))
        lab.open(*lab.it.pool._replicas)
        assert lab.asked[-1] == "http://r1"
        return asking


@pytest.mark.parametrize("is_gone", [True, False], ids=["client-leaves", "first-answers"])
async def test_a_second_attempt_that_ends_before_its_first_step_gives_its_place_back(is_gone: bool) -> None:
    lab, may = Lab(), asyncio.Event()
    asking = await lab.begin(WHOLE, gate(may, whole(1)), at="r0")
    await lab.answered(BY_SAME, at="r0", body=WHOLE)
    lab.clock.now_s += LEAST_WAIT_S
    upstream_of(lab.it).answers[:] = [never]
    if is_gone:
        asking.cancel()
    else:
        may.set()
    lab.watch.look()
    await turns(12)
    assert asking.cancelled() is is_gone
    assert leases_of(lab.it) == 0


async def test_a_client_that_leaves_as_the_second_attempt_answers_leaves_no_stream() -> None:
    lab = Lab()
    both = Both(lab, body=STREAM)
    answer = stream(8)
    asking = await both.begin(OOPS, answer)
    both.first.set()
    await turns(12)
    assert not asking.done()
    [second] = [task for task in asyncio.all_tasks() if "_try" in repr(task.get_coro())]
    second.add_done_callback(lambda _: asking.cancel())
    both.second.set()
    await turns(20)
    assert asking.cancelled()
    assert leases_of(lab.it) == 0
    assert answer.closed


async def test_a_client_that_leaves_while_only_the_second_attempt_runs_ends_it() -> None:
    lab = Lab()
    both = Both(lab, body=STREAM)
    asking = await both.begin(OOPS, RESCUED)
    both.first.set()
    await turns(12)
    await leave(lab, asking)


async def test_one_that_cannot_be_sent_elsewhere_does_not_hide_younger_ones() -> None:
    lab = Lab()
    upstream_of(lab.it).answers[:] = [OOPS, never]
    old = lab.send(STREAM)
    await turns(12)
    failed, at = (url[-2:] for url in lab.asked[-2:])
    assert failed != at
    young = await lab.hang(STREAM, at=at)
    await lab.answered(BY_SAME, at=at)
    for _ in range(20):
        await lab.look(1)
    assert young.done()
    await leave(lab, old)


async def test_a_request_that_was_hedged_before_the_models_were_changed_is_not_sent_a_third_time() -> None:
    lab = Lab(hedge_after_s=0.01)
    asking = await lab.hang(STREAM)
    routing = document(models=(model(("stable", 100), max_leases=500),))
    lab.it.update(snapshot(entry("r0"), entry("r1"), entry("r2"), routing=routing, version=2))
    upstream_of(lab.it).answers[:] = [never]
    lab.open("r1")
    await asyncio.sleep(0.05)
    assert lab.asked[-1] == "http://r1"
    await lab.answered(BY_SAME, at="r1")
    lab.open("r0", "r1", "r2")
    await lab.look()
    await leave(lab, asking)


async def test_a_second_attempt_that_fails_leaves_the_first_its_own_retry() -> None:
    lab = Lab()
    lab.it.update(snapshot(entry("r0"), entry("r1"), entry("r2"), routing=lab.routing, version=2))
    both = Both(lab, body=STREAM)
    asking = await both.begin(OOPS, OOPS)
    both.second.set()
    await turns(12)
    assert lab.it.budgets.taken == {"chat": 1}
    upstream_of(lab.it).answers[:] = [RESCUED]
    both.first.set()
    await turns(12)
    assert asking.result().body == RESCUED.parts[0]
    assert lab.asked[-1] == "http://r2"


async def test_what_both_fail_the_client_hears_from_the_first() -> None:
    lab = Lab()
    both = Both(lab, body=STREAM)
    asking = await both.begin(FakeResponse((b"<html>",)), OOPS)
    both.first.set()
    await turns(12)
    both.second.set()
    await turns(12)
    assert isinstance(asking.exception(), Unreadable)
    assert leases_of(lab.it) == 0
    assert lab.it.hedges.counts == {("chat", "stable", "lost"): 1}


async def test_a_stream_that_begins_with_an_error_waits_for_the_second_attempt() -> None:
    lab = Lab()
    both = Both(lab, body=STREAM)
    asking = await both.begin(ERROR_EVENT, RESCUED)
    both.first.set()
    await turns(12)
    both.second.set()
    await turns(12)
    assert asking.result().body == RESCUED.parts[0]


async def test_a_first_attempt_whose_replica_is_lost_waits_for_the_second() -> None:
    lab = Lab()
    both = Both(lab, body=STREAM)
    asking = await both.begin(OOPS, RESCUED)
    lab.it.update(snapshot(entry("r1"), routing=lab.routing, version=2))
    await turns(12)
    assert not asking.done()
    both.second.set()
    await turns(12)
    assert asking.result().body == RESCUED.parts[0]
    assert leases_of(lab.it) == 0


async def test_a_second_attempt_whose_replica_is_lost_changes_nothing() -> None:
    lab = Lab()
    both = Both(lab, body=STREAM)
    asking = await both.begin(RESCUED, OOPS)
    lab.it.update(snapshot(entry("r0"), routing=lab.routing, version=2))
    await turns(12)
    both.first.set()
    await turns(12)
    assert asking.result().body == RESCUED.parts[0]
    assert leases_of(lab.it) == 0


@pytest.mark.parametrize("body", [STREAM, WHOLE], ids=["stream", "whole"])
@pytest.mark.parametrize("hedge_after_s", [None, 0.01], ids=["overtaken", "hedged"])
async def test_what_both_answer_in_one_moment_is_charged_once(body: dict[str, Any], hedge_after_s: float | None) -> None:
    charged: list[object] = []
    released: list[None] = []
    permit = Permit(charge=charged.append, release=lambda: released.append(None))
    lab = Lab(hedge_after_s=hedge_after_s)
    both = Both(lab, body=body, permit=permit)

    def answer() -> FakeResponse:
        return stream(8) if body is STREAM else whole(8)

    if hedge_after_s is None:
        asking = await both.begin(answer(), answer())
    else:
        upstream_of(lab.it).answers[:] = [gate(both.first, answer()), gate(both.second, answer())]
        asking = asyncio.create_task(lab.it.relay(both.asked, lab.it.view.models["chat"]))
        await asyncio.sleep(0.05)
        assert len(lab.asked) == 2
    both.second.set()
    both.first.set()
    await turns(12)
    reply = asking.result()
    if body is WHOLE:
        assert len(charged) == 1
    else:
        assert not released  # the client reads on
        assert [piece async for piece in reply.body]
        assert len(charged) == len(released) == 1
    assert leases_of(lab.it) == 0


async def test_the_log_of_a_rescued_request_says_that_it_was_answered() -> None:
    lab = Lab()
    both = Both(lab, body=WHOLE)
    asking = await both.begin(OOPS, whole(8))
    both.second.set()
    await turns(12)
    assert asking.done()
    both.record.leave()
    assert both.record.outcome == "ok"


async def test_a_client_that_leaves_decides_nothing() -> None:
    lab = Lab()
    both = Both(lab, body=STREAM)
    asking = await both.begin(OOPS, RESCUED)
    await leave(lab, asking)
    assert not lab.it.hedges.counts
    assert lab.outcomes()[Outcome.CANCELLED] == 1


async def test_a_fault_of_the_routers_own_is_told(caplog: pytest.LogCaptureFixture) -> None:
    lab, may = Lab(), asyncio.Event()
    asking = await lab.begin(STREAM, gate(may, RESCUED), at="r0")
    await lab.answered(BY_SAME, at="r0")
    await lab.look(answer=KeyError("a bug"))
    may.set()
    await turns(12)
    assert asking.result().body == RESCUED.parts[0]
    assert "a bug" in caplog.text


async def test_a_second_attempt_belongs_to_its_own_request() -> None:
    lab = Lab()
    name = contextvars.ContextVar("name", default="none")
    seen: list[str] = []

    async def spy() -> FakeResponse:
        seen.append(name.get())
        return RESCUED

    name.set("starts the timer")
    other = await lab.hang(STREAM)
    name.set("is overtaken")
    asking = await lab.hang(STREAM)
    other.cancel()
    name.set("looks")
    await lab.answered(BY_SAME, at="r0")
    await lab.look(answer=spy)
    assert asking.done()
    assert seen == ["is overtaken"]


@pytest.mark.parametrize("is_up", [True, False], ids=["own-comes-up", "own-drains"])
async def test_who_answers_is_not_changed_by_a_look_that_sends_nothing(is_up: bool) -> None:
    it = gateway()
    routing = document(models=(model(("stable", 50), ("canary", 50), max_leases=9),))
    both = (entry("s0"), entry("c0", "canary"))
    it.update(snapshot(*(both[:1] if is_up else both), routing=routing))
    calls = (replace(call(f"user {i}"), body=STREAM, raw=b"{}", record=RequestRecord()) for i in range(100))
    asked = next(each for each in calls if it.view.variant(it.view.models["chat"], each.affinity) == "canary")
    may = asyncio.Event()
    upstream_of(it).answers[:] = [gate(may, whole(3))]
    asking = asyncio.create_task(it.relay(asked, it.view.models["chat"]))
    await turns(12)
    if is_up:
        it.update(snapshot(*both, routing=routing, version=2))
    else:
        it.pool.drain("c0")
    variants = it._relay._overtaken._variants.values()
    [wait] = [wait for variant in variants for replica in variant.replicas.values() for wait in replica.streams]
    assert not wait.rescue()
    may.set()
    await turns(12)
    assert asking.result().variant == asked.answerer.variant == ("stable" if is_up else "canary")
