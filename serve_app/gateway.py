"""Gateway: the one core of a request, free of Ray and of web frameworks."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from serve_app.affinity import affinity_key, prefix_key
from serve_app.answerer import Answerer
from serve_app.config import ApiKeyConfig
from serve_app.contracts import CountingEmbedder, DirectorySnapshot, EmbeddingFingerprint, Retriever
from serve_app.documents.contract import Documents
from serve_app.engine_errors import UpstreamRejected
from serve_app.errors import BadRequest, PlatformError, Unavailable, UnknownModel
from serve_app.limits.permit import UNLIMITED, Permit
from serve_app.pool import Lease, ReplicaPool, Target
from serve_app.replica_set import Balance
from serve_app.rollout.document import RoutedModel, RoutingDocument
from serve_app.sse import ByteStream
from serve_app.streams import LeasedStream
from serve_app.upstream import ReplicaDraining, ReplicaUnreachable, Upstream, UpstreamRequest, UpstreamResponse
from serve_app.usage import metered, prompt_estimate, tells_usage, usage_of, with_usage
from serve_app.view import RoutingView

logger = logging.getLogger("ray.serve")

ATTEMPTS = 4  # replicas tried before the first byte
BROKEN_ATTEMPTS = 2  # connections that may break with the request on them: a request that kills engines must not kill all
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
    content_type: str = "application/json"
    permit: Permit = UNLIMITED  # what the call may use
    answerer: Answerer = field(default_factory=Answerer)  # who answers; shared by the calls that are made for this one

    @property
    def affinity(self) -> str:
        """The conversation's affinity key."""
        return affinity_key(self.caller.tenant_name, self.body, session_id=self.session_id)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: whole bytes, or an open stream that the front must close."""

    content_type: str
    body: bytes | ByteStream
    model: str
    variant: str
    pipeline_version: str | None = None
    headers: tuple[tuple[str, str], ...] = ()  # what the caller's limits still allow


@dataclass(frozen=True, slots=True)
class Stages:
    """The other deployments of the graph, as the gateway calls them."""

    retriever: Retriever
    embedders: Mapping[str, CountingEmbedder] = field(default_factory=dict)
    documents: Documents | None = None


@dataclass(slots=True)
class _Errand:
    """A request on its way to a replica, and what became of it so far."""

    model: str
    request: UpstreamRequest
    call: Call
    tried: list[str] = field(default_factory=list)
    broken: int = 0

    @property
    def may_go_on(self) -> bool:
        return len(self.tried) < ATTEMPTS and self.broken < BROKEN_ATTEMPTS


class Gateway:
    """Authenticate, resolve, pick, lease, relay. One per Router replica, on one event loop."""

    def __init__(self, *, upstream: Upstream, wake: Wake, stages: Stages, clock: Callable[[], float] = time.monotonic) -> None:
        self._upstream = upstream
        self._wake = wake
        self._clock = clock
        self.stages = stages
        self.view = RoutingView(RoutingDocument())
        self.pool = ReplicaPool(clock=clock)
        self.version: tuple[str, int] = ("", -1)
        self._routing = ""
        self._waking: dict[tuple[str, str], asyncio.Task[None]] = {}

    def update(self, snapshot: DirectorySnapshot) -> None:
        """Take a snapshot of the directory and the routing document; a document that cannot be used changes nothing."""
        if snapshot.routing != self._routing:
            self._route(snapshot.routing)
        self.pool.update(snapshot.replicas, is_complete=snapshot.is_complete)
        self.version = (snapshot.epoch, snapshot.version)

    def _route(self, routing: str) -> None:
        self._routing = routing
        try:
            self.view = RoutingView(RoutingDocument.model_validate_json(routing))
        except ValueError:
            # Rollouts refuses such a document too. The directory must be followed all the same.
            logger.exception("the routing document cannot be used; the one before stays in force")
            return
        self.pool.max_waiting = self.view.document.limits.max_waiting
        self.pool.balance = Balance(self.view.document.replica_choice, self.view.document.balance_factor)

    def is_ready(self, name: str | None = None) -> bool:
        """Whether the model or pipeline, or at least one model if none is named, takes work.

        A variant that may sleep at zero counts as ready: the request that wakes it waits, and is answered.
        """
        view = self.view
        if name is None:
            models = list(view.models.values())
        elif (pipeline := view.pipelines.get(name)) is not None:
            return all(self.is_ready(version.model) for version in pipeline.versions if version.weight)
        elif name in view.models:
            models = [view.models[name]]
        else:
            raise UnknownModel(name)
        has_one = any(v.may_sleep or self.pool.has_ready(m.name, v.name) for m in models for v in m.variants)
        return has_one or (name is None and bool(self._routing) and not models)

    async def relay(self, call: Call, model: RoutedModel) -> Reply:
        """Send a request for a model to one of its replicas and return the answer.

        Until the first byte is here, other replicas are tried, and other variants while the conversation's own has no
        replica that can take it.

        Raises:
            UpstreamRejected: the engine refused the request.
            RateLimited, DeadlineExceeded, Unavailable: no replica took it.
            UnknownModel: the model went while the request waited.
        """
        prefix = prefix_key(call.body, session_id=call.session_id)
        affinity = functools.cache(lambda: call.affinity)  # asked for again each second that the request waits
        call.answerer.model = model.name
        request = UpstreamRequest("POST", call.path, _raw(call), call.request_id, call.content_type)
        errand = _Errand(model.name, request, call)
        deadline_s = self._clock() + self.view.document.limits.wait_timeout_s
        while errand.may_go_on:
            lease = await self.pool.lease(
                lambda: self._target(errand, affinity),
                prefix=prefix,
                timeout_s=deadline_s - self._clock(),
                exclude=errand.tried,
                priority=call.caller.priority,
            )
            if not call.answerer.take(lease.variant):  # the client was told another one while this was on its way here
                lease.release()
                continue
            if (reply := await self._try(lease, errand)) is not None:
                return reply
            call.answerer.is_taken = False
            errand.tried.append(lease.replica_id)
        raise Unavailable(f"no replica of model {model.name!r} could be reached", retry_after_s=5)

    async def embed(self, name: str, texts: list[str]) -> list[list[float]]:
        """Return one vector per text from an embedder."""
        return await self._embedder(name).embed(texts)

    async def count_tokens(self, name: str, texts: list[str], *, must_fit: bool = False) -> int:
        """Return how many tokens an embedder reads of the texts. Raises BadRequest: one that must fit does not."""
        return await self._embedder(name).count_tokens(texts, must_fit=must_fit)

    async def describe_embedder(self, name: str) -> EmbeddingFingerprint:
        """Return what an embedder's vectors are."""
        return await self._embedder(name).describe()

    def _embedder(self, name: str) -> CountingEmbedder:
        if name not in self.view.embedders:
            raise UnknownModel(name)
        return self.stages.embedders[name]

    async def _try(self, lease: Lease, errand: _Errand) -> Reply | None:
        """Return the replica's answer, or None when it could not take the request."""
        is_handed_over = False
        try:
            response = await self._upstream.open(lease.url, errand.request)
            if response.status < 300 and response.content_type.startswith("text/event-stream"):
                is_handed_over = True
                stream = _counted(LeasedStream(response, lease, path=errand.request.path), errand.call)
                return Reply(response.content_type, stream, errand.model, lease.variant)
            body = await _whole(response)
            errand.call.permit.charge(usage_of(body) or prompt_estimate(errand.call.raw))
            return Reply(response.content_type, body, errand.model, lease.variant)
        except asyncio.CancelledError:
            if not is_handed_over:  # the client left; how much was generated for it nobody knows
                errand.call.permit.charge(prompt_estimate(errand.call.raw))
            raise
        except ReplicaDraining:
            self.pool.drain(lease.replica_id)
        except ReplicaUnreachable as err:
            logger.warning("replica %s unreachable: %s", lease.replica_id, err)
            self.pool.eject(lease.replica_id)
            errand.broken += err.was_sent
        finally:
            if not is_handed_over:
                lease.release()
        return None

    def _target(self, errand: _Errand, affinity: Callable[[], str]) -> Target:
        """Return the conversation's variant, or the heaviest that can take work while its own has no replica.

        A variant that the client has been told of is the only one.
        """
        name, answerer = errand.model, errand.call.answerer
        model = self.view.models.get(name)
        if model is None:
            raise UnknownModel(name)
        if answerer.is_told:
            return self._told_target(model, answerer.variant)
        # The key of a long conversation takes long to make, and where there is one variant there is nothing to choose.
        own = self.view.variant(model, affinity()) if len(model.variants) > 1 else model.variants[0].name
        if not self.pool.has_ready(name, own):
            self._start_waking(name, own)
        chosen = next(v for v in model.variants if v.name == own)
        if not self.pool.can_take(name, own):
            able = [v for v in model.variants if v.weight and self.pool.can_take(name, v.name)]
            chosen = max(able, key=lambda v: v.weight, default=chosen)
        answerer.variant = chosen.name
        return Target(name, chosen.name, chosen.max_leases)

    def _told_target(self, model: RoutedModel, told: str | None) -> Target:
        chosen = next((v for v in model.variants if v.name == told), None)
        if chosen is None:
            raise Unavailable(f"the variant of model {model.name!r} that had the request is gone; send it again")
        if not self.pool.has_ready(model.name, chosen.name):
            self._start_waking(model.name, chosen.name)
        return Target(model.name, chosen.name, chosen.max_leases)

    def _start_waking(self, model: str, variant: str) -> None:
        key = (model, variant)
        task = self._waking.get(key)
        if task is None or task.done():
            self._waking[key] = asyncio.create_task(self._wake_quietly(model, variant))

    async def _wake_quietly(self, model: str, variant: str) -> None:
        try:
            await self._wake(model, variant)
        except PlatformError as err:
            logger.warning("waking %s.%s failed: %s", model, variant, err.message)
        except Exception:
            logger.exception("waking %s.%s failed", model, variant)


