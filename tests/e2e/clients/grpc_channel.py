"""A channel to the platform under test, and what the checks ask through its generated stubs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

from serve_app.protos.manta.v1 import chat_pb2, common_pb2, inference_pb2_grpc
from tests.e2e.clients.checks import PROMPT, error_of, place

HERE = place()
channel = grpc.insecure_channel(HERE.grpc)
stub: Any = inference_pb2_grpc.InferenceStub(channel)  # type: ignore[no-untyped-call]  # generated

GREEDY = common_pb2.Sampling(max_tokens=40, temperature=0)


def with_key(key: str) -> dict[str, Any]:
    """Return what goes along with a call."""
    return {"metadata": (("authorization", f"Bearer {key}"),), "timeout": 120}


def chat_request(text: str = PROMPT, *, model: str = "chat", **more: Any) -> chat_pb2.ChatRequest:
    """Return a request with one message of a user."""
    message = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text=text)])
    return chat_pb2.ChatRequest(model=model, messages=[message], sampling=more.pop("sampling", GREEDY), **more)


def text_of(answer: list[chat_pb2.ChatResponse]) -> str:
    """Return the text of a stream."""
    return "".join(choice.delta.content for message in answer for choice in message.choices)


def struct(document: dict[str, Any]) -> Struct:
    """Return a JSON object as protobuf's."""
    return ParseDict(document, Struct())


def refused(call: Callable[[], Any], code: grpc.StatusCode, *, tries: int = 1) -> Any:
    """Return the error that ends a call with this status."""
    error: Any = error_of(grpc.RpcError, lambda: list(call()), tries=tries)
    assert error.code() is code, error
    return error
