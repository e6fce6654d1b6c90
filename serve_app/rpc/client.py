"""MantaClient: the gRPC API from asyncio, with plain values in and out and the platform's own errors."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message as ProtoMessage
from google.protobuf.struct_pb2 import Struct

from serve_app.deadline import TIMEOUT_HEADER
from serve_app.protos.manta.v1 import chat_pb2, inference_pb2, inference_pb2_grpc
from serve_app.rpc import results
from serve_app.rpc.errors import error_of_call
from serve_app.rpc.results import AskChunk, ChatChunk, Completion, Message, ModelInfo, Passage, Sampling, Vectors

__all__ = ["MantaClient", "Message", "Options", "Retrieval", "Sampling"]

R = TypeVar("R")
MOST_MESSAGE_BYTES = 64 * 2**20  # the platform's; gRPC's own default is 4 MiB
# A connection that a firewall has forgotten is noticed while a stream waits for its first token.
_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MOST_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MOST_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 300_000),
)
NO_SAMPLING = Sampling()


@dataclass(frozen=True, slots=True)
class Options:
    """What goes with one call."""

    timeout_s: float | None = None  # the call's deadline; None takes the client's
    session_id: str | None = None  # pins a conversation to a variant
    request_id: str | None = None  # shows in the platform's logs


NO_OPTIONS = Options()


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What a pipeline searches for one question, within the operator's bounds."""

    top_k: int | None = None
    filters: Mapping[str, Any] | None = None
    collection: str = ""


class MantaClient:
    """One connection to a platform; an async context manager. Every method raises PlatformError subclasses.

    A stream is cancelled on the platform when the loop over it ends early and the generator is closed.
    """

    def __init__(
        self,
        target: str,
        api_key: str | None = None,
        *,
        tls: grpc.ChannelCredentials | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Connect to ``host:port``, without encryption unless ``tls`` is given; calls take ``timeout_s`` seconds at most."""
        self._channel: grpc.aio.Channel = (
            grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS)
            if tls is None
            else grpc.aio.secure_channel(target, tls, options=_CHANNEL_OPTIONS)
        )
        self._stub = inference_pb2_grpc.InferenceStub(self._channel)  # type: ignore[no-untyped-call]  # generated
        self._api_key = api_key
        self._timeout_s = timeout_s

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection and what is open on it."""
        await self._channel.close()

    async def chat(
        self,
        model: str,
        messages: Sequence[Message],
        *,
        sampling: Sampling = NO_SAMPLING,
        extra: Mapping[str, Any] | None = None,
        options: Options = NO_OPTIONS,
    ) -> AsyncGenerator[ChatChunk]:
        """Yield the answer of a model or pipeline as it comes; ``extra`` is whatever else the REST API takes."""
        request = chat_pb2.ChatRequest(
            model=model,
            messages=map(results.message_proto, messages),
            sampling=results.sampling_proto(sampling),
            extra=_struct(extra),
        )
        async with aclosing(self.chat_request(request, options=options)) as responses:
            async for response in responses:
                for chunk in results.chat_chunks(response):
                    yield chunk

    async def chat_request(
        self, request: chat_pb2.ChatRequest, *, options: Options = NO_OPTIONS
    ) -> AsyncGenerator[chat_pb2.ChatResponse]:
        """Yield the messages that answer a request, which may have tools, formats and whatever else the .proto has."""
        async with aclosing(self._stream(self._stub.Chat, request, options)) as responses:
            async for response in responses:
                yield response

    async def ask(
        self,
        pipeline: str,
        question: str,
        *,
        retrieval: Retrieval | None = None,
        sampling: Sampling = NO_SAMPLING,
        options: Options = NO_OPTIONS,
    ) -> AsyncGenerator[AskChunk]:
        """Yield a pipeline's answer as it comes, then the passages that it rests on; ``chat`` takes a whole conversation."""
        request = chat_pb2.AskRequest(
            model=pipeline,
            question=question,
            retrieval=_retrieval(retrieval),
            sampling=results.sampling_proto(sampling),
        )
        async with aclosing(self._stream(self._stub.Ask, request, options)) as responses:
            async for response in responses:
                yield results.ask_chunk(response)

    async def generate(
        self, model: str, prompt: str, *, sampling: Sampling = NO_SAMPLING, options: Options = NO_OPTIONS
    ) -> Completion:
        """Return the completions of a prompt."""
        request = inference_pb2.GenerateRequest(model=model, prompt=prompt, sampling=results.sampling_proto(sampling))
        return await self._unary(self._stub.Generate, request, options, read=results.completion)

    async def embed(
        self, model: str, texts: Sequence[str], *, dimensions: int | None = None, options: Options = NO_OPTIONS
    ) -> Vectors:
        """Return one vector per text."""
        request = inference_pb2.EmbedRequest(model=model, input=texts, dimensions=dimensions)
        return await self._unary(self._stub.Embed, request, options, read=results.vectors)

    async def search(
        self,
        collection: str,
        query: str,
        *,
        top_k: int | None = None,
        filters: Mapping[str, Any] | None = None,
        options: Options = NO_OPTIONS,
    ) -> list[Passage]:
        """Return the passages of a collection or vector store that fit a query best."""
        request = inference_pb2.SearchRequest(collection=collection, query=query, top_k=top_k, filters=_struct(filters))
        return await self._unary(
            self._stub.Search, request, options, read=lambda answer: [results.passage(found) for found in answer.passages]
        )

    async def list_models(self, *, options: Options = NO_OPTIONS) -> list[ModelInfo]:
        """Return what the caller may use."""
        return await self._unary(
            self._stub.ListModels,
            inference_pb2.ListModelsRequest(),
            options,
            read=lambda answer: [results.model_info(model) for model in answer.models],
        )

    async def _unary(self, method: Any, request: ProtoMessage, options: Options, *, read: Callable[[Any], R]) -> R:
        try:
            return read(await method(request, **self._sent_along(options)))
        except grpc.aio.AioRpcError as err:
            raise _platform_error(err) from err

    async def _stream(self, method: Any, request: ProtoMessage, options: Options) -> AsyncGenerator[Any]:
        call = method(request, **self._sent_along(options))
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as err:
            raise _platform_error(err) from err
        finally:
            call.cancel()  # a call that has ended stays as it is

    def _sent_along(self, options: Options) -> dict[str, Any]:
        timeout_s = self._timeout_s if options.timeout_s is None else options.timeout_s
        said = (
            ("authorization", f"Bearer {self._api_key}" if self._api_key else None),
            ("x-session-id", options.session_id),
            ("x-request-id", options.request_id),
            # Said again, because Serve keeps gRPC's own deadline from what it serves.
            (TIMEOUT_HEADER, None if timeout_s is None else f"{max(timeout_s, 0.001):.3f}"),
        )
        return {"metadata": [(name, value) for name, value in said if value is not None], "timeout": timeout_s}


def _platform_error(err: grpc.aio.AioRpcError) -> Exception:
    trailers: Iterable[tuple[str, str | bytes]] = err.trailing_metadata() or ()
    return error_of_call(err.code(), err.details() or "", trailers)


def _struct(document: Mapping[str, Any] | None) -> Struct | None:
    if document is None:
        return None
    struct = Struct()
    struct.update(document)
    return struct


def _retrieval(retrieval: Retrieval | None) -> chat_pb2.Retrieval | None:
    if retrieval is None:
        return None
    filters = _struct(retrieval.filters)
    return chat_pb2.Retrieval(top_k=retrieval.top_k, filters=filters, collection=retrieval.collection)
