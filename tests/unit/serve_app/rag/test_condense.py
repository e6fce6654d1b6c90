"""Conversations: what is searched for, and what goes wrong without costing the request."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from serve_app import rag
from serve_app.errors import RateLimited
from serve_app.gateway import Gateway
from serve_app.rag.condense import TURN_CHARS
from tests.unit.serve_app.fakes import (
    SSE,
    FakeResponse,
    FakeRetriever,
    entry,
    leases_of,
    model,
    snapshot,
    upstream_of,
)
from tests.unit.serve_app.rag.asking import (
    CHAT,
    MESSAGES,
    RESPONSES,
    STREAMS,
    ask,
    asking,
    chat_answer,
    events,
    holders,
    ready,
    whole,
    whole_answer,
)

TALK = [
    {"role": "user", "content": "Who was Ada?"},
    {"role": "assistant", "content": "A mathematician."},
    {"role": "user", "content": "Why?"},
]
CONVERSATIONS: dict[str, dict[str, Any]] = {CHAT: {"messages": TALK}, RESPONSES: {"input": TALK}, MESSAGES: {"messages": TALK}}
ALONE = "Why was Ada a mathematician?"


def talking(*answers: Any, retriever: FakeRetriever | None = None, **config: Any) -> Gateway:
    return ready(*answers, retriever=retriever, condense=config)


def bodies(made: Gateway) -> list[Any]:
    return [json.loads(request.body) for request in upstream_of(made).requests]


@pytest.mark.parametrize("path", CONVERSATIONS)
async def test_a_conversation_is_searched_for_what_a_model_makes_of_it(path: str) -> None:
    retriever = FakeRetriever()
    made = talking(chat_answer(ALONE), whole_answer(path), retriever=retriever)
    answer = await whole(await ask(made, path, **CONVERSATIONS[path]))
    assert [query.text for query in retriever.queries] == [ALONE]
    assert answer["retrieval"]["query"] == ALONE
    assert [request.path for request in upstream_of(made).requests] == [CHAT, path]


@pytest.mark.parametrize("path", CONVERSATIONS)
async def test_a_stream_tells_the_query_too(path: str) -> None:
    made = talking(chat_answer(ALONE), FakeResponse([STREAMS[path]], content_type=SSE))
    [holder] = holders(path, await events(await ask(made, path, stream=True, **CONVERSATIONS[path])))
    assert holder["retrieval"]["query"] == ALONE


async def test_the_model_is_asked_the_users_own_question() -> None:
    made = talking(chat_answer(ALONE), whole_answer(CHAT))
    await ask(made, messages=TALK)
    assert bodies(made)[1]["messages"][-1]["content"].endswith("Q: Why?")


async def test_the_query_is_asked_for_in_few_tokens_and_without_chance() -> None:
    made = talking(chat_answer(ALONE), whole_answer(CHAT), max_tokens=32, prompt="{{ history | length }} {{ question }}")
    await ask(made, messages=TALK, temperature=1, stream=False, tools=[1])
    assert bodies(made)[0] == {
        "model": "chat",
        "messages": [{"role": "user", "content": "2 Why?"}],
        "temperature": 0,
        "max_tokens": 32,
        "stream": False,
    }


async def test_the_built_in_prompt_shows_the_conversation() -> None:
    made = talking(chat_answer(ALONE), whole_answer(CHAT))
    await ask(made, messages=TALK)
    [message] = bodies(made)[0]["messages"]
    assert message["content"].endswith("user: Who was Ada?\n\nassistant: A mathematician.\n\nQuestion: Why?")


async def test_only_the_latest_turns_are_shown_and_of_each_its_beginning() -> None:
    prompt = "{% for turn in history %}{{ turn.role }}={{ turn.text }};{% endfor %}{{ question }}"
    made = talking(chat_answer(ALONE), whole_answer(CHAT), history_turns=1, prompt=prompt)
    await ask(made, messages=[TALK[0], {"role": "assistant", "content": "x" * 9000}, TALK[2]])
    assert bodies(made)[0]["messages"][0]["content"] == f"assistant={'x' * TURN_CHARS};Why?"


async def test_the_call_is_the_conversations_with_an_id_and_an_answerer_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made = talking(chat_answer(ALONE), whole_answer(CHAT))
    seen = []
    relay = made.relay

    async def watching(call: Any, *callee: Any) -> Any:
        seen.append(call)
        return await relay(call, *callee)

    monkeypatch.setattr(made, "relay", watching)
    outer = asking(messages=TALK)
    await rag.ask(made, outer, made.view.pipelines["docs"])
    assert [call.affinity for call in seen] == [outer.affinity] * 2
    assert [call.request_id for call in seen] == ["q1-query", "q1"]
    assert [call.answerer is outer.answerer for call in seen] == [False, True]


@pytest.mark.parametrize("messages", [TALK[2:], [{"role": "system", "content": "Brief."}, TALK[2]]], ids=["one", "system"])
async def test_a_first_question_is_searched_for_as_it_is(messages: Any) -> None:
    made = talking(whole_answer(CHAT))
    assert (await whole(await ask(made, messages=messages)))["retrieval"]["query"] == "Why?"
    assert len(upstream_of(made).requests) == 1


async def test_without_condense_the_last_question_is_searched_for() -> None:
    made = ready()
    assert (await whole(await ask(made, messages=TALK)))["retrieval"]["query"] == "Why?"
    assert len(upstream_of(made).requests) == 1


@pytest.mark.parametrize(
    ("said", "query"),
    [
        (' "Why\n was Ada?" ', "Why was Ada?"),
        ("<think>Hm.\nAda?</think>Why Ada?", "Why Ada?"),
        ("Why\ud800 Ada?", "Why Ada?"),
        ("x" * 5000, "x" * 1000),
    ],
    ids=["quoted", "thoughts", "surrogate", "long"],
)
async def test_a_query_is_one_clean_line(said: str, query: str) -> None:
    made = talking(chat_answer(said), whole_answer(CHAT))
    assert (await whole(await ask(made, messages=TALK)))["retrieval"]["query"] == query


FAILURES: dict[str, Callable[[], Any]] = {
    "refused": lambda: FakeResponse((b'{"error": {"message": "no"}}',), status=400),
    "broken": lambda: FakeResponse((b"{}",), status=500),
    "empty": lambda: chat_answer(""),
    "null": lambda: chat_answer(None),
    "only-thoughts": lambda: chat_answer("<think>Well, let me"),
    "no-json": lambda: FakeResponse((b"<html>",)),
    "list": lambda: FakeResponse((b"[]",)),
    "no-choice": lambda: FakeResponse((b'{"choices": []}',)),
    "stream": lambda: FakeResponse((b"data: {}\n\n",), content_type=SSE),
    "crash": lambda: RuntimeError("unexpected"),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
async def test_a_model_that_makes_no_query_costs_nothing_but_the_query(failure: Callable[[], Any]) -> None:
    made = talking(failure(), whole_answer(CHAT))
    assert (await whole(await ask(made, messages=TALK)))["retrieval"]["query"] == "Why?"
    assert leases_of(made) == 0


async def test_a_failure_is_logged_with_the_request(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "ray.serve"):
        await ask(talking(FAILURES["refused"](), whole_answer(CHAT)), messages=TALK)
    assert "request q1: no query made of its history: no" in caplog.messages


async def test_a_model_that_is_late_is_waited_for_no_longer() -> None:
    async def never() -> FakeResponse:
        await asyncio.Event().wait()
        raise AssertionError

    made = talking(never, whole_answer(CHAT), timeout_s=0.01)
    assert (await whole(await ask(made, messages=TALK)))["retrieval"]["query"] == "Why?"
    assert leases_of(made) == 0


async def test_a_model_that_is_gone_costs_nothing_but_the_query() -> None:
    made = talking(whole_answer(CHAT), model="gone")
    assert (await whole(await ask(made, messages=TALK)))["retrieval"]["query"] == "Why?"


async def test_another_model_may_write_the_query() -> None:
    made = talking(chat_answer(ALONE), whole_answer(CHAT), model="small")
    document = made.view.document
    small = model(("stable", 100), name="small")
    routing = document.model_copy(update={"models": (*document.models, small)})
    made.update(snapshot(entry("r1"), entry("r2", model="small"), routing=routing, version=2))
    await ask(made, messages=TALK)
    assert [body["model"] for body in bodies(made)] == ["small", "chat"]
    assert upstream_of(made).asked == ["http://r2", "http://r1"]


async def test_limits_of_the_caller_are_told_to_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    made = talking()

    async def over(*_: object) -> Any:
        raise RateLimited("too many requests", retry_after_s=3)

    monkeypatch.setattr(made, "relay", over)
    with pytest.raises(RateLimited):
        await ask(made, messages=TALK)


async def test_a_caller_who_leaves_ends_it() -> None:
    entered, retriever = asyncio.Event(), FakeRetriever()

    async def never() -> FakeResponse:
        entered.set()
        await asyncio.Event().wait()
        raise AssertionError

    made = talking(never, retriever=retriever)
    task = asyncio.create_task(ask(made, messages=TALK))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (retriever.queries, leases_of(made)) == ([], 0)
