from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from serve_app.attempts import Attempts
from serve_app.contracts import AdapterTag
from serve_app.gateway import Call, Gateway, Reply
from serve_app.observing.record import RequestOutcome, RequestRecord
from serve_app.rollout.document import RoutedModel, RoutedVariant
from serve_app.rollout.telemetry import Outcome
from serve_app.upstream import ReplicaDraining
from serve_app.usage import Usage
from serve_app.view import ANONYMOUS
from tests.unit.serve_app.adapting import LEGAL, adapted
from tests.unit.serve_app.continuing import FINAL, PROMPT, TEXTS, Engine, documents, text_of
from tests.unit.serve_app.fakes import (
    BROKEN,
    SSE,
    UNREACHED,
    Answer,
    FakeResponse,
    document,
    entry,
    gateway,
    leases_of,
    model,
    snapshot,
    turns,
    upstream_of,
)

BODY: dict[str, Any] = {
    "model": "chat",
    "stream": True,
    "temperature": 0,
    "max_tokens": 60,
    "messages": [{"role": "user", "content": "Hello"}],
}
COMMENT = b": continued on another replica\n\n"


def routed(*, is_on: bool = True, **changes: Any) -> RoutedModel:
    return model(("stable", 100)).model_copy(update={"continue_streams": is_on, **changes})


def ask(body: dict[str, Any] = BODY, *, path: str = "/v1/chat/completions") -> Call:
    raw = json.dumps(body).encode()
    return Call(path, body, raw, ANONYMOUS, request_id="q1", session_id="s1", record=RequestRecord())


def started(*answers: Answer, routed_as: RoutedModel | None = None, replicas: int = 3) -> Gateway:
    made = gateway(*answers)
    entries = [entry(f"r{number}") for number in range(replicas)]
    made.update(snapshot(*entries, routing=document(models=(routed_as or routed(),))))
    return made


def stream(*parts: bytes | Exception | asyncio.Event) -> FakeResponse:
    return FakeResponse(parts, content_type=SSE)


def first(place: int = 6, end: Exception = BROKEN, body: dict[str, Any] = BODY) -> FakeResponse:
    """Return a stream that breaks after so many events."""
    return stream(*Engine().events({**body, "return_token_ids": True})[:place], end)


def completion(tokens: int) -> FakeResponse:
    asked = {"prompt": [*PROMPT, *range(tokens)], "return_token_ids": True}
    return stream(*Engine().events(asked, stream_id="two"))


async def read(made: Gateway, call: Call) -> bytes:
    """Return what the client of a stream reads, which ends as fronts end it."""
    reply = await made.relay(call, made.view.models["chat"])
    return await drained(reply, call)


async def drained(reply: Reply, call: Call) -> bytes:
    assert not isinstance(reply.body, bytes)
    pieces = [piece async for piece in reply.body]
    await reply.body.aclose()
    call.record.close()
    return b"".join(pieces)


def outcomes(made: Gateway) -> dict[str, int]:
    return {str(outcome): count for outcome, count in made.attempts.stats(("chat", "stable")).outcomes.items() if count}


async def test_a_stream_whose_replica_dies_goes_on_at_another_one() -> None:
    made, call = started(first(6), completion(4)), ask()
    got = await read(made, call)
    assert (text_of(got), got.count(COMMENT), got[-14:]) == (FINAL, 1, b"data: [DONE]\n\n")
    assert b"error" not in got
    assert {each["id"] for each in documents(got)} == {"one"}
    asked = upstream_of(made)
    assert len(set(asked.asked)) == 2
    assert [(each.method, each.path, each.request_id) for each in asked.requests] == [
        ("POST", "/v1/chat/completions", "q1"),
        ("POST", "/v1/completions", "q1"),
    ]
    second = json.loads(asked.requests[1].body)
    assert (second["prompt"], second["max_tokens"], second["temperature"]) == ([*PROMPT, 0, 1, 2, 3], 56, 0)
    assert leases_of(made) == 0


