"""What one replica fails before the first byte, another one answers; as far as that helps and the budget goes."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from serve_app.call import Reply
from serve_app.config_router import RetryBudgetConfig
from serve_app.deadline import Deadline
from serve_app.engine_errors import Unreadable, UpstreamRejected
from serve_app.errors import DeadlineExceeded, PlatformError, Unavailable
from serve_app.gateway import Gateway
from serve_app.rollout.telemetry import Outcome
from serve_app.upstream import NoConnectionLeft, ReplicaDraining
from tests.unit.serve_app.fakes import (
    SSE,
    UNREACHED,
    Answer,
    FakeResponse,
    call,
    document,
    entry,
    gateway,
    leases_of,
    model,
    relay,
    snapshot,
    turns,
    upstream_of,
)

OK = FakeResponse((b"[1]",))
DONE = (b"data: {}\n\n", b"data: [DONE]\n\n")
NO_BUDGET = RetryBudgetConfig(ratio=0, min_per_s=0)


def failing(status: int = 500) -> FakeResponse:
    return FakeResponse((b"oops",), status=status)


def made(*answers: Answer, replicas: int = 3, **changes: Any) -> Gateway:
    it = gateway(*answers)
    it.update(snapshot(*(entry(f"r{i}") for i in range(replicas)), routing=document(**changes)))
    return it


def asked(it: Gateway) -> int:
    """Return how many replicas were asked. No one is asked twice."""
    urls = upstream_of(it).asked
    assert len(set(urls)) == len(urls)
    return len(urls)


def outcomes(it: Gateway) -> Counter[Outcome]:
    return it.attempts.stats(("chat", "stable")).outcomes


async def stream(it: Gateway) -> Reply:
    request = replace(call(), body={"model": "chat", "stream": True})
    return await it.relay(request, it.view.models["chat"])


async def refused(it: Gateway, kind: type[PlatformError]) -> None:
    with pytest.raises(kind):
        await relay(it)
    assert leases_of(it) == 0


@pytest.mark.parametrize("status", [500, 502, 503], ids=str)
async def test_another_replica_answers_what_one_failed(status: int) -> None:
    it = made(failing(status), OK)
    assert ((await relay(it)).body, asked(it), leases_of(it)) == (b"[1]", 2, 0)
    assert outcomes(it) == {Outcome.SERVER_ERROR: 1, Outcome.OK: 1}


async def test_a_request_that_fails_twice_does_not_go_to_a_third() -> None:
    it = made(failing(), failing(503), OK)
    await refused(it, UpstreamRejected)
    assert asked(it) == 2


async def test_the_only_replica_is_not_asked_again_for_what_it_failed() -> None:
    it = made(failing(), OK, replicas=1)
    await refused(it, UpstreamRejected)
    assert asked(it) == 1


async def test_another_replica_begins_a_stream_that_began_with_an_error() -> None:
    bad = FakeResponse((b'data: {"error": {"message": "CUDA"}}\n\n',), content_type=SSE)
    it = made(bad, FakeResponse(DONE, content_type=SSE))
    reply = await stream(it)
    assert not isinstance(reply.body, bytes)
    assert ([piece async for piece in reply.body], asked(it)) == ([*DONE], 2)


GARBAGE = [
    pytest.param(FakeResponse((b"<html>502</html>",), content_type=SSE), id="no-events"),
    pytest.param(FakeResponse((), content_type=SSE), id="empty-stream"),
    pytest.param(FakeResponse((b"<html>",)), id="no-json"),
    pytest.param(FakeResponse((b'{"choices": [',)), id="cut-off"),
    pytest.param(FakeResponse(()), id="empty-body"),
]


@pytest.mark.parametrize("answer", GARBAGE)
async def test_what_is_no_answer_is_asked_for_again(answer: FakeResponse) -> None:
    it = made(answer, OK)
    assert ((await relay(it)).body, asked(it), answer.closed) == (b"[1]", 2, 1)
    assert outcomes(it) == {Outcome.SERVER_ERROR: 1, Outcome.OK: 1}


async def test_a_replica_is_not_blamed_for_the_connections_that_a_router_lacks() -> None:
    it = made(NoConnectionLeft("Too many open files", was_sent=False), OK)
    assert ((await relay(it)).body, asked(it), leases_of(it)) == (b"[1]", 2, 0)
    assert outcomes(it) == {Outcome.OK: 1}
    assert not any(it.pool.ejected().values())


async def test_a_client_hears_that_an_answer_could_not_be_read() -> None:
    it = made(FakeResponse((b"\x00\x01",)), replicas=1)
    with pytest.raises(Unreadable, match="the engine's answer could not be read"):
        await relay(it)


async def test_another_replica_begins_what_one_did_not_begin_in_time() -> None:
    hung = FakeResponse((asyncio.Event(),), content_type=SSE)
    chat = model(("stable", 100)).model_copy(update={"first_byte_timeout_s": 0.001})
    it = made(hung, FakeResponse(DONE, content_type=SSE), models=(chat,))
    reply = await stream(it)
    assert (reply.variant, asked(it), outcomes(it)) == ("stable", 2, {Outcome.TIMEOUT: 1})


async def test_two_replicas_that_do_not_begin_are_enough() -> None:
    chat = model(("stable", 100)).model_copy(update={"first_byte_timeout_s": 0.001})
    it = made(*(FakeResponse((asyncio.Event(),), content_type=SSE) for _ in range(3)), models=(chat,))
    with pytest.raises(DeadlineExceeded):
        await stream(it)
    assert (asked(it), leases_of(it)) == (2, 0)


@pytest.mark.parametrize(
    ("failure", "kind"), [(failing(), UpstreamRejected), (UNREACHED, Unavailable)], ids=["5xx", "unreached"]
)
async def test_without_a_budget_the_first_failure_is_the_answer(failure: Answer, kind: type[PlatformError]) -> None:
    it = made(failure, OK, retry_budget=NO_BUDGET)
    await refused(it, kind)
    assert (asked(it), it.budgets.refused, it.budgets.taken) == (1, {"chat": 1}, {})


async def test_a_refusal_because_of_draining_needs_no_budget() -> None:
    it = made(ReplicaDraining("r1"), OK, retry_budget=NO_BUDGET)
    assert ((await relay(it)).body, asked(it)) == (b"[1]", 2)


async def test_failures_in_a_row_eject_and_a_gauge_shows_them() -> None:
    it = made(*[FakeResponse((b"oops",), status=500) for _ in range(10)], OK, replicas=2)
    for _ in range(5):
        await refused(it, UpstreamRejected)  # both replicas fail each of them, and the last one left is not ejected
    assert list(it.pool.ejected_by_variant().values()) == [1]


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
async def test_a_request_does_not_wait_for_a_replica_whose_heartbeats_stopped(is_stream: bool) -> None:
    hung = FakeResponse((asyncio.Event(),), content_type=SSE if is_stream else "application/json")
    good = FakeResponse(DONE, content_type=SSE) if is_stream else OK
    it = made(hung, good, retry_budget=NO_BUDGET)
    asking = asyncio.create_task(stream(it) if is_stream else relay(it))
    await turns()
    [frozen] = upstream_of(it).asked
    rest = [entry(f"r{i}") for i in range(3) if f"http://r{i}" != frozen]
    it.update(snapshot(*rest, version=2, routing=it.view.document))
    assert ((await asking).variant, asked(it), hung.closed) == ("stable", 2, 1)
    assert outcomes(it)[Outcome.UNREACHABLE] == 1


async def test_a_request_in_whose_course_replicas_fall_silent_is_not_handed_to_all_of_them() -> None:
    it = made(*[FakeResponse((asyncio.Event(),)) for _ in range(3)], OK, replicas=4)
    asking, left = asyncio.create_task(relay(it)), [f"r{i}" for i in range(4)]
    for version in (2, 3):
        await turns()
        left.remove(upstream_of(it).asked[-1].removeprefix("http://"))
        it.update(snapshot(*map(entry, left), version=version, routing=it.view.document))
    with pytest.raises(Unavailable):
        await asking
    assert (asked(it), leases_of(it)) == (2, 0)


async def test_a_client_that_leaves_frees_the_one_place_of_a_replica_on_trial() -> None:
    it = made(UNREACHED, FakeResponse((asyncio.Event(),)), OK, replicas=1)
    asking = asyncio.create_task(relay(it))
    await turns()
    asking.cancel()
    await asyncio.wait([asking])
    clock = it.attempts.clock
    clock.now_s += 2  # type: ignore[attr-defined]
    probing = asyncio.create_task(relay(it))
    await turns()
    assert not it.pool.can_take("chat", "stable")
    probing.cancel()
    await asyncio.wait([probing])
    assert ((await relay(it)).body, leases_of(it)) == (b"[1]", 0)


async def test_what_a_client_gave_too_little_time_is_no_failure_of_the_replica() -> None:
    it = made(failing(504), OK)
    clock = it.attempts.clock
    request = replace(call(), deadline=Deadline(clock() + 1, 1, clock))

    async def answer_late() -> FakeResponse:
        clock.now_s += 1  # type: ignore[attr-defined]
        return failing(504)

    upstream_of(it).answers.insert(0, answer_late)
    with pytest.raises(DeadlineExceeded, match="within its 1 s"):
        await it.relay(request, it.view.models["chat"])
    assert (asked(it), outcomes(it), it.pool.ejected()) == (1, {Outcome.CANCELLED: 1}, {})
