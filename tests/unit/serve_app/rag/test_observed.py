from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from serve_app.errors import EmptyCollection, Forbidden, PlatformError
from serve_app.gateway import Call, Gateway
from serve_app.rag.chain import ask
from serve_app.rollout.telemetry import Outcome
from serve_app.view import ANONYMOUS
from tests.unit.serve_app.fakes import (
    PIPELINE,
    SSE,
    FakeResponse,
    FakeRetriever,
    entry,
    gateway,
    leases_of,
    snapshot,
)

KEY = ("docs", "v1")
QUESTION: dict[str, Any] = {"model": "docs", "messages": [{"role": "user", "content": "Why?"}]}
ANSWER = b'{"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "one"}}]}'
EVENTS = (
    b'data: {"choices": [{"index": 0, "delta": {"content": "one"}, "finish_reason": null}]}\n\n',
    b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n',
)


def asking(answer: FakeResponse, *, retriever: FakeRetriever | None = None) -> Gateway:
    made = gateway(answer, retriever=retriever)
    made.update(snapshot(entry()))
    return made


def question(**more: Any) -> Call:
    body = {**QUESTION, **more}
    return Call("/v1/chat/completions", body, json.dumps(body).encode(), ANONYMOUS, request_id="q1")


async def pieces(stream: AsyncIterator[bytes]) -> list[bytes]:
    return [piece async for piece in stream]


async def test_an_answer_counts_for_the_version_and_for_the_variant() -> None:
    made = asking(FakeResponse((ANSWER,)))
    await ask(made, question(), PIPELINE)
    taken = made.attempts.take()
    assert {key: stats.outcomes for key, stats in taken.items()} == {
        KEY: Counter({Outcome.OK: 1}),
        ("chat", "stable"): Counter({Outcome.OK: 1}),
    }
    assert taken[KEY].e2e.total == 1


async def test_a_stream_counts_when_it_has_ended() -> None:
    made = asking(FakeResponse(EVENTS, content_type=SSE))
    reply = await ask(made, question(stream=True), PIPELINE)
    assert KEY not in made.attempts.take()
    assert not isinstance(reply.body, bytes)
    await pieces(reply.body)
    stats = made.attempts.take()[KEY]
    assert (stats.outcomes, stats.ttft.total, stats.finish_reasons) == (Counter({Outcome.OK: 1}), 1, Counter({"stop": 1}))


async def test_a_client_that_leaves_a_stream_is_no_fault_of_the_version() -> None:
    made = asking(FakeResponse((EVENTS[0], asyncio.Event()), content_type=SSE))
    reply = await ask(made, question(stream=True), PIPELINE)
    assert not isinstance(reply.body, bytes)
    await anext(reply.body)
    await reply.body.aclose()
    assert (made.attempts.take()[KEY].outcomes, leases_of(made)) == (Counter({Outcome.CANCELLED: 1}), 0)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        pytest.param(EmptyCollection("books"), Outcome.SERVER_ERROR, id="the-version's-fault"),
        pytest.param(Forbidden("no"), Outcome.REJECTED, id="the-request's-fault"),
    ],
)
async def test_an_error_counts_for_whoever_is_to_blame(error: PlatformError, outcome: Outcome) -> None:
    made = asking(FakeResponse(), retriever=FakeRetriever(error=error))
    with pytest.raises(type(error)):
        await ask(made, question(), PIPELINE)
    assert made.attempts.take()[KEY].outcomes == Counter({outcome: 1})
