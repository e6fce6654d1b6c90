"""gRPC: status codes with google.rpc's details, deadlines, cancellation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from serve_app.protos.manta.v1 import chat_pb2, common_pb2, inference_pb2
from tests.e2e.clients.checks import TRIES, Checks
from tests.e2e.clients.grpc_channel import HERE, channel, chat_request, refused, struct, stub, with_key

check = Checks()


def details_of(error: Any) -> dict[str, Any]:
    status = rpc_status.from_call(error)
    assert status is not None, "the error carries no google.rpc.Status"
    return dict(_unpacked(status))


def _unpacked(status: Any) -> Iterator[tuple[str, Any]]:
    for detail in status.details:
        for kind in ("ErrorInfo", "RequestInfo", "BadRequest", "RetryInfo"):
            made = getattr(error_details_pb2, kind)()
            if detail.Unpack(made):
                yield kind, made


def endless() -> chat_pb2.ChatRequest:
    return chat_request(sampling=common_pb2.Sampling(max_tokens=1500, temperature=0), extra=struct({"ignore_eos": True}))


@check("wrong-key")
def wrong_key() -> str:
    for key in ("manta_plain_wrong", HERE.expired_key):
        sent = with_key(key)
        error = refused(lambda sent=sent: stub.Chat(chat_request(), **sent), grpc.StatusCode.UNAUTHENTICATED)  # type: ignore[misc]
    return str(error.details())


@check("forbidden-model")
def forbidden_model() -> str:
    narrow = with_key(HERE.embedding_key)
    return str(refused(lambda: stub.Chat(chat_request(), **narrow), grpc.StatusCode.PERMISSION_DENIED).details())


@check("unknown-model")
def unknown_model() -> str:
    error = refused(lambda: stub.Chat(chat_request(model="nobody"), **with_key(HERE.key)), grpc.StatusCode.NOT_FOUND)
    info = details_of(error)["ErrorInfo"]
    assert (info.domain, info.reason) == ("manta", "model_not_found")
    return str(error.details())


@check("bad-parameter")
def bad_parameter() -> str:
    request = chat_request(sampling=common_pb2.Sampling(max_tokens=4, temperature=-1))
    error = refused(lambda: stub.Chat(request, **with_key(HERE.key)), grpc.StatusCode.INVALID_ARGUMENT)
    [violation] = details_of(error)["BadRequest"].field_violations
    assert violation.field == "temperature"
    return str(violation.description)


@check("rate-limit")
def rate_limit() -> str:
    request = inference_pb2.EmbedRequest(model="minilm", input=["x"])
    sent = with_key(HERE.limited_key)
    error = refused(lambda: [stub.Embed(request, **sent)], grpc.StatusCode.RESOURCE_EXHAUSTED, tries=TRIES)
    assert details_of(error)["RetryInfo"].retry_delay.ToNanoseconds() > 0
    return str(error.details())


@check("cancel")
def cancel() -> str:
    call = stub.Chat(endless(), **with_key(HERE.key))
    next(iter(call))
    call.cancel()
    assert call.code() is grpc.StatusCode.CANCELLED
    return "after the first message"


@check("deadline")
def deadline() -> str:
    refused(lambda: stub.Chat(endless(), **{**with_key(HERE.key), "timeout": 0.5}), grpc.StatusCode.DEADLINE_EXCEEDED)
    return "0.5 s"


if __name__ == "__main__":
    with channel:
        check.run()
