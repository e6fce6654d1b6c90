"""Gateway: the one core of a request, free of Ray and of web frameworks."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from serve_app.affinity import affinity_key
from serve_app.config import ApiKeyConfig
from serve_app.contracts import DirectorySnapshot, Embedder, EmbeddingFingerprint, Retriever
from serve_app.errors import (
    BadRequest,
    ErrorKind,
    PlatformError,
    Unavailable,
    UnknownModel,
)
from serve_app.pool import Lease, ReplicaPool
from serve_app.rollout.document import RoutedModel, RoutingDocument
from serve_app.upstream import ReplicaDraining, ReplicaUnreachable, Upstream, UpstreamRequest, UpstreamResponse
from serve_app.view import RoutingView

logger = logging.getLogger("ray.serve")

ATTEMPTS = 4  # replicas tried before the first byte
Wake = Callable[[str, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Call:
    """One request that names a model, as the fronts hand it over."""

    path: str  # with the query string
    body: Mapping[str, Any]
    raw: bytes  # the body as received; relayed untouched to models
    caller: ApiKeyConfig
    request_id: str
    session_id: str | None = None

    @property
    def affinity(self) -> str:
        """The conversation's affinity key."""
        return affinity_key(self.caller.name, self.body, session_id=self.session_id)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: whole bytes, or an open stream that the front must close."""

    content_type: str
    body: bytes | AsyncIterator[bytes]
    model: str
    variant: str
    pipeline_version: str | None = None


@dataclass(frozen=True, slots=True)
class Stages:
    """The other deployments of the graph, as the gateway calls them."""

    retriever: Retriever
    embedders: Mapping[str, Embedder] = field(default_factory=dict)


class Gateway:
    """Authenticate, resolve, pick, lease, relay. One per Router replica, on one event loop."""

    def __init__(
        self, *, upstream: Upstream, wake: Wake, stages: Stages, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._upstream = upstream
        self._wake = wake
        self.stages = stages
        self.view = RoutingView(RoutingDocument())
        self.pool = ReplicaPool(clock=clock)
        self.version: tuple[str, int] = ("", -1)
        self._routing = ""
        self._waking: dict[tuple[str, str], asyncio.Task[None]] = {}

    def update(self, snapshot: DirectorySnapshot) -> None:
        """Take a snapshot of the directory and the routing document."""
        if snapshot.routing != self._routing:
            self.view = RoutingView(RoutingDocument.model_validate_json(snapshot.routing))
            self.pool.max_waiting = self.view.document.limits.max_waiting
            self._routing = snapshot.routing
        self.pool.update(snapshot.replicas, is_complete=snapshot.is_complete)
        self.version = (snapshot.epoch, snapshot.version)

    def is_ready(self, model: str | None = None) -> bool:
        """Whether the model, or at least one if none is named, has a replica that takes work."""
        if model is not None and model not in self.view.models:
            raise UnknownModel(model)
        models = self.view.models.values() if model is None else [self.view.models[model]]
        has_one = any(self.pool.has_ready(m.name, v.name) for m in models for v in m.variants)
        return has_one or (model is None and bool(self._routing) and not self.view.models)

    async def relay(self, call: Call, model: RoutedModel) -> Reply:
        """Send a request for a model to one of its replicas and return the answer.

        Until the first byte is here, other replicas are tried, and other variants when the conversation's own has no
        replica that is ready.

        Raises:
            UpstreamRejected: the engine refused the request.
            RateLimited, DeadlineExceeded, Unavailable: no replica took it.
        """
        affinity = call.affinity
        request = UpstreamRequest("POST", call.path, call.raw, call.request_id)
        tried: list[str] = []
        while len(tried) < ATTEMPTS:
            lease = await self._lease(model, affinity, tried)
            is_handed_over = False
            try:
                response = await self._upstream.open(lease.url, request)
                if response.status < 400 and response.content_type.startswith("text/event-stream"):
                    is_handed_over = True
                    return Reply(response.content_type, _stream(response, lease), model.name, lease.variant)
                return await _whole(response, model.name, lease.variant)
            except ReplicaDraining:
                self.pool.drain(lease.replica_id)
            except ReplicaUnreachable as err:
                logger.warning("replica %s unreachable: %s", lease.replica_id, err)
                self.pool.eject(lease.replica_id)
            finally:
                if not is_handed_over:
                    lease.release()
            tried.append(lease.replica_id)
        raise Unavailable(f"no replica of model {model.name!r} could be reached", retry_after_s=5)

    async def embed(self, name: str, texts: list[str]) -> list[list[float]]:
        """Return one vector per text from an embedder."""
        return await self.stages.embedders[name].embed(texts)

    async def describe_embedder(self, name: str) -> EmbeddingFingerprint:
        """Return what an embedder's vectors are."""
        return await self.stages.embedders[name].describe()

    async def _lease(self, model: RoutedModel, affinity: str, tried: list[str]) -> Lease:
        variant = self._ready_variant(model, affinity)
        routed = next(v for v in model.variants if v.name == variant)
        return await self.pool.lease(
            (model.name, variant),
            affinity=affinity,
            max_leases=routed.max_leases,
            timeout_s=self.view.document.limits.wait_timeout_s,
            exclude=tried,
        )

    def _ready_variant(self, model: RoutedModel, affinity: str) -> str:
        """Return the conversation's variant, or the heaviest ready one while its own has no replica."""
        own = self.view.variant(model, affinity)
        if self.pool.has_ready(model.name, own):
            return own
        self._start_waking(model.name, own)
        ready = [v for v in model.variants if v.weight and self.pool.has_ready(model.name, v.name)]
        return max(ready, key=lambda v: v.weight).name if ready else own

    def _start_waking(self, model: str, variant: str) -> None:
        key = (model, variant)
        task = self._waking.get(key)
        if task is None or task.done():
            self._waking[key] = asyncio.create_task(self._wake_quietly(model, variant))

    async def _wake_quietly(self, model: str, variant: str) -> None:
        try:
            await self._wake(model, variant)
        except Exception:
            logger.exception("waking %s.%s failed", model, variant)