async def test_the_first_attempt_is_broken_the_second_well_and_the_request_too() -> None:
    made, call = started(first(6), completion(4)), ask()
    await read(made, call)
    assert outcomes(made) == {"broken": 1, "ok": 1}
    assert (call.record.attempts, call.record.outcome) == ([Outcome.BROKEN, Outcome.OK], RequestOutcome.OK)
    assert (call.record.continued, call.record.usage) == (1, Usage(len(PROMPT), len(TEXTS)))
    assert made.attempts.stats(("chat", "stable")).ttft.total == 1  # the continuation's prompt is not a client's


async def test_without_the_option_requests_pass_untouched_and_a_break_is_an_error() -> None:
    made, call = started(first(6), completion(4), routed_as=routed(is_on=False)), ask()
    got = await read(made, call)
    assert b'"code": "stream_broken"' in got
    assert upstream_of(made).requests[0].body == call.raw
    assert len(upstream_of(made).requests) == 1


async def test_a_request_that_may_not_go_on_passes_untouched() -> None:
    call = ask({**BODY, "n": 2})
    made = started(first(6), completion(4))
    got = await read(made, call)
    assert upstream_of(made).requests[0].body == call.raw
    assert b"stream_broken" in got


async def test_token_ids_are_kept_from_a_client_that_did_not_ask() -> None:
    made = started(stream(*Engine().events({**BODY, "return_token_ids": True})))
    got = await read(made, ask())
    plain = Engine().events(BODY)
    assert documents(got) == documents(b"".join(plain))
    assert json.loads(upstream_of(made).requests[0].body)["return_token_ids"] is True


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(UNREACHED, id="unreached"),
        pytest.param(BROKEN, id="broken"),
        pytest.param(ReplicaDraining("r1"), id="draining"),
        pytest.param(FakeResponse((b"{}",), status=500), id="500"),
        pytest.param(stream(b"no event"), id="no-stream"),
        pytest.param(stream(b'data: {"error": {"code": 500}}\n\n'), id="error-event"),
    ],
)
async def test_a_continuation_that_does_not_begin_is_tried_at_one_more(failure: Answer) -> None:
    made, call = started(first(6), failure, completion(4)), ask()
    assert text_of(await read(made, call)) == FINAL
    assert len(set(upstream_of(made).asked)) == 3
    assert (call.record.continued, call.record.outcome, leases_of(made)) == (1, RequestOutcome.OK, 0)


async def test_two_that_do_not_begin_end_in_the_error() -> None:
    made, call = started(first(6), UNREACHED, replicas=9), ask()
    got = await read(made, call)
    assert (b"stream_broken" in got, got.count(COMMENT), len(upstream_of(made).asked)) == (True, 0, 3)
    assert (call.record.outcome, leases_of(made)) == (RequestOutcome.BROKEN, 0)


async def test_a_continuation_that_breaks_is_continued_once() -> None:
    pieces = Engine().events({"prompt": [*PROMPT, *range(4)], "return_token_ids": True}, stream_id="two")
    again = Engine().events({"prompt": [*PROMPT, *range(7)], "return_token_ids": True}, stream_id="three")
    made, call = started(first(6), stream(*pieces[:3], BROKEN), stream(*again)), ask()
    got = await read(made, call)
    assert (text_of(got), got.count(COMMENT), call.record.continued) == (FINAL, 2, 2)
    assert call.record.usage == Usage(len(PROMPT), len(TEXTS))
    broken = started(first(6), stream(*pieces[:3], BROKEN), replicas=9)
    got = await read(broken, ask())
    assert (b"stream_broken" in got, len(upstream_of(broken).asked)) == (True, 3)


async def test_an_engine_that_reports_its_failure_in_the_stream_is_followed_by_another() -> None:
    error = b'data: {"error": {"message": "EngineCore died", "type": "InternalServerError", "code": 500}}\n\n'
    pieces = Engine().events({**BODY, "return_token_ids": True})[:6]
    made, call = started(stream(*pieces, error, b"data: [DONE]\n\n"), completion(4)), ask()
    got = await read(made, call)
    assert (text_of(got), b"error" in got, outcomes(made)) == (FINAL, False, {"broken": 1, "ok": 1})