def _raw(call: Call) -> bytes:
    """Return the body for the engine: as it was received, unless its answer must tell its usage on the way."""
    is_json = call.content_type.startswith("application/json")
    if not (call.permit.counts_tokens and is_json and tells_usage(call.body, call.path)):
        return call.raw
    return json.dumps(with_usage(call.body, call.path)).encode()


def _counted(stream: ByteStream, call: Call) -> ByteStream:
    """Return the stream as it is, or one that charges its tokens."""
    if not call.permit.counts_tokens:
        return stream
    return metered(stream, call.permit, path=call.path, body=call.body, raw=call.raw)


async def _whole(response: UpstreamResponse) -> bytes:
    """Return an answer's body. Raises UpstreamRejected unless the engine was content."""
    try:
        body = await response.read()
    finally:
        response.close()
    if response.status >= 300:
        raise UpstreamRejected(response.status, body)
    return body


def require_text(value: object, param: str) -> str:
    """Return a non-empty string. Raises BadRequest naming the field."""
    if not isinstance(value, str) or not value.strip():
        raise BadRequest(f"{param} must be a non-empty string", param=param)
    try:
        value.encode()
    except UnicodeEncodeError as err:  # JSON may hold half a surrogate pair; tokenizers refuse it
        raise BadRequest(f"{param} must be valid Unicode", param=param) from err
    return value
