"""The gRPC API in threads, for tests that run the whole instrument."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from serve_app.errors import RateLimited, Unavailable
from serve_app.protos.manta.v1 import chat_pb2, common_pb2, inference_pb2_grpc
from serve_app.rpc.errors import CODE, DETAILS_KEY, status_of


class _Servicer(inference_pb2_grpc.InferenceServicer):
    def Chat(self, request: chat_pb2.ChatRequest, context: Any) -> Iterator[chat_pb2.ChatResponse]:
        yield chat_pb2.ChatResponse(origin=common_pb2.Origin(model=request.model, variant="stable"))
        if request.model == "breaking":
            _refuse(context, Unavailable("the replica has left"))
        for _ in range(request.sampling.max_tokens):
            yield chat_pb2.ChatResponse(choices=[chat_pb2.ChatChoice(delta=chat_pb2.ChatDelta(content="word "))])
        yield chat_pb2.ChatResponse(usage=common_pb2.Usage(prompt_tokens=5, completion_tokens=request.sampling.max_tokens))

    def Ask(self, request: chat_pb2.AskRequest, context: Any) -> Iterator[chat_pb2.AskResponse]:
        if request.model == "limited":
            _refuse(context, RateLimited("too many", retry_after_s=1))
        yield chat_pb2.AskResponse(origin=common_pb2.Origin(model="chat", variant="stable", pipeline_version="v1"))
        for _ in range(request.sampling.max_tokens):
            yield chat_pb2.AskResponse(text="word ")
        yield chat_pb2.AskResponse(citations=[common_pb2.Passage(number=1)])


def _refuse(context: Any, error: Any) -> None:
    context.set_trailing_metadata(((DETAILS_KEY, status_of(error, "r1").SerializeToString()),))
    context.abort(CODE[error.kind], error.message)


@contextmanager
def grpc_platform() -> Iterator[str]:
    """Run one; yields its address."""
    server = grpc.server(ThreadPoolExecutor(max_workers=16))
    inference_pb2_grpc.add_InferenceServicer_to_server(_Servicer(), server)  # type: ignore[no-untyped-call]  # generated
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(grace=None).wait()
