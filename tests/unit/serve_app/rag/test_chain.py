"""The chain as a whole, on every endpoint."""

from __future__ import annotations

import dataclasses
import json
import threading
from typing import Any

import pytest

from serve_app import rag
from serve_app.errors import BadRequest, EmbeddingMismatch, EmptyCollection, NoPassages, UnknownModel
from serve_app.filters import Comparison
from tests.unit.serve_app.fakes import (
    HITS,
    SSE,
    FakeResponse,
    FakeRetriever,
    document,
    gateway,
    leases_of,
    snapshot,
    upstream_of,
)
from tests.unit.serve_app.rag.asking import (
    ASKED,
    CHAT,
    CITATIONS,
    COMPLETIONS,
    MESSAGES,
    PATHS,
    RESPONSES,
    RETRIEVAL,
    STREAMS,
    WHOLE,
    ask,
    asking,
    events,
    holders,
    ready,
    whole,
    whole_answer,
)

PUT: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": ASKED}]},
    RESPONSES: {"input": ASKED},
    MESSAGES: {"messages": [{"role": "user", "content": ASKED}], "max_tokens": 9},
    COMPLETIONS: {"prompt": ASKED},
}


@pytest.mark.parametrize("path", PATHS)
async def test_the_model_is_asked_over_the_passages_on_the_path_of_the_request(path: str) -> None:
    made = ready(whole_answer(path))
    reply = await ask(made, path, temperature=0, tools=[{"x": 1}], nonsense={"deep": [None]})
    [request] = upstream_of(made).requests
    assert request.path == path
    assert json.loads(request.body) == {
        **PUT[path],
        "model": "chat",
        "temperature": 0,
        "tools": [{"x": 1}],
        "nonsense": {"deep": [None]},
    }
    assert (reply.model, reply.variant, reply.pipeline_version) == ("chat", "stable", "v1")


@pytest.mark.parametrize("path", PATHS)
async def test_a_whole_answer_is_the_models_with_name_and_citations(path: str) -> None:
    answer = await whole(await ask(ready(whole_answer(path)), path))
    assert answer == {**WHOLE[path], "model": "docs", "citations": CITATIONS, "retrieval": RETRIEVAL}


@pytest.mark.parametrize("path", PATHS)
async def test_a_stream_carries_the_citations_once_where_the_answer_ends(path: str) -> None:
    made = ready(FakeResponse([STREAMS[path]], content_type=SSE))
    [holder] = holders(path, await events(await ask(made, path, stream=True)))
    assert (holder["citations"], holder["retrieval"]) == (CITATIONS, RETRIEVAL)
    assert leases_of(made) == 0


async def test_the_retriever_is_asked_the_question() -> None:
    retriever = FakeRetriever()
    await ask(ready(retriever=retriever))
    [query] = retriever.queries
    assert (query.collection, query.embedder, query.text, query.top_k, query.filters) == ("books", "minilm", "Why?", 5, None)


async def test_a_request_may_change_its_search() -> None:
    retriever = FakeRetriever()
    made = ready(retriever=retriever, overrides={"max_top_k": 9, "collections": ["others"]})
    wish = {"top_k": 9, "collection": "others", "filters": {"type": "eq", "key": "lang", "value": "en"}}
    answer = await whole(await ask(made, retrieval=wish))
    [query] = retriever.queries
    assert (query.collection, query.top_k, query.filters) == ("others", 9, Comparison("eq", "lang", "en"))
    assert answer["retrieval"] == {"query": "Why?", "collection": "others", "top_k": 9}
    assert "retrieval" not in json.loads(upstream_of(made).requests[0].body)


async def test_a_query_string_goes_to_the_model() -> None:
    made = ready(whole_answer(MESSAGES))
    await ask(made, f"{MESSAGES}?beta=true")
    assert upstream_of(made).requests[0].path == "/v1/messages?beta=true"


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/messages/count_tokens", "/v1/chat/completions/batch?x=1", "/tokenize"])
async def test_any_other_endpoint_is_refused_with_those_that_there_are(path: str) -> None:
    made = ready()
    with pytest.raises(BadRequest, match="through one of: /v1/chat/completions, /v1/responses, /v1/messages") as caught:
        await rag.ask(made, dataclasses.replace(asking(), path=path), made.view.pipelines["docs"])
    assert caught.value.param == "model"


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b"{}", {"model": "docs", "citations": CITATIONS, "retrieval": RETRIEVAL}),
        (b"[1]", [1]),
    ],
    ids=["no-choices", "list"],
)
async def test_answers_of_any_shape_survive(body: bytes, answer: object) -> None:
    reply = await ask(ready(FakeResponse((body,))))
    assert isinstance(reply.body, bytes)
    assert json.loads(reply.body) == answer


async def test_an_answer_that_is_no_json_is_left_alone() -> None:
    assert (await ask(ready(FakeResponse((b"{<html>}",))))).body == b"{<html>}"


async def test_closing_before_the_first_byte_closes_the_inner_stream() -> None:
    made = ready(FakeResponse((b"data: 1\n\n",), content_type=SSE))
    reply = await ask(made, stream=True)
    assert not isinstance(reply.body, bytes)
    assert leases_of(made) == 1
    await reply.body.aclose()
    assert leases_of(made) == 0


async def test_an_empty_collection_is_an_error_unless_the_version_says_otherwise() -> None:
    with pytest.raises(EmptyCollection, match="manta ingest PATH --collection books"):
        await ask(ready(retriever=FakeRetriever(error=EmptyCollection("books"))))


@pytest.mark.parametrize("found", [(), HITS], ids=["none", "none-good-enough"])
async def test_no_passage_is_an_error_unless_the_version_says_otherwise(found: Any) -> None:
    with pytest.raises(NoPassages, match="no passage of collection 'books'"):
        await ask(ready(retriever=FakeRetriever(hits=found), min_score=0.6))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("error", [None, EmptyCollection("books")], ids=["no-hits", "empty"])
async def test_the_model_may_answer_without_passages(path: str, error: EmptyCollection | None) -> None:
    made = ready(whole_answer(path), retriever=FakeRetriever(hits=(), error=error), no_passages="answer")
    answer = await whole(await ask(made, path))
    assert answer == {**WHOLE[path], "model": "docs", "citations": [], "retrieval": RETRIEVAL}
    assert b"Q: Why?" in upstream_of(made).requests[0].body


@pytest.mark.parametrize("mode", ["answer", "refuse", "error"])
async def test_a_collection_that_cannot_be_searched_is_always_an_error(mode: str) -> None:
    retriever = FakeRetriever(error=EmbeddingMismatch("books", "a", "b"))
    with pytest.raises(EmbeddingMismatch):
        await ask(ready(retriever=retriever, no_passages=mode))


async def test_passages_under_the_score_are_dropped() -> None:
    made = ready(min_score=0.5)
    assert (await whole(await ask(made)))["citations"] == CITATIONS[:1]
    assert b"two" not in upstream_of(made).requests[0].body


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
            return HITS

    object.__setattr__(made.stages, "retriever", Removing())
    made.update(snapshot())
    with pytest.raises(UnknownModel, match="'docs'"):
        await ask(made)
