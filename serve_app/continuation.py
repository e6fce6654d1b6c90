"""Continuations: a stream whose replica fails goes on at another one of its variant, from the tokens so far."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from serve_app.affinity import prefix_key
from serve_app.attempts import Attempt, Attempts
from serve_app.continuation_plan import COMPLETIONS, plan_of
from serve_app.continuation_stream import ContinuedStream
from serve_app.continuation_transcript import Seam, Transcript
from serve_app.engine_errors import Unreadable, UpstreamRejected
from serve_app.errand import Errand
from serve_app.errors import PlatformError, Unavailable
from serve_app.misses import MISSES, end_when_lost
from serve_app.pool import Lease, ReplicaPool, Target
from serve_app.rollout.document import RoutedVariant
from serve_app.rollout.telemetry import Outcome
from serve_app.sse import ByteStream, begins_events
from serve_app.stream_ends import is_error_event
from serve_app.streams import LeasedStream
from serve_app.upstream import ReplicaDraining, ReplicaUnreachable, Upstream, UpstreamRequest, UpstreamResponse
from serve_app.usage import with_usage
from serve_app.view import RoutingView

logger = logging.getLogger("ray.serve")

MOST_WAIT_S = 30.0  # for a place at another replica; a client that hears nothing for longer gives its stream up


class Continuations:
    """Sends streams that broke to other replicas. One per Router, on its event loop."""

    def __init__(self, *, upstream: Upstream, pool: ReplicaPool, attempts: Attempts, view: Callable[[], RoutingView]) -> None:
        self._upstream = upstream
        self._pool = pool
        self._attempts = attempts
        self._view = view

    def prepare(self, errand: Errand) -> None:
        """Have the engine tell token ids, where the request is one whose stream may go on elsewhere."""
        call = errand.call
        if not call.content_type.startswith("application/json"):
            return
        body = with_usage(call.body, call.path) if call.permit.counts_tokens else call.body
        errand.plan = plan_of(call.path, body)
        if errand.plan is not None:
            errand.request = replace(errand.request, body=json.dumps({**body, "return_token_ids": True}).encode())

    def follow(self, stream: LeasedStream, lease: Lease, errand: Errand) -> ByteStream:
        """Return a stream that goes on elsewhere when its replica fails; as it is where the request may not."""
        began = self._variant(errand, lease.variant)
        if errand.plan is None or began is None:
            return stream
        tried = [lease.replica_id]

        async def resume(transcript: Transcript, seam: Seam) -> LeasedStream | None:
            return await self._resume(errand, began, transcript, seam=seam, tried=tried)

        return ContinuedStream(stream, Transcript(errand.plan), resume=resume, record=errand.call.record)

    async def _resume(
        self, errand: Errand, began: RoutedVariant, transcript: Transcript, *, seam: Seam, tried: list[str]
    ) -> LeasedStream | None:
        """Return another replica's stream from a seam on, whose first bytes are here; None: that one failed as well."""
        began_s = self._attempts.clock()
        try:
            lease = await self._lease(errand, began, tried)
        except PlatformError as err:
            logger.warning("a stream of %s does not go on elsewhere: %s", errand.name, err.message)
            return None
        tried.append(lease.replica_id)
        attempt = self._begin(lease, errand, began_s)
        stream = None
        try:
            async with asyncio.timeout(self._patience_s(errand)) as limit:
                end_when_lost(limit, lease)
                body = await self._body(lease, errand, transcript, seam=seam)
                if body is not None:
                    stream = await self._open(lease, errand, attempt, body=body)
        except MISSES as err:
            logger.warning("replica %s does not go on with a stream: %r", lease.replica_id, err)
            self._missed(err, lease, attempt)
        except asyncio.CancelledError:
            attempt.end(Outcome.CANCELLED)
            raise
        finally:
            if stream is None:
                attempt.discard()  # unless it has ended
                lease.release()
        if stream is not None:
            logger.info("replica %s goes on with a stream of %s, after %d tokens", lease.replica_id, errand.name, seam.tokens)
        return stream

    async def _lease(self, errand: Errand, began: RoutedVariant, tried: list[str]) -> Lease:
        """Return a place on another replica of the variant, if that is still what it was. Raises PlatformError."""

        def choose() -> Target:
            now = self._variant(errand, began.name)
            if now is None or now.revision != began.revision:  # other weights would go on with another model's words
                raise Unavailable(f"the variant {began.name} of model {errand.model!r} has changed")
            adapter = errand.request.adapter
            return Target(errand.model, now.name, now.max_leases, None if adapter is None else adapter.key)

        call = errand.call
        return await self._pool.lease(
            choose,
            prefix=prefix_key(call.body, session_id=call.session_id),
            timeout_s=call.deadline.bound(min(MOST_WAIT_S, self._view().document.limits.wait_timeout_s)),
            exclude=tried,
            priority=call.caller.priority,
        )

    def _begin(self, lease: Lease, errand: Errand, began_s: float) -> Attempt:
        """Return an attempt whose first byte says nothing of the variant: its prompt is longer than a client's."""
        key = (errand.model, lease.variant)
        if errand.adapter is None:
            attempt = self._attempts.begin(key, began_s=began_s, is_stream=True)
            attempt.is_scored = False
        else:
            attempt = self._attempts.begin_pair(key, errand.adapter.key, began_s=began_s, is_stream=True, is_scored=False)
        attempt.record = errand.call.record
        attempt.on_end = functools.partial(self._pool.judge, lease)
        return attempt

    async def _body(self, lease: Lease, errand: Errand, transcript: Transcript, *, seam: Seam) -> bytes | None:
        """Return the request that goes on from a seam; None where it is not known how long the answer may become."""
        room_tokens = None
        if transcript.plan.max_tokens is None:
            variant = self._variant(errand, lease.variant)
            room_tokens = None if variant is None else variant.max_model_len
            room_tokens = room_tokens or await self._ask_room(lease, errand)
        said = transcript.tokens[: seam.tokens]
        body = transcript.plan.request(transcript.prompt, said, room_tokens=room_tokens)
        return None if body is None else json.dumps(body).encode()

    async def _ask_room(self, lease: Lease, errand: Errand) -> int | None:
        """Return how many tokens the model's context holds, as its engine tells it; None: it does not."""
        response = await self._upstream.open(lease.url, UpstreamRequest("GET", "/v1/models", b"", errand.request.request_id))
        try:
            raw = await response.read()
        finally:
            response.close()
        return _longest(raw)

    async def _open(self, lease: Lease, errand: Errand, attempt: Attempt, *, body: bytes) -> LeasedStream:
        trace = errand.call.record.trace  # no stage is open now, so what the engine does hangs from the request itself
        link = None if trace is None else trace.link(trace.span_id)
        timeout_s = errand.call.deadline.left_or_none()
        request = replace(errand.request, path=COMPLETIONS, body=body, trace=link, timeout_s=timeout_s)
        response = await self._upstream.open(lease.url, request)
        try:
            first = await _first_of(response)
            lease.on_lost = None  # from here on that is the stream's own affair
        except BaseException:
            response.close()
            raise
        self._pool.begin(lease)
        attempt.piece(first)
        stream = LeasedStream(response, lease, attempt=attempt, path=COMPLETIONS, first=first)
        return stream.watch(self._view().document.stream_idle_timeout_s)

    def _missed(self, err: Exception, lease: Lease, attempt: Attempt) -> None:
        match err:
            case ReplicaDraining():
                self._pool.drain(lease.replica_id)
            case ReplicaUnreachable():
                attempt.end(Outcome.UNREACHABLE)
            case UpstreamRejected(is_engines_fault=False):
                attempt.end(Outcome.REJECTED)
            case UpstreamRejected() | Unreadable():
                attempt.end(Outcome.SERVER_ERROR)
            case TimeoutError():
                attempt.end(Outcome.UNREACHABLE if lease.is_lost else Outcome.TIMEOUT)

    def _patience_s(self, errand: Errand) -> float | None:
        model = self._view().models.get(errand.model)
        return None if model is None else model.first_byte_timeout_s

    def _variant(self, errand: Errand, name: str) -> RoutedVariant | None:
        model = self._view().models.get(errand.model)
        return None if model is None else next((each for each in model.variants if each.name == name), None)


async def _first_of(response: UpstreamResponse) -> bytes:
    """Return a stream's first bytes. Raises UpstreamRejected for an error, Unreadable for what is no stream."""
    if response.status >= 300 or not response.content_type.startswith("text/event-stream"):
        raise UpstreamRejected(response.status, await response.read())
    first = await response.chunk()
    if not begins_events(first):
        raise Unreadable
    if is_error_event(first):
        raise UpstreamRejected(500, first)
    return first


def _longest(cards: bytes) -> int | None:
    try:
        found: list[dict[str, Any]] = json.loads(cards)["data"]
        lengths = [length for card in found if isinstance(length := card.get("max_model_len"), int)]
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return max(lengths, default=None)
