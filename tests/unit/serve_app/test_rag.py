from __future__ import annotations

import asyncio
import json
import threading
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app import rag
from serve_app.errors import BadRequest, EmptyCollection, UnknownModel
from serve_app.gateway import Call, Gateway, Reply
from serve_app.sse import ByteStream, error_event, event_document
from serve_app.view import ANONYMOUS
from tests.unit.serve_app.fakes import (
    PIPELINE,
    SSE,
    FakeResponse,
    FakeRetriever,
    document,
    entry,
    gateway,
    leases_of,
    snapshot,
    upstream_of,
)

CITATIONS = [
    {
        "number": 1,
        "document_id": "d",
        "title": "D",
        "headings": ["A", "B"],
        "start": 0,
        "end": 3,
        "score": 0.5,
        "text": "one",
    },
    {"number": 2, "document_id": "d", "title": "D", "headings": [], "start": 3, "end": 6, "score": 0.25, "text": "two"},
]
QUESTION = {"role": "user", "content": "Why?"}


def event(text: str, finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return b"data: " + json.dumps({"model": "chat", "choices": [choice], **more}).encode()


STREAM = (event("It"), event(" is é.\n\n"), event("", "stop"), b'data: {"choices": [], "usage": {}}', b"data: [DONE]")


async def ask(made: Gateway, *, path: str = "/v1/chat/completions", **body: Any) -> Reply:
    full = {"model": "docs", "messages": [QUESTION], **body}
    return await rag.ask(made, Call(path, full, b"raw", ANONYMOUS, request_id="q1"), PIPELINE)


def ready(*answers: FakeResponse, retriever: FakeRetriever | None = None) -> Gateway:
    made = gateway(*answers, retriever=retriever)
    made.update(snapshot(entry("r1")))
    return made


class Parts:
    """A stream cut into given parts."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = iter(parts)
        self.closed = 0

    def __aiter__(self) -> Parts:
        return self

    async def __anext__(self) -> bytes:
        if (part := next(self._parts, None)) is None:
            raise StopAsyncIteration
        return part

    async def aclose(self) -> None:
        self.closed += 1


async def read(stream: ByteStream) -> bytes:
    return b"".join([part async for part in stream])


async def cite(data: bytes, *cuts: int) -> bytes:
    ends = [0, *sorted(min(c, len(data)) for c in cuts), len(data)]
    return await read(rag.cite_stream(Parts([data[a:b] for a, b in pairwise(ends)]), "docs", CITATIONS))


async def test_the_model_is_asked_over_the_passages() -> None:
    made = ready()
    earlier = [{"role": "system", "content": "Brief."}]
    reply = await ask(made, messages=[*earlier, QUESTION], temperature=0)
    assert json.loads(upstream_of(made).requests[0].body) == {
        "model": "chat",
        "messages": [*earlier, {"role": "user", "content": "[1] D > B: one\n[2] D: two\nQ: Why?"}],
        "temperature": 0,
    }
    assert (reply.model, reply.variant, reply.pipeline_version) == ("chat", "stable", "v1")


async def test_the_retriever_is_asked_the_question() -> None:
    retriever = FakeRetriever()
    parts = [{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": 3}, {"type": "text", "text": "b"}]
    await ask(ready(retriever=retriever), messages=[{"role": "user", "content": parts}])
    [query] = retriever.queries
    assert (query.collection, query.embedder, query.text, query.top_k) == ("books", "minilm", "a\nb", 5)


async def test_a_whole_answer_carries_the_citations() -> None:
    reply = await ask(ready(FakeResponse((b'{"model": "chat", "choices": [{"x": 1}]}',))))
    assert isinstance(reply.body, bytes)
    assert json.loads(reply.body) == {"model": "docs", "choices": [{"x": 1}], "citations": CITATIONS}


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b"{}", {"model": "docs", "citations": CITATIONS}),
        (b"[1]", [1]),
        (b'"x"', "x"),
    ],
    ids=["no-choices", "list", "text"],
)
async def test_answers_of_any_shape_survive(body: bytes, answer: object) -> None:
    reply = await ask(ready(FakeResponse((body,))))
    assert isinstance(reply.body, bytes)
    assert json.loads(reply.body) == answer


async def test_an_answer_that_is_no_json_is_left_alone() -> None:
    assert (await ask(ready(FakeResponse((b"<html>",))))).body == b"<html>"


async def test_a_stream_carries_the_citations_where_the_answer_ends() -> None:
    made = ready(FakeResponse([e + b"\n\n" for e in STREAM], content_type=SSE))
    reply = await ask(made, stream=True)
    assert not isinstance(reply.body, bytes)
    events = (await read(reply.body)).split(b"\n\n")
    documents = [event_document(e) for e in events]
    assert events[-2:] == [b"data: [DONE]", b""]
    assert [d and d["model"] for d in documents] == ["docs"] * 4 + [None] * 2
    assert [d and d.get("citations") for d in documents] == [None, None, CITATIONS, None, None, None]
    assert leases_of(made) == 0


@pytest.mark.parametrize("separator", [b"\n\n", b"\r\n\r\n"], ids=["lf", "crlf"])
@settings(deadline=None)
@given(cuts=st.lists(st.integers(0, 500), max_size=12))
def test_citing_does_not_depend_on_how_the_stream_is_cut(separator: bytes, cuts: list[int]) -> None:
    data = separator.join(STREAM) + separator
    assert asyncio.run(cite(data, *cuts)) == asyncio.run(cite(data))


async def test_a_last_event_that_never_ends_is_cited_too() -> None:
    assert event_document(await cite(event("", "stop"))) == {
        "model": "docs",
        "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}],
        "citations": CITATIONS,
    }
    assert await cite(b'data: {"model') == b'data: {"model'


@pytest.mark.parametrize(
    "data", [error_event("broke"), b": ping\n\n", b"data: {oops\n\n", b"data: [1]\n\n"], ids=["error", "ping", "cut", "list"]
)
async def test_what_is_no_part_of_the_answer_passes_untouched(data: bytes) -> None:
    assert await cite(data) == data


@pytest.mark.parametrize("choices", ["null", "3", "[4]", "{}"])
async def test_choices_of_any_shape_pass(choices: str) -> None:
    assert b"citations" not in await cite(b'data: {"choices": ' + choices.encode() + b"}\n\n")


async def test_closing_before_the_first_byte_closes_the_inner_stream() -> None:
    made = ready(FakeResponse((b"data: 1\n\n",), content_type=SSE))
    reply = await ask(made, stream=True)
    assert not isinstance(reply.body, bytes)
    assert leases_of(made) == 1
    await reply.body.aclose()
    assert leases_of(made) == 0


async def test_the_conversation_is_that_of_the_request_as_sent() -> None:
    """The passages of each question differ; were they part of the key, a chat would move between variants."""
    made = ready()
    seen: list[str] = []
    view = made.view
    call = Call("/v1/chat/completions", {"model": "docs", "messages": [QUESTION]}, b"", ANONYMOUS, request_id="q1")
    inner = rag._InnerCall.of(call, {"model": "chat", "messages": [{"role": "user", "content": "changed"}]})
    seen = [view.variant(view.models["chat"], c.affinity) for c in (call, inner)]
    assert (inner.affinity, seen[0]) == (call.affinity, seen[1])


async def test_an_empty_collection_is_reported() -> None:
    with pytest.raises(EmptyCollection, match="manta ingest PATH --collection books"):
        await ask(ready(retriever=FakeRetriever(error=EmptyCollection("books"))))


async def test_nothing_found_is_no_error() -> None:
    made = ready(FakeResponse((b"{}",)), retriever=FakeRetriever(hits=()))
    reply = await ask(made)
    assert isinstance(reply.body, bytes)
    assert json.loads(reply.body)["citations"] == []


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/responses?x=1"])
async def test_a_pipeline_is_called_as_a_chat_only(path: str) -> None:
    with pytest.raises(BadRequest, match="called through /v1/chat/completions"):
        await ask(ready(), path=path)


async def test_a_query_string_does_not_matter() -> None:
    await ask(ready(), path="/v1/chat/completions?trace=1")


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (None, "non-empty list of messages"),
        ([], "non-empty list of messages"),
        (["x"], "non-empty list of messages"),
        ([QUESTION, {"role": "assistant", "content": "x"}], "must be the user's question"),
        ([{"role": "user"}], "non-empty string"),
        ([{"role": "user", "content": " "}], "non-empty string"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "non-empty string"),
        ([{"role": "user", "content": "\ud800"}], "valid Unicode"),
    ],
    ids=["missing", "empty", "no-object", "not-user", "no-content", "blank", "image-only", "surrogate"],
)
async def test_messages_must_end_in_a_question(messages: object, message: str) -> None:
    with pytest.raises(BadRequest, match=message) as caught:
        await ask(ready(), messages=messages)
    assert caught.value.param == "messages"


async def test_rendering_does_not_run_on_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []

    def render(*_: object) -> str:
        threads.append(threading.current_thread())
        return "asked"

    monkeypatch.setattr("serve_app.view.render_prompt", render)
    await ask(ready())
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


async def test_a_model_that_goes_while_passages_are_searched_is_unknown() -> None:
    made = gateway()

    class Removing(FakeRetriever):
        async def search(self, query: Any) -> Any:
            made.update(snapshot(routing=document(models=(), pipelines=()), version=2))
            return []

    object.__setattr__(made.stages, "retriever", Removing())
    made.update(snapshot())
    with pytest.raises(UnknownModel, match="'docs'"):
        await ask(made)
