"""The baseline answers what a variant on trial has failed, as long as the client has heard nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest

from serve_app.call import Call, Reply
from serve_app.engine_errors import UpstreamRejected
from serve_app.errors import DeadlineExceeded, ErrorKind, PlatformError
from serve_app.gateway import Gateway
from serve_app.rollout.document import RoutingDocument, declared_split
from serve_app.rollout.table import Share, TrafficTable
from serve_app.rollout.telemetry import Outcome
from tests.unit.serve_app.fakes import (
    BROKEN,
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
    upstream_of,
)

CANARY_URL, STABLE_URL = "http://c1", "http://r1"
BODY = b'{"choices": []}'
EVENTS = (b'data: {"choices": []}\n\n', b"data: [DONE]\n\n")
OPENAI_ERROR = b'data: {"error": {"message": "CUDA out of memory"}}\n\n'
ANTHROPIC_ERROR = b'event: error\ndata: {"type": "error", "error": {"type": "api_error"}}\n\n'
FAILED, SWITCHED = Outcome.SERVER_ERROR, {"canary": "server_error", "stable": "ok"}


def routing(**changes: Any) -> RoutingDocument:
    return document(models=(model(("stable", 50), ("canary", 50)).model_copy(update=changes),))


def made(*answers: Answer, **changes: Any) -> Gateway:
    """Return a gateway with a replica of each variant."""
    it = gateway(*answers)
    it.update(snapshot(entry("r1"), entry("c1", "canary"), routing=routing(**changes)))
    return it


def asks(it: Gateway, owner: str = "canary", *, is_stream: bool = False) -> Call:
    """Return a call of a conversation that a variant owns."""
    chat = it.view.models["chat"]
    session = next(s for s in (f"s{i}" for i in range(1000)) if it.view.variant(chat, call(s).affinity) == owner)
    return replace(call(session), body={"model": "chat", "stream": is_stream}, raw=b'{"model": "chat"}')


def send(it: Gateway, request: Call) -> Coroutine[Any, Any, Reply]:
    return it.relay(request, it.view.models["chat"])


async def received(reply: Reply) -> bytes:
    return reply.body if isinstance(reply.body, bytes) else b"".join([piece async for piece in reply.body])


def outcomes(it: Gateway) -> dict[str, str]:
    """Return what became of the one attempt at each variant, as far as it has ended."""
    counted = {variant: stats.outcomes for (_, variant), stats in it.attempts.take().items()}
    assert all(sum(counter.values()) <= 1 for counter in counted.values())
    return {variant: outcome.value for variant, counter in counted.items() for outcome in counter}


def withdrawn(it: Gateway) -> None:
    """Roll the canary back, as Rollouts would tell it."""
    [chat] = it.view.document.models
    shares = (Share(variant="stable", weight=100), Share(variant="canary", weight=0, is_withdrawn=True))
    split = declared_split(chat).model_copy(update={"shares": shares})
    others = tuple(each for each in it.view.table.splits if each.name != "chat")
    traffic = TrafficTable(version=9, splits=(split, *others)).model_dump_json()
    entries = (entry("r1"), entry("c1", "canary"))
    it.update(replace(snapshot(*entries, routing=it.view.document, version=2), traffic=traffic))


def fails(*parts: bytes | Exception, status: int = 200) -> FakeResponse:
    return FakeResponse(parts, status=status, content_type=SSE)


def good(is_stream: bool) -> FakeResponse:
    return FakeResponse(EVENTS, content_type=SSE) if is_stream else FakeResponse((BODY,))


def text(is_stream: bool) -> bytes:
    return b"".join(EVENTS) if is_stream else BODY


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("status", [500, 502, 503], ids=str)
async def test_the_baseline_answers_what_the_canary_failed(status: int, is_stream: bool) -> None:
    it = made(FakeResponse((b"oops",), status=status), good(is_stream))
    request = asks(it, is_stream=is_stream)
    reply = await send(it, request)
    assert (reply.variant, request.answerer.variant, await received(reply)) == ("stable", "stable", text(is_stream))
    assert (upstream_of(it).asked, outcomes(it), leases_of(it)) == ([CANARY_URL, STABLE_URL], SWITCHED, 0)


@pytest.mark.parametrize("error", [OPENAI_ERROR, ANTHROPIC_ERROR], ids=["openai", "anthropic"])
async def test_the_baseline_answers_when_a_stream_begins_with_an_error(error: bytes) -> None:
    first = fails(error, b"data: [DONE]\n\n")
    it = made(first, good(is_stream=True))
    reply = await send(it, asks(it, is_stream=True))
    assert (reply.variant, await received(reply), first.closed) == ("stable", text(is_stream=True), 1)
    assert (outcomes(it), leases_of(it)) == (SWITCHED, 0)


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
async def test_the_baseline_answers_when_the_canary_cannot_be_reached(is_stream: bool) -> None:
    it = made(BROKEN, good(is_stream))
    reply = await send(it, asks(it, is_stream=is_stream))
    assert (reply.variant, await received(reply)) == ("stable", text(is_stream))
    assert (outcomes(it), leases_of(it)) == ({"canary": "unreachable", "stable": "ok"}, 0)


async def test_another_replica_of_a_canary_that_failed_is_not_tried() -> None:
    it = gateway(FakeResponse(status=500), FakeResponse())
    entries = (entry("r1"), entry("c1", "canary"), entry("c2", "canary"))
    it.update(snapshot(*entries, routing=routing()))
    assert (await send(it, asks(it))).variant == "stable"
    assert upstream_of(it).asked[1:] == [STABLE_URL]


async def test_when_both_fail_the_client_hears_of_the_baselines_failure() -> None:
    it = made(FakeResponse(status=500), FakeResponse(status=503))
    with pytest.raises(UpstreamRejected) as caught:
        await send(it, asks(it))
    assert (caught.value.kind, upstream_of(it).asked) == (ErrorKind.UNAVAILABLE, [CANARY_URL, STABLE_URL])
    assert (outcomes(it), leases_of(it)) == ({"canary": "server_error", "stable": "server_error"}, 0)


async def refused(it: Gateway, request: Call) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        await send(it, request)
    assert leases_of(it) == 0
    return caught.value


async def test_without_fallback_the_failure_is_the_answer() -> None:
    it = made(FakeResponse(status=500), FakeResponse(), fallback=False)
    assert (await refused(it, asks(it))).kind is ErrorKind.INTERNAL
    assert (upstream_of(it).asked, outcomes(it)) == ([CANARY_URL], {"canary": "server_error"})


async def test_without_fallback_an_error_event_is_passed_on_and_counted() -> None:
    it = made(fails(OPENAI_ERROR), fallback=False)
    reply = await send(it, asks(it, is_stream=True))
    assert (reply.variant, await received(reply), outcomes(it)) == ("canary", OPENAI_ERROR, {"canary": "broken"})


async def test_the_canary_never_answers_for_the_baseline() -> None:
    it = made(FakeResponse(status=500), FakeResponse())
    assert (await refused(it, asks(it, "stable"))).kind is ErrorKind.INTERNAL
    assert (upstream_of(it).asked, outcomes(it)) == ([STABLE_URL], {"stable": "server_error"})


async def test_a_baseline_without_replicas_answers_nothing() -> None:
    it = gateway(FakeResponse(status=500), FakeResponse())
    it.update(snapshot(entry("c1", "canary"), routing=routing()))
    assert (await refused(it, asks(it))).kind is ErrorKind.INTERNAL
    assert upstream_of(it).asked == [CANARY_URL]


@pytest.mark.parametrize("status", [400, 404, 413, 422, 429], ids=str)
async def test_a_request_that_is_at_fault_is_refused_at_once(status: int) -> None:
    it = made(FakeResponse((b'{"error": {"message": "too long"}}',), status=status), FakeResponse())
    await refused(it, asks(it))
    assert (upstream_of(it).asked, outcomes(it)) == ([CANARY_URL], {"canary": "rejected"})


async def test_a_variant_that_a_pipeline_names_is_not_replaced() -> None:
    it = made(FakeResponse(status=500), FakeResponse())
    assert (await refused(it, replace(asks(it, "stable"), variant="canary"))).kind is ErrorKind.INTERNAL
    assert upstream_of(it).asked == [CANARY_URL]


async def test_a_variant_that_the_client_was_told_is_not_replaced() -> None:
    it = made(FakeResponse(status=500), FakeResponse())
    request = asks(it)
    request.answerer.told_variant = "canary"
    assert (await refused(it, request)).kind is ErrorKind.INTERNAL
    assert upstream_of(it).asked == [CANARY_URL]


async def test_after_its_first_byte_a_stream_breaks_where_it_is() -> None:
    it = made(fails(EVENTS[0], BROKEN), good(is_stream=True))
    reply = await send(it, asks(it, is_stream=True))
    body = await received(reply)
    assert (reply.variant, body.startswith(EVENTS[0]), b"error" in body, outcomes(it)) == (
        "canary",
        True,
        True,
        {"canary": "broken"},
    )


def hanging(*parts: bytes | Exception | asyncio.Event, is_stream: bool = True) -> FakeResponse:
    return FakeResponse((asyncio.Event(), *parts), content_type=SSE if is_stream else "application/json")


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
async def test_a_canary_that_hangs_gives_its_requests_back_when_it_is_withdrawn(is_stream: bool) -> None:
    hung = hanging(is_stream=is_stream)
    it = made(hung, good(is_stream))
    asking = asyncio.create_task(send(it, asks(it, is_stream=is_stream)))
    await turns()
    assert (asking.done(), upstream_of(it).asked) == (False, [CANARY_URL])
    withdrawn(it)
    reply = await asking
    assert (reply.variant, await received(reply), hung.closed) == ("stable", text(is_stream), 1)
    assert (outcomes(it), leases_of(it)) == ({"canary": "abandoned", "stable": "ok"}, 0)


async def test_a_canary_that_has_not_even_answered_gives_its_requests_back_too() -> None:
    async def never() -> FakeResponse:
        await asyncio.Event().wait()
        raise AssertionError

    it = made(never, FakeResponse())
    asking = asyncio.create_task(send(it, asks(it)))
    await turns()
    withdrawn(it)
    assert ((await asking).variant, outcomes(it), leases_of(it)) == ("stable", {"canary": "abandoned", "stable": "ok"}, 0)


async def test_a_stream_that_has_begun_stays_with_a_canary_that_is_withdrawn() -> None:
    more = asyncio.Event()
    it = made(FakeResponse((EVENTS[0], more, EVENTS[1]), content_type=SSE))
    reply = await send(it, asks(it, is_stream=True))
    withdrawn(it)
    more.set()
    assert (await received(reply), outcomes(it)) == (text(is_stream=True), {"canary": "ok"})


async def test_the_baseline_answers_for_a_stream_that_ended_empty() -> None:
    it = made(fails(), good(is_stream=True))
    reply = await send(it, asks(it, is_stream=True))
    assert (await received(reply), outcomes(it), leases_of(it)) == (text(is_stream=True), SWITCHED, 0)


@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "fallback-off"])
async def test_what_nobody_else_may_answer_waits_on_for_a_withdrawn_canary(pinned: bool) -> None:
    hung = asyncio.Event()
    it = made(FakeResponse((hung, BODY)), fallback=pinned)
    request = replace(asks(it), variant="canary" if pinned else None)
    asking = asyncio.create_task(send(it, request))
    await turns()
    withdrawn(it)
    await turns()
    assert not asking.done()
    hung.set()
    assert (await asking).variant == "canary"


async def test_after_a_withdrawal_the_canarys_conversations_are_the_baselines() -> None:
    it = made(FakeResponse((BODY,)))
    request = asks(it)
    withdrawn(it)
    assert (await send(it, request)).variant == "stable"


async def test_the_baseline_answers_a_stream_that_does_not_begin_in_time() -> None:
    hung = hanging()
    it = made(hung, FakeResponse(EVENTS, content_type=SSE), first_byte_timeout_s=0.001)
    reply = await send(it, asks(it, is_stream=True))
    assert (reply.variant, await received(reply), hung.closed) == ("stable", text(is_stream=True), 1)
    assert (outcomes(it), leases_of(it)) == ({"canary": "timeout", "stable": "ok"}, 0)


async def test_a_stream_that_nobody_begins_in_time_is_refused() -> None:
    it = made(hanging(), hanging(), first_byte_timeout_s=0.001)
    assert isinstance(await refused(it, asks(it, is_stream=True)), DeadlineExceeded)
    assert outcomes(it) == {"canary": "timeout", "stable": "timeout"}


async def test_a_whole_answer_has_no_first_byte_to_wait_for() -> None:
    slow = asyncio.Event()
    it = made(FakeResponse((slow, BODY)), first_byte_timeout_s=0.0)
    asking = asyncio.create_task(send(it, asks(it)))
    await turns(10)
    slow.set()
    assert ((await asking).variant, outcomes(it)) == ("canary", {"canary": "ok"})


async def test_a_client_that_leaves_a_hanging_canary_is_no_failure_of_it() -> None:
    it = made(hanging(), FakeResponse())
    asking = asyncio.create_task(send(it, asks(it, is_stream=True)))
    await turns()
    asking.cancel()
    await asyncio.wait([asking])
    assert (outcomes(it), leases_of(it), upstream_of(it).asked) == ({"canary": "cancelled"}, 0, [CANARY_URL])


async def test_both_attempts_are_counted_for_their_variant() -> None:
    it = made(FakeResponse(status=500), FakeResponse((BODY,)))
    await send(it, asks(it))
    counted = {key: stats.outcomes for key, stats in it.attempts.take().items()}
    assert counted == {("chat", "canary"): Counter({FAILED: 1}), ("chat", "stable"): Counter({Outcome.OK: 1})}


async def test_a_request_that_queued_at_a_hung_canary_is_not_sent_there_after_it_was_withdrawn() -> None:
    hung = asyncio.Event()

    async def hang() -> FakeResponse:
        await hung.wait()
        return FakeResponse()

    it = made(hang, hang, FakeResponse((BODY,)))
    asking = [asyncio.create_task(send(it, asks(it))) for _ in range(4)]  # two have places, two queue
    await turns(5)
    assert (upstream_of(it).asked, it.pool.waiting()) == ([CANARY_URL] * 2, 2)
    withdrawn(it)
    replies = await asyncio.wait_for(asyncio.gather(*asking), 5)
    assert [reply.variant for reply in replies] == ["stable"] * 4
    assert (upstream_of(it).asked[2:], leases_of(it)) == ([STABLE_URL] * 4, 0)
