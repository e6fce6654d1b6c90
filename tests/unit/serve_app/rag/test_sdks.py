"""What real SDKs make of a pipeline's answers: a model's and our own, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from serve_app import rag
from serve_app.gateway import Call, Gateway
from serve_app.view import ANONYMOUS
from tests.unit.serve_app.fakes import SSE, FakeResponse, FakeRetriever
from tests.unit.serve_app.rag.asking import (
    CHAT,
    CITATIONS,
    COMPLETIONS,
    MESSAGES,
    QUESTIONS,
    RESPONSES,
    RETRIEVAL,
    STREAMS,
    ready,
    whole_answer,
)

MODES = ["answered", "refused"]
TEXT = {"answered": "It is.", "refused": "Nothing."}
STREAMED = {"answered": "It is é.", "refused": "Nothing."}
CITED = {"answered": CITATIONS, "refused": []}


def gateway_for(mode: str, path: str, *, is_stream: bool = False) -> Gateway:
    answer = FakeResponse([STREAMS[path]], content_type=SSE) if is_stream else whole_answer(path)
    retriever = FakeRetriever() if mode == "answered" else FakeRetriever(hits=())
    return ready(answer, retriever=retriever, no_passages="refuse", refusal="Nothing.")


def transport(made: Gateway) -> httpx2.AsyncClient:
    """Return an HTTP client whose server is the chain."""

    async def serve(request: httpx2.Request) -> httpx2.Response:
        raw = await request.aread()
        call = Call(request.url.raw_path.decode(), json.loads(raw), raw, ANONYMOUS, request_id="q1")
        reply = await rag.ask(made, call, made.view.pipelines["docs"])
        return httpx2.Response(200, headers={"content-type": reply.content_type}, content=reply.body)

    return httpx2.AsyncClient(transport=httpx2.MockTransport(serve))


@pytest.fixture
async def clients() -> AsyncIterator[Any]:
    """Return a factory of clients: of OpenAI's SDK, or for messages of Anthropic's."""
    made: list[Any] = []

    def client(mode: str, path: str, *, is_stream: bool = False) -> Any:
        http = transport(gateway_for(mode, path, is_stream=is_stream))
        if path == MESSAGES:
            made.append(anthropic.AsyncAnthropic(api_key="x", base_url="http://manta", http_client=http))
        else:
            made.append(
                openai.AsyncOpenAI(api_key="x", base_url="http://manta/v1", http_client=http, _strict_response_validation=True)
            )
        return made[-1]

    yield client
    for one in made:
        await one.close()


@pytest.mark.parametrize("mode", MODES)
async def test_openai_reads_a_whole_chat(clients: Any, mode: str) -> None:
    answer = await clients(mode, CHAT).chat.completions.create(
        model="docs", **QUESTIONS[CHAT], extra_body={"retrieval": {"top_k": 2}}
    )
    assert (answer.model, answer.choices[0].message.content) == ("docs", TEXT[mode])
    assert answer.model_extra == {"citations": CITED[mode], "retrieval": {**RETRIEVAL, "top_k": 2}}


@pytest.mark.parametrize("mode", MODES)
async def test_openai_reads_a_chat_stream(clients: Any, mode: str) -> None:
    client = clients(mode, CHAT, is_stream=True)
    stream = await client.chat.completions.create(model="docs", stream=True, **QUESTIONS[CHAT])
    chunks = [chunk async for chunk in stream]
    last = next(c for c in chunks if c.choices and c.choices[0].finish_reason)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices).strip() == STREAMED[mode]
    assert last.model_extra == {"citations": CITED[mode], "retrieval": RETRIEVAL}
    assert {chunk.model for chunk in chunks} == {"docs"}


@pytest.mark.parametrize("mode", MODES)
async def test_openai_reads_a_whole_completion(clients: Any, mode: str) -> None:
    answer = await clients(mode, COMPLETIONS).completions.create(model="docs", prompt="Why?")
    assert (answer.model, answer.choices[0].text, answer.citations) == ("docs", TEXT[mode], CITED[mode])


@pytest.mark.parametrize("mode", MODES)
async def test_openai_reads_a_whole_response(clients: Any, mode: str) -> None:
    answer = await clients(mode, RESPONSES).responses.create(model="docs", input="Why?")
    assert (answer.model, answer.output_text, answer.status) == ("docs", TEXT[mode], "completed")
    assert answer.model_extra == {"citations": CITED[mode], "retrieval": RETRIEVAL}


@pytest.mark.parametrize("mode", MODES)
async def test_openai_accumulates_a_response_stream(clients: Any, mode: str) -> None:
    async with clients(mode, RESPONSES, is_stream=True).responses.stream(model="docs", input="Why?") as stream:
        seen = [event.type async for event in stream]
        answer = await stream.get_final_response()
    assert (answer.model, answer.output_text) == ("docs", STREAMED[mode])
    assert (answer.citations, answer.retrieval) == (CITED[mode], RETRIEVAL)
    assert (seen[0], seen[-1]) == ("response.created", "response.completed")


@pytest.mark.parametrize("mode", MODES)
async def test_anthropic_reads_a_whole_message(clients: Any, mode: str) -> None:
    answer = await clients(mode, MESSAGES).messages.create(model="docs", **QUESTIONS[MESSAGES])
    assert (answer.model, answer.content[0].text, answer.stop_reason) == ("docs", TEXT[mode], "end_turn")
    assert answer.model_extra == {"citations": CITED[mode], "retrieval": RETRIEVAL}


@pytest.mark.parametrize("mode", MODES)
async def test_anthropic_accumulates_a_message_stream(clients: Any, mode: str) -> None:
    async with clients(mode, MESSAGES, is_stream=True).messages.stream(model="docs", **QUESTIONS[MESSAGES]) as stream:
        events = [event async for event in stream]
        answer = await stream.get_final_message()
    [delta] = [event for event in events if event.type == "message_delta"]
    assert (answer.model, answer.content[0].text, answer.stop_reason) == ("docs", STREAMED[mode], "end_turn")
    assert (delta.citations, delta.retrieval) == (CITED[mode], RETRIEVAL)


@pytest.mark.parametrize("mode", MODES)
async def test_anthropic_reads_raw_events(clients: Any, mode: str) -> None:
    client = clients(mode, MESSAGES, is_stream=True)
    events = [e async for e in await client.messages.create(model="docs", stream=True, **QUESTIONS[MESSAGES])]
    assert [e.type for e in events if e.type != "content_block_delta"] == [
        "message_start",
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
