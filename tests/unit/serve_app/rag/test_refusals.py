"""Answers that no model gives, in every wire form."""

from __future__ import annotations

import pytest

from serve_app.errors import EmptyCollection
from serve_app.rag.chain import FORMS
from tests.unit.serve_app.fakes import FakeRetriever, upstream_of
from tests.unit.serve_app.rag.asking import CHAT, COMPLETIONS, PATHS, RETRIEVAL, ask, events, holders, read, ready, whole

FOUND_NOTHING = [FakeRetriever(hits=()), FakeRetriever(error=EmptyCollection("books"))]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("retriever", FOUND_NOTHING, ids=["no-hits", "empty"])
async def test_a_refusal_asks_no_model(path: str, retriever: FakeRetriever) -> None:
    made = ready(retriever=retriever, no_passages="refuse", refusal="Nothing.")
    reply = await ask(made, path)
    answer = await whole(reply)
    assert (answer["model"], answer["citations"], answer["retrieval"]) == ("docs", [], RETRIEVAL)
    assert FORMS[path].text(answer) == "Nothing."
    assert (reply.content_type, reply.model, reply.variant, reply.pipeline_version) == ("application/json", "chat", "-", "v1")
    assert upstream_of(made).requests == []


@pytest.mark.parametrize("path", PATHS)
async def test_a_refusal_streams(path: str) -> None:
    made = ready(retriever=FakeRetriever(hits=()), no_passages="refuse", refusal="Nothing.")
    reply = await ask(made, path, stream=True)
    found = await events(reply)
    [holder] = holders(path, found)
    assert (holder["citations"], holder["retrieval"]) == ([], RETRIEVAL)
    assert "".join(FORMS[path].said(event) for event in found) == "Nothing."
    assert (reply.content_type, reply.pipeline_version) == ("text/event-stream; charset=utf-8", "v1")
    assert upstream_of(made).requests == []


async def test_passages_that_score_too_little_are_none() -> None:
    made = ready(no_passages="refuse", min_score=0.9)
    assert "found nothing about that" in FORMS[CHAT].text(await whole(await ask(made)))


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(("options", "count"), [(None, 0), ({}, 0), ({"include_usage": True}, 1), (3, 0)])
async def test_usage_is_told_where_it_is_asked_for(path: str, options: object, count: int) -> None:
    made = ready(retriever=FakeRetriever(hits=()), no_passages="refuse")
    found = await events(await ask(made, path, stream=True, stream_options=options))
    assert len([event for event in found if event.get("usage")]) == count


async def test_a_stream_that_is_closed_yields_no_more() -> None:
    made = ready(retriever=FakeRetriever(hits=()), no_passages="refuse")
    reply = await ask(made, stream=True)
    assert not isinstance(reply.body, bytes)
    await reply.body.aclose()
    assert await read(reply.body) == b""
