"""The attacker's view of the gRPC front: none of these attempts reaches a model, and no refusal shows internals."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_status import rpc_status

from serve_app.config import AuthConfig
from serve_app.protos.manta.v1 import chat_pb2, common_pb2, inference_pb2
from tests.leaks import leaks_in
from tests.unit.serve_app.fakes import FakeRetriever, upstream_of, woken_of
from tests.unit.serve_app.rpc.front import channel, ready
from tests.unit.serve_app.rpc.test_servicer import failure
from tests.unit.serve_app.test_view import ANN, ANN_KEY, BOB, BOB_KEY, api_key

OLD_KEY = "manta_old_secret"
OLD = api_key("old", OLD_KEY, expires_at=datetime(2020, 1, 1, tzinfo=UTC))
TIM_KEY = "manta_tim_secret"
TIM = api_key("tim", TIM_KEY, collections=())
KEYS = AuthConfig(keys=(ANN, BOB, OLD, TIM))
HI = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text="Why?")])
CHAT = chat_pb2.ChatRequest(model="chat", messages=[HI])
SERVICE = "/manta.v1.Inference/"
CHECK = "/grpc.health.v1.Health/Check"
REQUESTS: dict[str, Message] = {
    "Chat": CHAT,
    "Ask": chat_pb2.AskRequest(model="docs", question="Why?"),
    "Generate": inference_pb2.GenerateRequest(model="chat", sampling=common_pb2.Sampling(max_tokens=1)),
    "Embed": inference_pb2.EmbedRequest(model="minilm", input=["hi"]),
    "Search": inference_pb2.SearchRequest(collection="books", query="Why?"),
    "ListModels": inference_pb2.ListModelsRequest(),
}
UNAUTHENTICATED, DENIED, UNKNOWN = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
)


class Attempt(NamedTuple):
    """A call that should be refused."""

    name: str
    code: grpc.StatusCode
    metadata: tuple[tuple[str, str | bytes], ...] = ()
    method: str = SERVICE + "Chat"
    request: Message = CHAT


def bearer(key: str) -> tuple[str, str]:
    return "authorization", f"Bearer {key}"


GOOD = bearer(ANN_KEY)
ATTEMPTS = [
    *(Attempt(f"no-key-{name}", UNAUTHENTICATED, (), SERVICE + name, request) for name, request in REQUESTS.items()),
    Attempt("wrong-key", UNAUTHENTICATED, (bearer("wrong"),)),
    Attempt("wrong-secret", UNAUTHENTICATED, (bearer("manta_ann_other"),)),
    Attempt("expired", UNAUTHENTICATED, (bearer(OLD_KEY),)),
    Attempt("no-scheme", UNAUTHENTICATED, (("authorization", ANN_KEY),)),
    Attempt("basic", UNAUTHENTICATED, (("authorization", f"Basic {ANN_KEY}"),)),
    Attempt("binary", UNAUTHENTICATED, (("authorization-bin", f"Bearer {ANN_KEY}".encode()),)),
    Attempt("x-api-key-binary", UNAUTHENTICATED, (("x-api-key-bin", ANN_KEY.encode()),)),
    Attempt("twice-right-first", UNAUTHENTICATED, (GOOD, bearer("wrong"))),
    Attempt("twice-wrong-first", UNAUTHENTICATED, (bearer("wrong"), GOOD)),
    Attempt("twice-both-right", UNAUTHENTICATED, (GOOD, bearer(BOB_KEY))),
    Attempt("joined", UNAUTHENTICATED, (("authorization", f"Bearer {ANN_KEY}, Bearer wrong"),)),
    Attempt("x-api-key-twice", UNAUTHENTICATED, (("x-api-key", ANN_KEY), ("x-api-key", BOB_KEY))),
    Attempt("x-api-key-differs", UNAUTHENTICATED, (GOOD, ("x-api-key", BOB_KEY))),
    Attempt("underscored", UNAUTHENTICATED, (("x_api_key", ANN_KEY),)),
    Attempt("very-long", UNAUTHENTICATED, (bearer("manta_ann_" + "x" * 6000),)),
    Attempt("in-the-message", UNAUTHENTICATED, (), SERVICE + "Generate", inference_pb2.GenerateRequest(prompt=ANN_KEY)),
    Attempt("of-another-pipeline", DENIED, (GOOD,), SERVICE + "Ask", REQUESTS["Ask"]),
    Attempt("of-another-embedder", DENIED, (GOOD,), SERVICE + "Embed", REQUESTS["Embed"]),
    Attempt("of-another-collection", DENIED, (bearer(TIM_KEY),), SERVICE + "Search", REQUESTS["Search"]),
    Attempt("health-of-a-model", UNAUTHENTICATED, (), CHECK, health_pb2.HealthCheckRequest(service="chat")),
    Attempt("health-of-nobody", UNAUTHENTICATED, (), CHECK, health_pb2.HealthCheckRequest(service="x")),
    Attempt("health-of-another", DENIED, (GOOD,), CHECK, health_pb2.HealthCheckRequest(service="docs")),
    *(
        Attempt(f"method-{name.replace('/', '-')}", UNKNOWN, (GOOD,), name)
        for name in (SERVICE + "asgi", SERVICE + "_status", SERVICE + "check_health", SERVICE + "chat", "/router/Chat")
    ),
]  # fmt: skip
IDS = [tried.name for tried in ATTEMPTS]


async def end_of(opened: grpc.aio.Channel, tried: Attempt) -> grpc.aio.AioRpcError:
    """Return what the call ends with; one that is answered fails the test."""
    is_stream = tried.method.rpartition("/")[2] in ("Chat", "Ask")
    make: Any = opened.unary_stream if is_stream else opened.unary_unary
    call = make(tried.method)(tried.request.SerializeToString(), metadata=tried.metadata, timeout=20)
    return await failure(call)


@pytest.mark.parametrize("tried", ATTEMPTS, ids=IDS)
async def test_an_attempt_is_refused_and_shows_nothing(tried: Attempt) -> None:
    retriever = FakeRetriever()
    made = ready(retriever=retriever, auth=KEYS)
    async with channel(made) as opened:
        error = await end_of(opened, tried)
    assert error.code() is tried.code, error.details()
    assert (upstream_of(made).requests, woken_of(made).calls, retriever.queries) == ([], [], [])
    said = f"{error.details()} {error.initial_metadata()} {error.trailing_metadata()}"
    assert leaks_in(said + str(rpc_status.from_call(error))) == []
    assert ANN_KEY not in said


async def test_the_health_of_the_whole_needs_no_key() -> None:
    async with channel(ready(auth=KEYS)) as opened:
        for name in ("", "manta.v1.Inference"):
            raw = health_pb2.HealthCheckRequest(service=name).SerializeToString()
            answer = await opened.unary_unary(CHECK)(raw)
            assert health_pb2.HealthCheckResponse.FromString(answer).status == health_pb2.HealthCheckResponse.SERVING


async def test_the_health_of_a_model_is_told_to_those_who_may_use_it() -> None:
    async with channel(ready(auth=KEYS)) as opened:
        raw = health_pb2.HealthCheckRequest(service="chat").SerializeToString()
        answer = await opened.unary_unary(CHECK)(raw, metadata=(GOOD,))
    assert health_pb2.HealthCheckResponse.FromString(answer).status == health_pb2.HealthCheckResponse.SERVING


async def test_the_same_key_twice_is_one_key() -> None:
    made = ready(auth=KEYS)
    async with channel(made) as opened:
        raw = REQUESTS["ListModels"].SerializeToString()
        answer = await opened.unary_unary(SERVICE + "ListModels")(raw, metadata=(GOOD, GOOD, ("x-api-key", ANN_KEY)))
    assert [model.id for model in inference_pb2.ListModelsResponse.FromString(answer).models] == ["chat"]
