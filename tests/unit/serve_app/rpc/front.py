"""The gRPC front over a gateway of fakes, on gRPC's own server: what Serve does to it is for the integration tests."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio

from serve_app.gateway import Gateway
from serve_app.inference import Inference
from serve_app.limits.permit import Admission
from serve_app.rpc.client import MantaClient
from serve_app.rpc.servicer import InferenceRpc
from serve_app.rpc.services import add_health, add_inference
from tests.unit.serve_app.fakes import SSE, Answer, FakeResponse, FakeRetriever, document, entry, gateway, snapshot


def event(document: dict[str, Any]) -> bytes:
    """Return an event of a stream."""
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def word(text: str, **more: Any) -> bytes:
    """Return an event with a piece of text."""
    return event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None, **more}]})


USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "prompt_tokens_details": {"cached_tokens": 1}}
END = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
LAST = event({"choices": [], "usage": USAGE}) + b"data: [DONE]\n\n"


def stream(*parts: Any) -> FakeResponse:
    """Return a replica's answer that comes in parts."""
    return FakeResponse(parts, content_type=SSE)


def ready(*answers: Answer, retriever: FakeRetriever | None = None, **changes: Any) -> Gateway:
    """Return a gateway with a replica."""
    made = gateway(*answers, retriever=retriever)
    made.update(snapshot(entry("r1"), routing=document(**changes)))
    return made


@asynccontextmanager
async def served(made: Gateway, *, is_local_only: bool = False, admission: Admission | None = None) -> AsyncGenerator[str]:
    """Serve the front and give its address."""
    server = grpc.aio.server()
    front = InferenceRpc(Inference(made, admission=admission), is_local_only=is_local_only)
    add_inference(front, server)
    add_health(front, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def client(made: Gateway, **options: Any) -> AsyncGenerator[MantaClient]:
    """Serve the front and give a client of it."""
    async with served(made) as target, MantaClient(target, **options) as connected:
        yield connected


@asynccontextmanager
async def channel(made: Gateway, **options: Any) -> AsyncGenerator[grpc.aio.Channel]:
    """Serve the front and give a bare channel to it."""
    async with served(made, **options) as target, grpc.aio.insecure_channel(target) as opened:
        yield opened
