"""Requests over gRPC: chats and questions to pipelines.

Locust runs on gevent, and `grpc.aio` on asyncio: the two cannot share a thread. gRPC's core has an I/O layer of its own for
gevent, though, so the plain stubs wait without stopping the other users; that is what is used here. The core must be told
before its first channel, and after the worker process was forked: :func:`channel` is the one place that makes channels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import grpc
from grpc.experimental.gevent import init_gevent

from loadtests.exchange import Exchange
from loadtests.outcomes import Outcome, RequestFailed
from loadtests.scenario import Entry
from loadtests.users import rest
from loadtests.users.session import Session, Task
from serve_app.errors import ErrorKind
from serve_app.protos.manta.v1 import chat_pb2, common_pb2, inference_pb2_grpc
from serve_app.rpc.errors import error_of_call

# kind of error -> (class, the status that REST answers with)
OUTCOMES = {
    ErrorKind.UNAUTHENTICATED: (Outcome.UNAUTHENTICATED, 401),
    ErrorKind.RATE_LIMITED: (Outcome.RATE_LIMITED, 429),
    ErrorKind.UNAVAILABLE: (Outcome.SERVER_ERROR, 503),
    ErrorKind.DEADLINE: (Outcome.TIMEOUT, None),
    ErrorKind.INTERNAL: (Outcome.SERVER_ERROR, 500),
}
UNREACHABLE = ("connect", "dns", "name resolution", "handshake")  # what gRPC's own words for it have


@lru_cache(maxsize=8)
def channel(target: str) -> grpc.Channel:
    """Return the process' channel to a target."""
    init_gevent()
    return grpc.insecure_channel(target, options=[("grpc.max_receive_message_length", 64 * 2**20)])


def chat(session: Session, entry: Entry, task: Task) -> None:
    """Ask a model one question."""
    content = rest.prompt(entry, task)
    said = [(chat_pb2.ROLE_SYSTEM, message["content"]) for message in rest.system(entry)]
    messages = [
        chat_pb2.ChatMessage(role=role, content=[chat_pb2.ContentPart(text=text)])
        for role, text in (*said, (chat_pb2.ROLE_USER, content))
    ]
    request = chat_pb2.ChatRequest(model=entry.model, messages=messages, sampling=_sampling(entry, task))
    if entry.lengths.ignore_eos:
        request.extra.update({"ignore_eos": True})
    _run(session, entry, task, method=_Method("Chat", request, _chat_piece))


def ask(session: Session, entry: Entry, task: Task) -> None:
    """Ask a pipeline one question."""
    request = chat_pb2.AskRequest(
        model=entry.model,
        question=rest.question(entry, task),
        sampling=_sampling(entry, task),
        retrieval={"top_k": entry.top_k},
    )
    _run(session, entry, task, method=_Method("Ask", request, _ask_piece))


class _Method:
    """A method of the service, its request, and what says whether a message holds text."""

    def __init__(self, name: str, request: Any, has_text: Callable[[Any], bool]) -> None:
        self.name = name
        self.request = request
        self.has_text = has_text


def _run(session: Session, entry: Entry, task: Task, *, method: _Method) -> None:
    path = f"/manta.v1.Inference/{method.name}"
    seen = Exchange(entry.label, entry.model or "", path, task.intended_s, method="GRPC", is_stream=True)
    metadata = [("authorization", f"Bearer {session.api_key}")] if session.api_key else []
    stub = inference_pb2_grpc.InferenceStub(channel(session.scenario.target.grpc))  # type: ignore[no-untyped-call]  # generated

    def attempt(seen: Exchange, deadline_s: float) -> None:
        seen.sent_s = time.perf_counter()
        call = getattr(stub, method.name)(method.request, metadata=metadata, timeout=deadline_s - seen.sent_s)
        try:
            seen.stamps = list(_stamps(call, method, seen))
            seen.ended_s = time.perf_counter()
            seen.tokens = seen.tokens or len(seen.stamps)
        except grpc.RpcError as err:
            raise _failed(err, has_begun=seen.variant is not None) from err
        finally:
            call.cancel()

    session.exchange(seen, attempt)


def _stamps(call: Any, method: _Method, seen: Exchange) -> Iterator[float]:
    for message in call:
        now_s = time.perf_counter()
        if message.HasField("origin"):
            origin = message.origin
            part = (seen.model, origin.pipeline_version) if origin.pipeline_version else (origin.model, origin.variant)
            seen.variant = part if all(part) else None
        if message.HasField("usage"):
            seen.tokens, seen.prompt_tokens = message.usage.completion_tokens, message.usage.prompt_tokens
        seen.citations = len(message.citations) or seen.citations
        if method.has_text(message):
            yield now_s


def _chat_piece(message: chat_pb2.ChatResponse) -> bool:
    return any(choice.delta.content or choice.delta.reasoning for choice in message.choices)


def _ask_piece(message: chat_pb2.AskResponse) -> bool:
    return bool(message.text or message.reasoning)


def _sampling(entry: Entry, task: Task) -> common_pb2.Sampling:
    return common_pb2.Sampling(**rest.sampling(entry, task))


def _failed(err: Any, *, has_begun: bool) -> RequestFailed:
    code, details = err.code(), err.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE and not has_begun and any(word in details.lower() for word in UNREACHABLE):
        is_unnamed = "dns" in details.lower() or "name resolution" in details.lower()
        return RequestFailed(Outcome.DNS if is_unnamed else Outcome.CONNECT, f"gRPC: {details[:200]}")
    error = error_of_call(code, details, err.trailing_metadata() or ())
    outcome, status = OUTCOMES.get(error.kind, (Outcome.CLIENT_ERROR, None))
    if has_begun:  # an error that ends a stream
        outcome, status = Outcome.ERROR_EVENT, None
    return RequestFailed(outcome, f"{code.name}: {details[:200]}", status=status, retry_after_s=error.retry_after_s)
