from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from serve_app.config import ApiKeyConfig, AuthConfig
from serve_app.contracts import SearchQuery
from serve_app.errors import RateLimited
from serve_app.filters import Comparison
from serve_app.gateway import Gateway
from serve_app.limits.permit import Permit
from serve_app.protos.manta.v1 import chat_pb2, common_pb2, inference_pb2, inference_pb2_grpc
from serve_app.sse import DONE_EVENT
from tests.unit.serve_app.fakes import FakeResponse, FakeRetriever, document, gateway, leases_of, snapshot, until, upstream_of
from tests.unit.serve_app.rpc.front import END, LAST, USAGE, channel, event, ready, stream, word
from tests.unit.serve_app.test_view import ANN, ANN_KEY

HI = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text="Why?")])
CHAT = chat_pb2.ChatRequest(model="chat", messages=[HI])
ASK = chat_pb2.AskRequest(model="docs", question="Why?")
KEY = [("authorization", f"Bearer {ANN_KEY}")]


def stub(opened: grpc.aio.Channel) -> Any:
    return inference_pb2_grpc.InferenceStub(opened)  # type: ignore[no-untyped-call]


async def failure(call: Any) -> grpc.aio.AioRpcError:
    """Return the error that a call of either kind ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ended(call)
    return caught.value


async def ended(call: Any) -> None:
    if not hasattr(call, "__aiter__"):
        await call
        return
    async for _ in call:
        pass


def trailers(made: Any) -> dict[str, Any]:
    return {key: value for key, value in made if key != "grpc-status-details-bin"}


async def test_a_chat_streams_and_says_where_it_came_from() -> None:
    made = ready(stream(word("be"), word("cause"), END, LAST))
    async with channel(made) as opened:
        call = stub(opened).Chat(CHAT, metadata=[("x-request-id", "mine"), ("x-session-id", "s9")])
        messages = [message async for message in call]
        said = trailers(await call.trailing_metadata())
    assert "".join(c.delta.content for m in messages for c in m.choices) == "because"
    assert messages[0].origin == common_pb2.Origin(request_id="mine", model="chat", variant="stable")
    assert [m.HasField("origin") for m in messages] == [True, False, False, False]
    assert messages[2].choices[0].finish_reason == common_pb2.FINISH_REASON_STOP
    assert messages[3].usage == common_pb2.Usage(prompt_tokens=3, completion_tokens=2, total_tokens=5, cached_prompt_tokens=1)
    assert said == {"x-request-id": "mine", "x-manta-model": "chat", "x-manta-variant": "stable"}
    [sent] = upstream_of(made).requests
    assert (sent.path, sent.request_id) == ("/v1/chat/completions", "mine")
    assert json.loads(sent.body)["stream_options"] == {"include_usage": True}
    assert leases_of(made) == 0


async def test_tool_calls_reasoning_and_logprobs_are_carried() -> None:
    delta = {
        "role": "assistant",
        "reasoning": "hm",
        "tool_calls": [{"index": 1, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    }
    logprobs = {"content": [{"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "b", "logprob": -1.5}]}]}
    said = event({"choices": [{"index": 2, "delta": delta, "logprobs": logprobs, "finish_reason": "tool_calls"}]})
    async with channel(ready(stream(said, DONE_EVENT))) as opened:
        [message] = [message async for message in stub(opened).Chat(CHAT)]
    [choice] = message.choices
    assert choice == chat_pb2.ChatChoice(
        index=2,
        finish_reason=common_pb2.FINISH_REASON_TOOL_CALLS,
        delta=chat_pb2.ChatDelta(
            role=chat_pb2.ROLE_ASSISTANT,
            reasoning="hm",
            tool_calls=[chat_pb2.ToolCallDelta(index=1, id="c1", name="f", arguments="{}")],
        ),
        logprobs=[common_pb2.TokenLogprob(token="a", logprob=-0.5, top=[common_pb2.TokenLogprob(token="b", logprob=-1.5)])],
    )


async def test_an_answer_that_comes_whole_is_a_stream_of_one() -> None:
    whole = {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
        "usage": USAGE,
    }
    async with channel(ready(FakeResponse((json.dumps(whole).encode(),)))) as opened:
        [message] = [message async for message in stub(opened).Chat(CHAT)]
    assert (message.choices[0].delta.content, message.usage.total_tokens) == ("yes", 5)


async def test_a_last_event_without_its_blank_line_is_not_lost() -> None:
    async with channel(ready(stream(word("be") + word("cause"), DONE_EVENT.rstrip()))) as opened:
        messages = [message async for message in stub(opened).Chat(CHAT)]
    assert "".join(c.delta.content for m in messages for c in m.choices) == "because"


async def test_a_client_that_leaves_frees_the_replica() -> None:
    held = asyncio.Event()
    answer = stream(word("be"), held)
    made = ready(answer)
    async with channel(made) as opened:
        call = stub(opened).Chat(CHAT)
        assert (await call.read()).choices[0].delta.content == "be"
        assert leases_of(made) == 1
        call.cancel()
        await until(lambda: leases_of(made) == 0)
    assert answer.closed == 1


async def test_a_deadline_frees_the_replica() -> None:
    answer = stream(word("be"), asyncio.Event())
    made = ready(answer)
    async with channel(made) as opened:
        err = await failure(stub(opened).Chat(CHAT, timeout=0.2))
        await until(lambda: leases_of(made) == 0)
    assert (err.code(), answer.closed) == (grpc.StatusCode.DEADLINE_EXCEEDED, 1)


async def test_an_error_event_ends_the_stream_with_a_status() -> None:
    made = ready(stream(word("be"), OSError("10.0.0.7 went away")))
    async with channel(made) as opened:
        call = stub(opened).Chat(CHAT, metadata=[("x-request-id", "mine")])
        messages = aiter(call)
        assert (await anext(messages)).choices[0].delta.content == "be"
        err = await failure(anext(messages))
    assert err.code() is grpc.StatusCode.UNAVAILABLE
    assert err.details() == "the replica that was answering has failed; send the request again"
    assert trailers(err.trailing_metadata()) == {"x-request-id": "mine", "x-manta-model": "chat", "x-manta-variant": "stable"}
    assert leases_of(made) == 0


async def test_standard_clients_read_the_details_of_an_error() -> None:
    async with channel(ready()) as opened:
        call = stub(opened).Chat(chat_pb2.ChatRequest(model="nobody", messages=[HI]), metadata=[("x-request-id", "mine")])
        err = await failure(call)
    status = rpc_status.from_call(err)
    assert (err.code(), status.code, status.message) == (grpc.StatusCode.NOT_FOUND, 5, err.details())
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("model_not_found", "manta")


async def test_an_unexpected_error_shows_nothing_of_itself(caplog: pytest.LogCaptureFixture) -> None:
    broken = FakeResponse((b"{no json from /opt/engine}",))
    async with channel(ready(broken)) as opened:
        for call in (stub(opened).Generate(inference_pb2.GenerateRequest(model="chat")), stub(opened).Chat(CHAT)):
            err = await failure(call)
            assert (err.code(), err.details()) == (
                grpc.StatusCode.INTERNAL,
                "internal error; quote the request id when you report it",
            )
            assert b"/opt" not in b"".join(str(entry).encode() for entry in err.trailing_metadata() or ())
    assert "failed" in caplog.text


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ([], grpc.StatusCode.UNAUTHENTICATED),
        ([("authorization", "Bearer wrong")], grpc.StatusCode.UNAUTHENTICATED),
        ([("authorization", ANN_KEY)], grpc.StatusCode.UNAUTHENTICATED),
        ([("authorization-bin", f"Bearer {ANN_KEY}".encode())], grpc.StatusCode.UNAUTHENTICATED),
        ([("x-authorization", f"Bearer {ANN_KEY}")], grpc.StatusCode.UNAUTHENTICATED),
        (KEY, grpc.StatusCode.OK),
        ([("x-api-key", ANN_KEY)], grpc.StatusCode.OK),
    ],
    ids=["none", "wrong", "no-scheme", "binary", "other-name", "bearer", "x-api-key"],
)
async def test_a_key_is_asked_for_by_every_method(metadata: list[tuple[str, Any]], code: grpc.StatusCode) -> None:
    made = ready(stream(word("x"), DONE_EVENT), auth=AuthConfig(keys=(ANN,)))
    async with channel(made) as opened:
        answers = stub(opened)
        calls = {
            "Chat": answers.Chat(CHAT, metadata=metadata),
            "ListModels": answers.ListModels(inference_pb2.ListModelsRequest(), metadata=metadata),
        }
        if code is not grpc.StatusCode.OK:
            calls["Generate"] = answers.Generate(inference_pb2.GenerateRequest(model="chat"), metadata=metadata)
            calls["Embed"] = answers.Embed(inference_pb2.EmbedRequest(model="minilm", input=["a"]), metadata=metadata)
            calls["Search"] = answers.Search(inference_pb2.SearchRequest(collection="books", query="a"), metadata=metadata)
            calls["Ask"] = answers.Ask(ASK, metadata=metadata)
        assert {name: await code_of(call) for name, call in calls.items()} == dict.fromkeys(calls, code)
    assert len(upstream_of(made).requests) == (1 if code is grpc.StatusCode.OK else 0)


async def code_of(call: Any) -> grpc.StatusCode:
    with contextlib.suppress(grpc.aio.AioRpcError):
        await ended(call)
    found: grpc.StatusCode = await call.code()
    return found


async def test_a_key_bound_to_models_may_not_use_others() -> None:
    async with channel(ready(auth=AuthConfig(keys=(ANN,)))) as opened:
        err = await failure(stub(opened).Ask(ASK, metadata=KEY))
        listed = await stub(opened).ListModels(inference_pb2.ListModelsRequest(), metadata=KEY)
    assert err.code() is grpc.StatusCode.PERMISSION_DENIED
    assert [model.id for model in listed.models] == ["chat"]


class Limits:
    """Admits with ``headers`` or refuses with ``error``; counts what is held and what was charged."""

    def __init__(self, error: RateLimited | None = None) -> None:
        self.held = 0
        self.tokens = 0
        self._error = error

    async def admit(self, caller: ApiKeyConfig) -> Permit:
        if self._error is not None:
            raise self._error
        self.held += 1
        return Permit(headers=(("x-ratelimit-remaining-requests", "4"),), charge=self._charge, release=self._release)

    def _charge(self, tokens: int) -> None:
        self.tokens += tokens

    def _release(self) -> None:
        self.held -= 1


async def test_limits_hold_and_their_state_goes_out_with_the_answer() -> None:
    limits = Limits()
    async with channel(ready(stream(word("be"), END, LAST)), admission=limits) as opened:
        calls = [stub(opened).Chat(CHAT), stub(opened).Embed(inference_pb2.EmbedRequest(model="minilm", input=["a b"]))]
        for call in calls:
            await ended(call)
            assert dict(await call.trailing_metadata())["x-ratelimit-remaining-requests"] == "4"
    assert (limits.held, limits.tokens) == (0, 5 + 2)


async def test_a_limit_that_is_reached_says_when_to_come_back() -> None:
    limits = Limits(RateLimited("5 requests a minute", retry_after_s=12, headers=(("x-ratelimit-limit-requests", "5"),)))
    async with channel(ready(), admission=limits) as opened:
        err = await failure(stub(opened).Chat(CHAT))
    retry = error_details_pb2.RetryInfo()
    assert [detail.Unpack(retry) for detail in rpc_status.from_call(err).details][-1]
    assert (err.code(), retry.retry_delay.seconds) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 12)
    assert trailers(err.trailing_metadata())["x-ratelimit-limit-requests"] == "5"


async def test_what_is_no_message_and_what_is_too_large_never_reaches_a_model() -> None:
    made = ready(limits={"max_body_bytes": 2048})
    async with channel(made) as opened:
        raw = opened.unary_unary("/manta.v1.Inference/Generate")
        errors = [await failure(raw(data)) for data in (b"\xff\xff", b"\x0a" + b"x" * 4096)]
    assert [e.code() for e in errors] == [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED]
    assert "2048 bytes" in str(errors[1].details())
    assert upstream_of(made).requests == []


async def test_other_machines_are_refused_where_the_platform_is_local() -> None:
    async with channel(ready(stream(word("x"), DONE_EVENT)), is_local_only=True) as opened:
        assert await code_of(stub(opened).Chat(CHAT)) is grpc.StatusCode.OK


async def test_a_completion_comes_whole() -> None:
    choices = [
        {"index": 0, "text": "upon", "finish_reason": "length",
         "logprobs": {"tokens": ["u", "pon"], "token_logprobs": [None, -0.5], "top_logprobs": [None, {"pan": -2.0}]}},
        {"index": 1, "text": "more", "finish_reason": "abort"},
    ]  # fmt: skip
    made = ready(FakeResponse((json.dumps({"choices": choices, "usage": USAGE}).encode(),)))
    async with channel(made) as opened:
        answer = await stub(opened).Generate(inference_pb2.GenerateRequest(model="chat", prompt="Once"))
    assert [(c.index, c.text, c.finish_reason) for c in answer.choices] == [
        (0, "upon", common_pb2.FINISH_REASON_LENGTH),
        (1, "more", common_pb2.FINISH_REASON_OTHER),
    ]
    assert [(t.token, t.logprob, [o.token for o in t.top]) for t in answer.choices[0].logprobs] == [
        ("u", 0.0, []),
        ("pon", -0.5, ["pan"]),
    ]
    assert (answer.origin.variant, answer.usage.total_tokens) == ("stable", 5)


async def test_embedders_and_models_that_embed_answer_alike() -> None:
    said = {"data": [{"embedding": [1.0, 0.5]}], "usage": {"prompt_tokens": 7, "total_tokens": 7}}
    async with channel(ready(FakeResponse((json.dumps(said).encode(),)))) as opened:
        made = [await stub(opened).Embed(inference_pb2.EmbedRequest(model=m, input=["a"])) for m in ("minilm", "chat")]
    assert [list(answer.embeddings[0].values) for answer in made] == [[1.0, 0.5], [1.0, 0.5]]
    assert [(a.usage.prompt_tokens, a.origin.model, a.origin.variant) for a in made] == [
        (1, "minilm", ""),
        (7, "chat", "stable"),
    ]


async def test_wrong_dimensions_are_refused_by_name() -> None:
    async with channel(ready()) as opened:
        err = await failure(stub(opened).Embed(inference_pb2.EmbedRequest(model="minilm", input=["a"], dimensions=9)))
    assert (err.code(), "dimensions must be 2" in str(err.details())) == (grpc.StatusCode.INVALID_ARGUMENT, True)


async def test_a_search_gives_passages_best_first() -> None:
    retriever = FakeRetriever()
    request = inference_pb2.SearchRequest(collection="books", query="Why?", top_k=2)
    request.filters.update({"type": "eq", "key": "year", "value": 2024})
    async with channel(ready(retriever=retriever)) as opened:
        answer = await stub(opened).Search(request)
    assert [(p.number, p.document_id, p.text, p.score, list(p.headings)) for p in answer.passages] == [
        (1, "d", "one", 0.5, ["A", "B"]),
        (2, "d", "two", 0.25, []),
    ]
    assert retriever.queries == [SearchQuery("books", "minilm", "Why?", 2, filters=Comparison("eq", "year", 2024))]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (inference_pb2.SearchRequest(collection="gone", query="a"), grpc.StatusCode.NOT_FOUND),
        (inference_pb2.SearchRequest(collection="books"), grpc.StatusCode.INVALID_ARGUMENT),
        (inference_pb2.SearchRequest(collection="books", query="a", top_k=0), grpc.StatusCode.INVALID_ARGUMENT),
    ],
    ids=["no-collection", "no-query", "no-passages"],
)
async def test_a_search_that_makes_no_sense_is_refused(request_: Any, code: grpc.StatusCode) -> None:
    async with channel(ready()) as opened:
        assert (await failure(stub(opened).Search(request_))).code() is code


async def test_a_pipelines_answer_ends_with_its_citations() -> None:
    made = ready(stream(word("be"), word("cause"), END, LAST))
    async with channel(made) as opened:
        call = stub(opened).Ask(ASK)
        messages = [message async for message in call]
        said = trailers(await call.trailing_metadata())
    assert "".join(m.text for m in messages) == "because"
    [cited] = [m for m in messages if m.citations]
    assert [(c.number, c.document_id, c.start, c.end, c.text) for c in cited.citations] == [
        (1, "d", 0, 3, "one"),
        (2, "d", 3, 6, "two"),
    ]
    assert cited.finish_reason == common_pb2.FINISH_REASON_STOP
    assert messages[-1].usage.total_tokens == 5
    assert (messages[0].origin.pipeline_version, said["x-manta-pipeline-version"]) == ("v1", "v1")


async def test_a_model_is_no_pipeline() -> None:
    async with channel(ready()) as opened:
        err = await failure(stub(opened).Ask(chat_pb2.AskRequest(model="chat", question="Why?")))
    assert (err.code(), err.details()) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "'chat' is no pipeline; Chat and Generate take models",
    )


async def test_models_are_listed_with_their_kind() -> None:
    async with channel(ready()) as opened:
        listed = (await stub(opened).ListModels(inference_pb2.ListModelsRequest())).models
    shares = [(m.id, m.kind, *([(s.name, s.weight) for s in of] for of in (m.variants, m.versions))) for m in listed]
    assert shares == [
        ("chat", inference_pb2.MODEL_KIND_MODEL, [("stable", 100)], []),
        ("docs", inference_pb2.MODEL_KIND_PIPELINE, [], [("v1", 100)]),
        ("minilm", inference_pb2.MODEL_KIND_EMBEDDER, [], []),
    ]
    assert listed[0].card["owned_by"] == "manta"


SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize("name", ["", "manta.v1.Inference", "chat", "docs"])
async def test_health_follows_readiness(name: str) -> None:
    found = []
    for made in (ready(), not_ready()):
        async with channel(made) as opened:
            health = health_pb2_grpc.HealthStub(opened)
            found.append((await health.Check(health_pb2.HealthCheckRequest(service=name))).status)
    assert found == [SERVING, NOT_SERVING]


def not_ready() -> Gateway:
    made = gateway()
    made.update(snapshot(routing=document()))
    return made


async def test_health_knows_what_is_not_served() -> None:
    async with channel(ready()) as opened:
        health = health_pb2_grpc.HealthStub(opened)
        unknown = await failure(health.Check(health_pb2.HealthCheckRequest(service="nobody")))
        broken = await failure(opened.unary_unary("/grpc.health.v1.Health/Check")(b"\xff"))
        watched = await failure(health.Watch(health_pb2.HealthCheckRequest()))
        listed = await health.List(health_pb2.HealthListRequest())
    assert [e.code() for e in (unknown, broken, watched)] == [
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNIMPLEMENTED,
    ]
    assert {name: check.status for name, check in listed.statuses.items()} == {"": SERVING, "manta.v1.Inference": SERVING}
