"""The gRPC front: the methods that Serve calls by the names of the RPCs. They parse, call the core and encode."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2

from serve_app.errors import BadRequest, PlatformError, UnknownModel
from serve_app.filters import parse_filter
from serve_app.gateway import Reply
from serve_app.inference import Inference
from serve_app.observing.record import NONE
from serve_app.protos.manta.v1 import chat_pb2, common_pb2, inference_pb2
from serve_app.rpc import answers, convert
from serve_app.rpc.answers import Json
from serve_app.rpc.call import RpcCall, RpcContext
from serve_app.rpc.errors import CODE, internal_error
from serve_app.rpc.services import INFERENCE

logger = logging.getLogger("ray.serve")

M = TypeVar("M", bound=Message)
S = TypeVar("S", chat_pb2.ChatResponse, chat_pb2.AskResponse)
CHAT_PATH = "/v1/chat/completions"
DEFAULT_PASSAGES = 10
PLATFORM = ("", INFERENCE.full_name)  # names in health checks that mean all of it


class InferenceRpc:
    """The methods of manta.v1.Inference and grpc.health.v1.Health; the Router is one.

    Serve finds them by name, hands over a message's bytes, and gives the context to a parameter called ``grpc_context``.
    No exception may leave them: Serve would send its text to the client, and drop the trailing metadata.
    """

    def __init__(self, inference: Inference, *, is_local_only: bool = False) -> None:
        self._inference = inference
        self._is_local_only = is_local_only

    async def Chat(self, request: bytes, grpc_context: RpcContext) -> AsyncGenerator[chat_pb2.ChatResponse]:
        """Continue a conversation; yield the answer as it comes."""
        async with aclosing(self._stream(request, grpc_context, ask=_chat, encode=answers.chat_response)) as messages:
            async for message in messages:
                yield message

    async def Ask(self, request: bytes, grpc_context: RpcContext) -> AsyncGenerator[chat_pb2.AskResponse]:
        """Ask a pipeline; yield the answer as it comes, then what it rests on."""
        async with aclosing(self._stream(request, grpc_context, ask=_ask, encode=answers.ask_response)) as messages:
            async for message in messages:
                yield message

    async def Generate(self, request: bytes, grpc_context: RpcContext) -> inference_pb2.GenerateResponse:
        """Return the completion of a prompt."""
        return await self._unary(request, grpc_context, work=_generate, empty=inference_pb2.GenerateResponse())

    async def Embed(self, request: bytes, grpc_context: RpcContext) -> inference_pb2.EmbedResponse:
        """Return one vector per text."""
        return await self._unary(request, grpc_context, work=_embed, empty=inference_pb2.EmbedResponse())

    async def Search(self, request: bytes, grpc_context: RpcContext) -> inference_pb2.SearchResponse:
        """Return the best passages for a query."""
        return await self._unary(request, grpc_context, work=_search, empty=inference_pb2.SearchResponse())

    async def ListModels(self, request: bytes, grpc_context: RpcContext) -> inference_pb2.ListModelsResponse:
        """Return what the caller may use."""
        return await self._unary(request, grpc_context, work=_list_models, empty=inference_pb2.ListModelsResponse())

    async def Check(self, request: bytes, grpc_context: RpcContext) -> health_pb2.HealthCheckResponse:
        """Return whether the platform, or the model or pipeline that is named, takes work."""
        try:
            name = health_pb2.HealthCheckRequest.FromString(request).service
            if name not in PLATFORM:  # what is deployed is told to callers only
                self._inference.view.authorize(self._call(grpc_context).authenticate(), name)
            return health_pb2.HealthCheckResponse(status=self._health(name))
        except UnknownModel:
            _end(grpc_context, grpc.StatusCode.NOT_FOUND, "nothing of this name is served here")
        except PlatformError as err:
            _end(grpc_context, CODE[err.kind], err.message)
        except DecodeError:
            _end(grpc_context, grpc.StatusCode.INVALID_ARGUMENT, "the request is no HealthCheckRequest")
        except Exception:
            logger.exception("a health check failed")
            _end(grpc_context, grpc.StatusCode.INTERNAL, internal_error().message)
        return health_pb2.HealthCheckResponse()

    async def List(self, request: bytes, grpc_context: RpcContext) -> health_pb2.HealthListResponse:  # noqa: ARG002
        """Return the health of every service."""
        status = health_pb2.HealthCheckResponse(status=self._health(""))
        return health_pb2.HealthListResponse(statuses={"": status, INFERENCE.full_name: status})

    async def Watch(self, request: bytes, grpc_context: RpcContext) -> AsyncGenerator[health_pb2.HealthCheckResponse]:  # noqa: ARG002
        """Refuse: a watch never ends, and a Router that stops waits for what is open; clients then take it for healthy."""
        _end(grpc_context, grpc.StatusCode.UNIMPLEMENTED, "Watch is not served here; use Check")
        return
        yield  # this makes it a stream

    def _health(self, name: str) -> health_pb2.HealthCheckResponse.ServingStatus:
        is_ready = self._inference.is_ready(None if name in PLATFORM else name)
        return health_pb2.HealthCheckResponse.SERVING if is_ready else health_pb2.HealthCheckResponse.NOT_SERVING

    def _call(self, context: RpcContext, *, endpoint: str = NONE) -> RpcCall:
        return RpcCall(self._inference, context, endpoint=endpoint, is_local_only=self._is_local_only)

    async def _unary(self, raw: bytes, context: RpcContext, *, work: Callable[[RpcCall, bytes], Awaitable[M]], empty: M) -> M:
        call = self._call(context, endpoint=type(empty).__name__.removesuffix("Response"))
        with call.recorded():
            try:
                answer = await work(call, raw)
                call.finish()
            except Exception as err:
                call.fail(_told(err, call))
                return empty
        return answer

    async def _stream(
        self, raw: bytes, context: RpcContext, *, ask: Callable[[RpcCall, bytes], Awaitable[Reply]], encode: Callable[[Json], S]
    ) -> AsyncGenerator[S]:
        call = self._call(context, endpoint="Ask" if ask is _ask else "Chat")
        with call.recorded():
            try:
                reply = await ask(call, raw)
                # Closed with this generator, so that a client that leaves frees the replica that answers it.
                async with aclosing(answers.documents(reply)) as documents:
                    origin: common_pb2.Origin | None = call.origin()
                    async for document in documents:
                        message = encode(document)
                        if origin is not None:
                            message.origin.CopyFrom(origin)
                            origin = None
                        yield message
                call.finish()
            except Exception as err:
                call.fail(_told(err, call))


async def _chat(call: RpcCall, raw: bytes) -> Reply:
    caller, request = call.read(raw, chat_pb2.ChatRequest())
    return await call.ask(caller, CHAT_PATH, body=convert.chat_body(request))


async def _ask(call: RpcCall, raw: bytes) -> Reply:
    caller, request = call.read(raw, chat_pb2.AskRequest())
    body = convert.ask_body(request)
    call.inference.view.authorize(caller, request.model)
    if request.model not in call.inference.view.pipelines:
        raise BadRequest(f"{request.model!r} is no pipeline; Chat and Generate take models", param="model")
    return await call.ask(caller, CHAT_PATH, body=body)


async def _generate(call: RpcCall, raw: bytes) -> inference_pb2.GenerateResponse:
    caller, request = call.read(raw, inference_pb2.GenerateRequest())
    reply = await call.ask(caller, "/v1/completions", body=convert.generate_body(request))
    answer = answers.generate_response(await answers.whole(reply))
    answer.origin.CopyFrom(call.origin())
    return answer


async def _embed(call: RpcCall, raw: bytes) -> inference_pb2.EmbedResponse:
    caller, request = call.read(raw, inference_pb2.EmbedRequest())
    if request.model in call.inference.view.embedders:
        dimensions = request.dimensions if request.HasField("dimensions") else None
        made = await call.inference.embed(caller, request.model, list(request.input), dimensions=dimensions)
        call.answered_by(made.model, made.headers)
        answer = answers.embed_response(made.vectors, made.tokens)
    else:
        document = await answers.whole(await call.ask(caller, "/v1/embeddings", body=convert.embeddings_body(request)))
        vectors = [entry["embedding"] for entry in document["data"]]
        answer = answers.embed_response(vectors, document["usage"]["prompt_tokens"])
    answer.origin.CopyFrom(call.origin())
    return answer


async def _search(call: RpcCall, raw: bytes) -> inference_pb2.SearchResponse:
    caller, request = call.read(raw, inference_pb2.SearchRequest())
    wanted = convert.struct_json(request.filters, "filters")
    hits = await call.inference.search(
        caller,
        collection=request.collection,
        query=request.query,
        top_k=request.top_k if request.HasField("top_k") else DEFAULT_PASSAGES,
        filters=parse_filter(wanted, param="filters") if wanted else None,
    )
    passages = [answers.passage(number, hit) for number, hit in enumerate(hits, start=1)]
    return inference_pb2.SearchResponse(origin=call.origin(), passages=passages)


async def _list_models(call: RpcCall, raw: bytes) -> inference_pb2.ListModelsResponse:
    caller, _ = call.read(raw, inference_pb2.ListModelsRequest())
    models = [answers.model(card) for card in call.inference.models(caller)]
    return inference_pb2.ListModelsResponse(origin=call.origin(), models=models)


def _told(error: Exception, call: RpcCall) -> PlatformError:
    """Return what the client hears of an error; one that nobody expected is logged."""
    if isinstance(error, PlatformError):
        return error
    logger.error("request %s failed", call.request_id, exc_info=error)
    return internal_error()


def _end(context: RpcContext, code: grpc.StatusCode, details: str) -> None:
    context.set_code(code)
    context.set_details(details)