class UpstreamRejected(PlatformError):
    """The engine answered with an error of its own."""

    def __init__(self, status: int, body: bytes) -> None:
        message, param, code = _engine_error(body)
        self.kind = _KINDS.get(status, ErrorKind.BAD_REQUEST if status < 500 else ErrorKind.INTERNAL)
        self.code = code or self.kind.value
        if status >= 500:
            logger.error("the engine answered %d: %s", status, body[:2000])
            message = "the engine failed to answer this request"
        super().__init__(message, param=param)


_KINDS = {
    401: ErrorKind.INTERNAL,  # our own token was refused: nothing a client did
    404: ErrorKind.NOT_FOUND,
    413: ErrorKind.TOO_LARGE,
    429: ErrorKind.RATE_LIMITED,
    503: ErrorKind.UNAVAILABLE,
    504: ErrorKind.DEADLINE,
}


def _engine_error(body: bytes) -> tuple[str, str | None, str | None]:
    try:
        document = json.loads(body)
        error = document.get("error", document)
        if isinstance(error, str):
            return error, None, None
        message, param, code = (error.get(k) for k in ("message", "param", "code"))
    except (ValueError, AttributeError):
        return "the engine refused this request", None, None
    return (
        str(message or error.get("detail") or "the engine refused this request"),
        param if isinstance(param, str) else None,
        code if isinstance(code, str) else None,
    )


async def _whole(response: UpstreamResponse, model: str, variant: str) -> Reply:
    try:
        body = await response.read()
    finally:
        response.close()
    if response.status >= 400:
        raise UpstreamRejected(response.status, body)
    return Reply(response.content_type, body, model, variant)


async def _stream(response: UpstreamResponse, lease: Lease) -> AsyncIterator[bytes]:
    """Yield the replica's bytes as they come; a connection that breaks ends in an error event, never silently."""
    try:
        async for chunk in response.chunks():
            yield chunk
    except ReplicaUnreachable:
        logger.warning("stream from replica %s broke", lease.replica_id)
        yield error_event("the replica that was answering has failed; send the request again")
    finally:
        response.close()
        lease.release()


def error_event(message: str) -> bytes:
    """Return a server-sent event with OpenAI's error object, which SDKs raise as an APIError."""
    error = {"message": message, "type": "server_error", "param": None, "code": "stream_broken"}
    return b"\n\ndata: " + json.dumps({"error": error}).encode() + b"\n\n"


def require_text(value: object, param: str) -> str:
    """Return a non-empty string. Raises BadRequest naming the field."""
    if not isinstance(value, str) or not value.strip():
        raise BadRequest(f"{param} must be a non-empty string", param=param)
    return value


