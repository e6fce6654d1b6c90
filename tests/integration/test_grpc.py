"""The gRPC surface through Serve's HAProxy, with gRPC's own stubs and with our client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from serve_app.credentials import hash_of, new_key
from serve_app.errors import BodyTooLarge, DeadlineExceeded, ErrorKind, PlatformError, Unauthenticated, UnknownModel
from serve_app.protos.manta.v1 import chat_pb2, common_pb2, inference_pb2, inference_pb2_grpc
from serve_app.rpc.client import MantaClient, Message, Options, Sampling
from tests.integration.conftest import CONFIG
from tests.integration.platform import Platform

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

HI = [Message("user", "hi")]
CHAT = chat_pb2.ChatRequest(
    model="chat",
    messages=[chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text="hi")])],
    sampling=common_pb2.Sampling(max_tokens=3),
)
FOLLOW_S = 30.0  # a change of keys reaches every Router within seconds


@pytest_asyncio.fixture
async def manta(platform: Platform) -> AsyncGenerator[MantaClient]:
    async with MantaClient(platform.grpc_target, timeout_s=60) as client:
        yield client


@pytest_asyncio.fixture
async def channel(platform: Platform) -> AsyncGenerator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(platform.grpc_target) as opened:
        yield opened


def stub(channel: grpc.aio.Channel) -> Any:
    return inference_pb2_grpc.InferenceStub(channel)  # type: ignore[no-untyped-call]


async def until(condition: Any, *, timeout_s: float = FOLLOW_S) -> None:
    """Wait until an async condition holds."""
    deadline_s = time.monotonic() + timeout_s
    while not await condition():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.2)


async def test_stubs_get_the_tokens_that_rest_gives(platform: Platform, channel: grpc.aio.Channel) -> None:
    call = stub(channel).Chat(CHAT, metadata=[("x-request-id", "mine-7")])
    messages = [message async for message in call]
    async with httpx.AsyncClient(timeout=60) as http:
        body = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
        rest = (await http.post(f"{platform.url}/v1/chat/completions", json=body)).json()
    assert "".join(c.delta.content for m in messages for c in m.choices) == rest["choices"][0]["message"]["content"]
    assert messages[0].origin == common_pb2.Origin(request_id="mine-7", model="chat", variant="stable")
    said = dict(await call.trailing_metadata())
    assert (said["x-request-id"], said["x-manta-model"], said["x-manta-variant"]) == ("mine-7", "chat", "stable")


async def test_whole_answers_and_the_list_of_models(manta: MantaClient) -> None:
    completion = await manta.generate("chat", "Once", sampling=Sampling(max_tokens=2))
    assert (completion.finish_reasons, completion.usage.completion_tokens) == (("length",), 2)
    assert [(m.id, m.kind) for m in await manta.list_models()] == [("chat", "model")]


async def test_reflection_lists_the_services(channel: grpc.aio.Channel) -> None:
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
    ask = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    [answer] = [answer async for answer in reflection.ServerReflectionInfo(ask)]
    names = [service.name for service in answer.list_services_response.service]
    assert {"grpc.health.v1.Health", "manta.v1.Inference"} <= set(names)


@pytest.mark.parametrize("service", ["", "manta.v1.Inference", "chat"])
async def test_health_is_served(channel: grpc.aio.Channel, service: str) -> None:
    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_errors_keep_their_details_on_the_way(manta: MantaClient, channel: grpc.aio.Channel) -> None:
    with pytest.raises(UnknownModel) as caught:
        [_ async for _ in manta.chat("nobody", HI)]
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub(channel).Generate(inference_pb2.GenerateRequest(model="nobody"), metadata=[("x-request-id", "mine-8")])
    status = rpc_status.from_call(refused.value)
    request = error_details_pb2.RequestInfo()
    assert any(detail.Unpack(request) for detail in status.details)
    assert (status.code, request.request_id) == (grpc.StatusCode.NOT_FOUND.value[0], "mine-8")


async def test_the_engines_refusal_names_the_field(manta: MantaClient) -> None:
    with pytest.raises(PlatformError) as caught:
        await manta.generate("chat", "Once", sampling=Sampling(max_tokens=0))
    assert (caught.value.code, caught.value.param) == ("invalid_request", "max_tokens")


async def test_bytes_that_are_no_message_are_a_bad_request(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary("/manta.v1.Inference/Generate")(b"\xff\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_other_applications_are_not_reached(channel: grpc.aio.Channel) -> None:
    for name in ("rollouts", "llm.chat.stable", "nobody"):
        call = stub(channel).Chat(CHAT, metadata=[("application", name)])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(aiter(call))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_large_messages_pass_and_too_large_ones_are_refused(manta: MantaClient) -> None:
    assert await padded(manta, 6_000_000)
    for size, kind in ((20_000_000, BodyTooLarge), (70_000_000, PlatformError)):
        with pytest.raises(kind) as caught:
            await padded(manta, size)
        assert caught.value.kind in (ErrorKind.TOO_LARGE, ErrorKind.RATE_LIMITED)
    assert await padded(manta, 1)


async def padded(manta: MantaClient, size: int) -> str:
    """Return the answer to a chat that is this large, with a prompt that is short."""
    chunks = manta.chat("chat", HI, sampling=Sampling(max_tokens=1), extra={"pad": "x" * size})
    return "".join([chunk.text async for chunk in chunks])


async def test_leaving_and_a_deadline_free_the_replica(platform: Platform, manta: MantaClient) -> None:
    async with aclosing(manta.chat("chat", HI, sampling=Sampling(max_tokens=2000))) as chunks:
        await anext(chunks)
        await until(lambda: is_running(platform, 1))
    await until(lambda: is_running(platform, 0))
    with pytest.raises(DeadlineExceeded):
        [_ async for _ in manta.chat("chat", HI, sampling=Sampling(max_tokens=2000), options=Options(timeout_s=1))]
    await until(lambda: is_running(platform, 0))


async def test_a_whole_answer_that_is_late_is_a_deadline_too(manta: MantaClient) -> None:
    # The simulated engine finishes whole answers that nobody waits for, so that this one is short.
    with pytest.raises(DeadlineExceeded):
        await manta.generate("chat", "Once", sampling=Sampling(max_tokens=60), options=Options(timeout_s=1))


async def is_running(platform: Platform, count: int) -> bool:
    line = await asyncio.to_thread(platform.variant)
    return bool(line["running"] == count)


@pytest.fixture
def key(platform: Platform) -> Iterator[str]:
    """A key that the platform asks for while the test runs."""
    made = new_key("ann")
    platform.deploy({**CONFIG, "auth": {"keys": [{"name": "ann", "hash": hash_of(made)}]}})
    yield made
    platform.deploy(CONFIG)


async def test_keys_are_those_of_rest(platform: Platform, key: str) -> None:
    async with MantaClient(platform.grpc_target, timeout_s=60) as nobody, MantaClient(platform.grpc_target, key) as ann:

        async def is_locked() -> bool:
            try:
                await nobody.list_models()
            except Unauthenticated:
                return True
            return False

        await until(is_locked)
        with pytest.raises(Unauthenticated):
            [_ async for _ in nobody.chat("chat", HI)]
        assert "".join([chunk.text async for chunk in ann.chat("chat", HI, sampling=Sampling(max_tokens=1))])