async def test_its_error_reaches_the_client_where_nobody_can_go_on() -> None:
    error = b'data: {"error": {"message": "EngineCore died", "type": "InternalServerError", "code": 500}}\n\n'
    pieces = Engine().events({**BODY, "return_token_ids": True})[:6]
    made, call = started(stream(*pieces, error), UNREACHED), ask()
    assert (await read(made, call)).endswith(error)
    assert call.record.outcome is RequestOutcome.BROKEN


async def test_a_stream_that_lacks_only_its_end_is_ended_by_the_router() -> None:
    body = {**BODY, "stream_options": {"include_usage": True}}
    whole = len(Engine().events(body))
    made, call = started(first(whole - 2, body=body)), ask(body)
    got = await read(made, call)
    assert (text_of(got), len(upstream_of(made).asked), got.count(COMMENT)) == (FINAL, 1, 0)
    assert documents(got)[-1]["usage"]["completion_tokens"] == len(TEXTS)
    assert (got[-14:], call.record.outcome) == (b"data: [DONE]\n\n", RequestOutcome.OK)


async def test_another_answer_than_the_one_begun_ends_in_an_error() -> None:
    body = {**BODY, "stop": ["never said"]}
    wrong = stream(b'data: {"choices": [{"index": 0, "text": "other", "token_ids": [1], "finish_reason": null}]}\n\n')
    made, call = started(first(20, body=body), wrong), ask(body)
    got = await read(made, call)
    assert (b"went on otherwise" in got, b'other"' in got) == (True, False)
    assert (call.record.outcome, leases_of(made)) == (RequestOutcome.BROKEN, 0)


async def test_a_variant_that_became_another_does_not_go_on_with_the_words_of_this_one() -> None:
    gate = asyncio.Event()
    made, call = started(stream(*Engine().events({**BODY, "return_token_ids": True})[:6], gate, BROKEN), completion(4)), ask()
    reading = asyncio.create_task(read(made, call))
    await turns()
    changed = RoutedVariant(name="stable", weight=100, max_leases=2, engine="vllm", revision="new")
    routing = document(models=(routed(variants=(changed,)),))
    made.update(snapshot(entry("r0"), entry("r1"), entry("r2"), routing=routing, version=2))
    gate.set()
    got = await reading
    assert (b"stream_broken" in got, len(upstream_of(made).asked)) == (True, 1)


async def test_a_chat_without_a_limit_goes_on_to_the_end_of_the_models_context() -> None:
    body = {name: value for name, value in BODY.items() if name != "max_tokens"}
    variants = (RoutedVariant(name="stable", weight=100, max_leases=2, engine="vllm", max_model_len=512),)
    made = started(first(6), completion(4), routed_as=routed(variants=variants))
    await read(made, ask(body))
    assert json.loads(upstream_of(made).requests[1].body)["max_tokens"] == 512 - len(PROMPT) - 4


async def test_an_engine_is_asked_for_its_context_where_the_configuration_does_not_say() -> None:
    body = {name: value for name, value in BODY.items() if name != "max_tokens"}
    cards = FakeResponse((json.dumps({"data": [{"id": "chat", "max_model_len": 300}]}).encode(),))
    made = started(first(6), cards, completion(4))
    assert text_of(await read(made, ask(body))) == FINAL
    asked = upstream_of(made).requests
    assert (asked[1].method, asked[1].path) == ("GET", "/v1/models")
    assert json.loads(asked[2].body)["max_tokens"] == 300 - len(PROMPT) - 4


