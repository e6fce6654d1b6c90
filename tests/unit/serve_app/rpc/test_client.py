from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

import grpc
import pytest

from serve_app.config import AuthConfig
from serve_app.errors import BadRequest, DeadlineExceeded, Unauthenticated, Unavailable, UnknownModel
from serve_app.rpc.client import MantaClient, Message, Options, Retrieval, Sampling
from serve_app.rpc.results import Origin, ToolCallDelta, Usage
from serve_app.sse import DONE_EVENT
from tests.unit.serve_app.fakes import FakeResponse, FakeRetriever, leases_of, until, upstream_of
from tests.unit.serve_app.rpc.front import END, LAST, USAGE, client, event, ready, stream, word
from tests.unit.serve_app.test_view import ANN, ANN_KEY

HI = [Message("user", "Why?")]
COST = Usage(prompt_tokens=3, completion_tokens=2, total_tokens=5, cached_prompt_tokens=1)


async def test_a_chat_comes_in_pieces() -> None:
    made = ready(stream(word("be"), word("cause"), END, LAST), auth=AuthConfig(keys=(ANN,)))
    options = Options(request_id="mine", session_id="s1", timeout_s=30)
    async with client(made, api_key=ANN_KEY) as manta:
        sampling, extra = Sampling(temperature=0, seed=1), {"min_tokens": 2}
        chunks = [chunk async for chunk in manta.chat("chat", HI, sampling=sampling, extra=extra, options=options)]
    assert "".join(chunk.text for chunk in chunks) == "because"
    assert [chunk.finish_reason for chunk in chunks] == [None, None, "stop", None]
    assert (chunks[0].origin, chunks[-1].usage) == (Origin("mine", "chat", "stable", ""), COST)
    [sent] = upstream_of(made).requests
    body = json.loads(sent.body)
    assert (body["temperature"], body["seed"], body["min_tokens"]) == (0, 1, 2)


async def test_a_message_may_have_images() -> None:
    made = ready(stream(word("a cat"), DONE_EVENT))
    async with client(made) as manta:
        question = Message("user", "What is it?", image_urls=("https://x/cat.png",))
        assert [chunk.text async for chunk in manta.chat("chat", [question])] == ["a cat"]
    [message] = json.loads(upstream_of(made).requests[0].body)["messages"]
    assert [part["type"] for part in message["content"]] == ["text", "image_url"]


async def test_a_role_that_does_not_exist_is_refused_by_name() -> None:
    async with client(ready()) as manta:
        with pytest.raises(BadRequest, match="system, developer, user, assistant, tool, got 'usr'") as caught:
            [chunk async for chunk in manta.chat("chat", [Message("usr", "Why?")])]  # type: ignore[arg-type]
    assert caught.value.param == "role"


async def test_tool_calls_of_several_choices_come_as_chunks_of_their_own() -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": "{}"}}
    choices = [{"index": i, "delta": {"tool_calls": [call]}, "finish_reason": "odd"} for i in range(2)]
    async with client(ready(stream(event({"choices": choices}), DONE_EVENT))) as manta:
        chunks = [chunk async for chunk in manta.chat("chat", HI)]
    assert [(c.index, c.tool_calls, c.finish_reason) for c in chunks] == [
        (i, (ToolCallDelta(0, "c1", "f", "{}"),), "other") for i in range(2)
    ]
    assert [c.origin is None for c in chunks] == [False, True]


async def test_leaving_a_stream_frees_the_replica() -> None:
    made = ready(stream(word("be"), asyncio.Event()))
    async with client(made) as manta:
        async with aclosing(manta.chat("chat", HI)) as chunks:
            assert (await anext(chunks)).text == "be"
            assert leases_of(made) == 1
        await until(lambda: leases_of(made) == 0)


async def test_a_question_comes_back_with_what_the_answer_rests_on() -> None:
    retriever = FakeRetriever()
    made = ready(stream(word("because"), END, LAST), retriever=retriever)
    async with client(made) as manta:
        chunks = [chunk async for chunk in manta.ask("docs", "Why?", retrieval=Retrieval(top_k=1))]
    assert "".join(chunk.text for chunk in chunks) == "because"
    [cited] = [chunk for chunk in chunks if chunk.citations]
    assert [(c.number, c.title, c.headings, c.text) for c in cited.citations] == [
        (1, "D", ("A", "B"), "one"),
        (2, "D", (), "two"),
    ]
    assert (cited.finish_reason, chunks[-1].usage, retriever.queries[0].top_k) == ("stop", COST, 1)


async def test_whole_answers_are_values() -> None:
    choices = [{"index": 1, "text": "b", "finish_reason": "stop"}, {"index": 0, "text": "a", "finish_reason": "length"}]
    made = ready(FakeResponse((json.dumps({"choices": choices, "usage": USAGE}).encode(),)))
    async with client(made) as manta:
        completion = await manta.generate("chat", "Once")
        vectors = await manta.embed("minilm", ["a b", "c"])
        passages = await manta.search("books", "Why?", top_k=2, filters={"type": "eq", "key": "year", "value": 2024})
        models = await manta.list_models()
    assert (completion.texts, completion.finish_reasons, completion.usage) == (("a", "b"), ("length", "stop"), COST)
    assert (vectors.vectors, vectors.usage.total_tokens) == (((3.0, 0.5), (1.0, 0.5)), 3)
    assert [passage.text for passage in passages] == ["one", "two"]
    assert [(m.id, m.kind, m.shares) for m in models] == [
        ("chat", "model", (("stable", 100),)),
        ("docs", "pipeline", (("v1", 100),)),
        ("minilm", "embedder", ()),
    ]


async def test_errors_are_the_platforms_own() -> None:
    async with client(ready(auth=AuthConfig(keys=(ANN,)))) as manta:
        with pytest.raises(Unauthenticated):
            await manta.list_models()
    async with client(ready()) as manta:
        with pytest.raises(UnknownModel) as caught:
            [_ async for _ in manta.chat("nobody", HI)]
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


async def test_a_deadline_is_an_error_of_the_platform_too() -> None:
    made = ready(stream(asyncio.Event()))
    async with client(made, timeout_s=0.1) as manta:
        with pytest.raises(DeadlineExceeded):
            [_ async for _ in manta.chat("chat", HI)]


async def test_a_platform_that_is_away_is_unavailable() -> None:
    async with MantaClient("127.0.0.1:1", timeout_s=5) as manta:
        with pytest.raises(Unavailable):
            await manta.list_models()


async def test_a_connection_can_be_encrypted() -> None:
    async with MantaClient("127.0.0.1:1", tls=grpc.ssl_channel_credentials(), timeout_s=5) as manta:
        with pytest.raises(Unavailable):
            await manta.list_models()
