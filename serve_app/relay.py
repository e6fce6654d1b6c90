"""Relay: pick a variant, lease a replica, pass its bytes on; until the first byte, try others."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from serve_app.affinity import prefix_key
from serve_app.attempts import Attempt, Attempts, is_error_event
from serve_app.call import Call, Reply
from serve_app.engine_errors import UpstreamRejected
from serve_app.errors import DeadlineExceeded, PlatformError, Unavailable, UnknownModel
from serve_app.pool import Lease, ReplicaPool, Target
from serve_app.rollout.document import RoutedModel
from serve_app.rollout.telemetry import Outcome
from serve_app.shadow import Answered, Shadows
from serve_app.sse import ByteStream
from serve_app.streams import LeasedStream
from serve_app.upstream import ReplicaDraining, ReplicaUnreachable, Upstream, UpstreamRequest, UpstreamResponse
from serve_app.usage import metered, prompt_estimate, tells_usage, usage_of, with_usage
from serve_app.view import RoutingView

logger = logging.getLogger("ray.serve")

ATTEMPTS = 4  # replicas tried before the first byte
BROKEN_ATTEMPTS = 2  # connections that may break with the request on them: a request that kills engines must not kill all


@dataclass(slots=True)
class Errand:
    """A request on its way to a replica, and what became of it so far."""

    model: str
    request: UpstreamRequest
    call: Call
    affinity: Callable[[], str]
    tried: list[str] = field(default_factory=list)
    broken: int = 0
    failed: set[str] = field(default_factory=set)  # variants that failed it
    error: PlatformError | None = None  # what the last one that failed it said

    @property
    def may_go_on(self) -> bool:
        """Whether another replica may be tried."""
        return len(self.tried) < ATTEMPTS and self.broken < BROKEN_ATTEMPTS

    @property
    def is_stream(self) -> bool:
        """Whether the client asked for a stream."""
        return self.call.body.get("stream") is True


@dataclass(frozen=True, slots=True)
class Watchers:
    """What looks on while requests are answered."""

    attempts: Attempts
    shadows: Shadows


class Relay:
    """Sends requests for models to their replicas. One per Router, on its event loop."""

    def __init__(
        self,
        *,
        upstream: Upstream,
        pool: ReplicaPool,
        watchers: Watchers,
        view: Callable[[], RoutingView],
        wake: Callable[[str, str], None],
    ) -> None:
        self._upstream = upstream
        self._pool = pool
        self._attempts = watchers.attempts
        self._shadows = watchers.shadows
        self._view = view
        self._wake = wake

    async def send(self, call: Call, model: RoutedModel) -> Reply:
        """Send a request for a model to one of its replicas and return the answer, as ``Gateway.relay`` says."""
        clock = self._attempts.clock
        prefix = prefix_key(call.body, session_id=call.session_id)
        call.answerer.model = model.name
        request = UpstreamRequest("POST", call.path, _raw(call), call.request_id, call.content_type)
        # The affinity is asked for again each second that the request waits.
        errand = Errand(model.name, request, call, functools.cache(lambda: call.affinity))
        deadline_s = clock() + self._view().document.limits.wait_timeout_s
        while errand.may_go_on:
            began_s = clock()
            lease = await self._pool.lease(
                lambda: self._target(errand),
                prefix=prefix,
                timeout_s=deadline_s - began_s,
                exclude=errand.tried,
                priority=call.caller.priority,
            )
            # While this was on its way here the client may have been told another variant, or this one may have been withdrawn.
            if self._is_out(errand, lease.variant) or not call.answerer.take(lease.variant):
                lease.release()
                continue
            sent_s = clock()
            if (reply := await self._try(lease, errand, began_s)) is not None:
                if model.shadow is None or call.variant is not None:
                    return reply
                return self._shadows.follow(Answered(request, reply, prefix, clock() - sent_s), model, model.shadow)
            call.answerer.is_taken = False
            errand.tried.append(lease.replica_id)
            if lease.variant in errand.failed:  # the time that it took there is not the baseline's
                deadline_s = clock() + self._view().document.limits.wait_timeout_s
        raise errand.error or Unavailable(f"no replica of model {model.name!r} could be reached", retry_after_s=5)

    async def _try(self, lease: Lease, errand: Errand, began_s: float) -> Reply | None:
        """Return the replica's answer, or None when another one is to be tried. Raises what the client is to hear."""
        attempt = self._attempts.begin((errand.model, lease.variant), began_s=began_s, is_stream=errand.is_stream)
        reply = None
        try:
            async with asyncio.timeout(self._patience_s(errand)) as limit:
                attempt.limit = limit if self._has_spare(errand, lease.variant) else None
                reply = await self._answer(lease, errand, attempt)
        except asyncio.CancelledError:
            attempt.end(Outcome.CANCELLED)  # the client left; how much was generated for it nobody knows
            errand.call.permit.charge(prompt_estimate(errand.call.raw))
            raise
        except (TimeoutError, ReplicaDraining, ReplicaUnreachable, UpstreamRejected) as err:
            self._missed(err, lease, errand, attempt=attempt)
        except BaseException:
            attempt.discard()
            raise
        finally:
            if reply is None or isinstance(reply.body, bytes):
                lease.release()
        return reply

    async def _answer(self, lease: Lease, errand: Errand, attempt: Attempt) -> Reply:
        """Return the replica's answer: whole, or as a stream whose first bytes are here."""
        response = await self._upstream.open(lease.url, errand.request)
        try:
            if response.status < 300 and response.content_type.startswith("text/event-stream"):
                first = await response.chunk()
                self._check_first(first, lease, errand)
                attempt.piece(first)
                leased = LeasedStream(response, lease, attempt=attempt, path=errand.request.path, first=first)
                return Reply(response.content_type, _counted(leased, errand.call), errand.model, lease.variant)
            body = await _whole(response)
        except BaseException:
            response.close()
            raise
        response.close()
        attempt.end(Outcome.OK, body)
        errand.call.permit.charge(usage_of(body) or prompt_estimate(errand.call.raw))
        return Reply(response.content_type, body, errand.model, lease.variant)

    def _check_first(self, first: bytes, lease: Lease, errand: Errand) -> None:
        """Raise UpstreamRejected for a stream that begins with an error which the baseline can spare the client."""
        if is_error_event(first) and self._has_spare(errand, lease.variant):
            raise UpstreamRejected(500, first)

    def _missed(self, err: Exception, lease: Lease, errand: Errand, *, attempt: Attempt) -> None:
        """Note that there was no answer. Raises what the client is to hear, unless another replica is to be tried."""
        match err:
            case ReplicaDraining():
                attempt.discard()
                self._pool.drain(lease.replica_id)
            case ReplicaUnreachable():
                attempt.end(Outcome.UNREACHABLE)
                self._lost(lease, errand, err)
            case UpstreamRejected(is_engines_fault=False):
                attempt.end(Outcome.REJECTED)
                raise err
            case UpstreamRejected():
                attempt.end(Outcome.SERVER_ERROR)
                self._give_up(lease, errand, err)
            case _:
                attempt.end(Outcome.ABANDONED if attempt.is_withdrawn else Outcome.TIMEOUT)
                error = DeadlineExceeded("the answer did not begin in time")
                self._give_up(lease, errand, error, is_forced=attempt.is_withdrawn)

    def _lost(self, lease: Lease, errand: Errand, err: ReplicaUnreachable) -> None:
        logger.warning("replica %s unreachable: %s", lease.replica_id, err)
        self._pool.eject(lease.replica_id)
        errand.broken += err.was_sent
        if self._has_spare(errand, lease.variant):  # rather than on another replica of a variant on trial
            errand.failed.add(lease.variant)

    def _give_up(self, lease: Lease, errand: Errand, error: PlatformError, *, is_forced: bool = False) -> None:
        """Leave the request to the baseline. Raises the error when that cannot have it, unless it has to wait for it."""
        if not is_forced and not self._has_spare(errand, lease.variant):
            raise error
        errand.failed.add(lease.variant)
        errand.error = error
        logger.warning("%s of %s failed a request, which the baseline gets: %s", lease.variant, errand.model, error.message)

    def _patience_s(self, errand: Errand) -> float | None:
        """Return the longest wait for the first byte of a stream; a whole answer comes when it is complete."""
        model = self._view().models.get(errand.model)
        return model.first_byte_timeout_s if model is not None and errand.is_stream else None

    def _has_spare(self, errand: Errand, variant: str) -> bool:
        """Whether the baseline may answer, and can, what this variant has failed."""
        view, name = self._view(), errand.model
        model = view.models.get(name)
        if model is None or not model.fallback or errand.call.variant is not None:
            return False
        if errand.call.answerer.told_variant is not None:
            return False
        baseline = view.split(name).baseline
        return variant != baseline and baseline not in errand.failed and self._pool.can_take(name, baseline)

    def _is_out(self, errand: Errand, variant: str) -> bool:
        """Whether a variant was withdrawn and the baseline can take its place; not when the whole model has gone."""
        return self._has_spare(errand, variant) and variant in self._view().split(errand.model).withdrawn

    def _target(self, errand: Errand) -> Target:
        """Return the conversation's variant, or the heaviest that can take work while its own has no replica.

        A variant that the client has been told of is the only one; so is one that a pipeline's version names.
        """
        view, name, answerer = self._view(), errand.model, errand.call.answerer
        model = view.models.get(name)
        if model is None:
            raise UnknownModel(name)
        if (only := errand.call.variant or answerer.told_variant) is not None:
            answerer.variant = only
            return self._only_target(model, only)
        own = self._own(view, model, errand)
        if not self._pool.has_ready(name, own):
            self._wake(name, own)
        chosen = next(v for v in model.variants if v.name == own)
        if not self._pool.can_take(name, own):
            weights = view.split(name).weights
            fit = (v for v in model.variants if weights[v.name] and v.name not in errand.failed)
            able = [v for v in fit if self._pool.can_take(name, v.name)]
            chosen = max(able, key=lambda v: weights[v.name], default=chosen)
        answerer.variant = chosen.name
        return Target(name, chosen.name, chosen.max_leases)

    def _own(self, view: RoutingView, model: RoutedModel, errand: Errand) -> str:
        """Return the variant that owns the conversation, or the one that stands in for it after a failure."""
        # The key of a long conversation takes long to make, and where there is one variant there is nothing to choose.
        own = view.variant(model, errand.affinity()) if len(model.variants) > 1 else model.variants[0].name
        return view.split(model.name).baseline if own in errand.failed else own

    def _only_target(self, model: RoutedModel, name: str) -> Target:
        chosen = next((v for v in model.variants if v.name == name), None)
        if chosen is None:
            raise Unavailable(f"the variant of model {model.name!r} that had the request is gone; send it again")
        if not self._pool.has_ready(model.name, chosen.name):
            self._wake(model.name, chosen.name)
        return Target(model.name, chosen.name, chosen.max_leases)


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
    body = await response.read()
    if response.status >= 300:
        raise UpstreamRejected(response.status, body)
    return body