@pytest.mark.parametrize("cards", [b"{}", b"no json", b'{"data": [{"id": "chat"}]}', b'{"data": [1]}'])
async def test_a_context_that_nobody_tells_is_an_error(cards: bytes) -> None:
    body = {name: value for name, value in BODY.items() if name != "max_tokens"}
    made = started(first(6), FakeResponse((cards,)))
    got = await read(made, ask(body))
    assert (b"stream_broken" in got, leases_of(made)) == (True, 0)


async def test_a_client_that_leaves_during_the_continuation_frees_all() -> None:
    waiting = stream(*completion(4).parts[:2], asyncio.Event())
    made, call = started(first(6), waiting), ask()
    reading = asyncio.create_task(read(made, call))
    await turns(20)
    assert leases_of(made) == 1
    reading.cancel()
    await asyncio.wait([reading])
    assert (waiting.closed, leases_of(made), outcomes(made)) == (1, 0, {"broken": 1, "cancelled": 1})
    assert call.record.usage == Usage(len(PROMPT), 6)


async def test_a_client_that_leaves_before_the_continuations_first_byte_frees_all() -> None:
    async def think() -> FakeResponse:
        await asyncio.Event().wait()
        raise AssertionError

    made, call = started(first(6), think), ask()
    reading = asyncio.create_task(read(made, call))
    await turns(20)
    assert leases_of(made) == 1
    reading.cancel()
    await asyncio.wait([reading])
    assert (leases_of(made), outcomes(made)) == (0, {"broken": 1, "cancelled": 1})


async def test_closing_a_stream_that_never_began_frees_all() -> None:
    response = first(6)
    made = started(response)
    reply = await made.relay(ask(), made.view.models["chat"])
    assert not isinstance(reply.body, bytes)
    await reply.body.aclose()
    assert (response.closed, leases_of(made)) == (1, 0)


async def test_the_only_replica_left_is_the_last_resort() -> None:
    made = started(first(6), completion(4), replicas=1)
    assert text_of(await read(made, ask())) == FINAL


def test_an_attempt_that_is_not_scored_counts_its_end() -> None:
    attempts = Attempts(clock=lambda: 1.0)
    attempt = attempts.begin(("chat", "stable"), began_s=0.0, is_stream=True)
    attempt.is_scored = False
    attempt.piece(b"data: {}\n\n")
    attempt.end(Outcome.OK)
    stats = attempts.stats(("chat", "stable"))
    assert (stats.ttft.total, stats.outcomes[Outcome.OK]) == (0, 1)


async def test_an_adapters_stream_goes_on_with_the_adapter_and_counts_for_it() -> None:
    made = started(first(6), completion(4), routed_as=adapted(routed()))
    callee = made.view.adapters[LEGAL]
    call = ask({**BODY, "model": LEGAL})
    got = await drained(await made.relay(call, callee.model, callee.adapter), call)
    assert text_of(got) == FINAL
    tags = [each.adapter for each in upstream_of(made).requests]
    assert tags == [AdapterTag("legal/v1", "/adapters/v1", "rev-v1")] * 2
    assert json.loads(upstream_of(made).requests[1].body)["model"] == LEGAL
    counted = made.attempts.stats((LEGAL, "v1"))
    assert (counted.outcomes[Outcome.BROKEN], counted.outcomes[Outcome.OK]) == (1, 1)


async def test_a_body_that_is_no_json_passes_untouched() -> None:
    made = started(first(6), completion(4))
    call = replace(ask(), content_type="multipart/form-data; boundary=x")
    await read(made, call)
    assert upstream_of(made).requests[0].body == call.raw


async def test_a_continuation_without_a_first_byte_in_time_is_late() -> None:
    async def think() -> FakeResponse:
        await asyncio.Event().wait()
        raise AssertionError

    late = first(6)
    made = started(late, think, completion(4), routed_as=routed())
    reply = await made.relay(call := ask(), made.view.models["chat"])
    made.update(snapshot(*made.pool.entries(), routing=document(models=(routed(first_byte_timeout_s=0.001),)), version=2))
    assert text_of(await drained(reply, call)) == FINAL
    assert outcomes(made) == {"broken": 1, "timeout": 1, "ok": 1}
