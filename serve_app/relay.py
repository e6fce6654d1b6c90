"""Relay: pick a variant, lease a replica, pass its bytes on; until the first byte, try others."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import json
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from serve_app.adapter_errand import AdapterErrand
from serve_app.affinity import prefix_key
from serve_app.attempts import Attempt, Attempts, PairedAttempt
from serve_app.call import Call, Reply
from serve_app.continuation import Continuations
from serve_app.engine_errors import Unreadable, UpstreamRejected
from serve_app.errand import Errand, Targets
from serve_app.hedging import Hedges
from serve_app.misses import MISSES, Misses, end_when_lost, unreached
from serve_app.observing.record import StageTimer, current_link
from serve_app.overtaken import Overtaken
from serve_app.pool import Lease, ReplicaPool, Target
from serve_app.retry_budget import RetryBudgets
from serve_app.rollout.document import RoutedAdapter, RoutedModel
from serve_app.rollout.telemetry import Outcome
from serve_app.shadow import Answered, Shadows
from serve_app.sse import ByteStream, looks_like_json
from serve_app.streams import LeasedStream
from serve_app.upstream import (
    AnswerTooLarge,
    Upstream,
    UpstreamRequest,
    UpstreamResponse,
)
from serve_app.usage import metered, prompt_estimate, tells_usage, usage_of, with_usage
from serve_app.view import RoutingView

logger = logging.getLogger("ray.serve")


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
        self._targets = Targets(view=view, pool=pool, wake=wake)
        self.budgets = RetryBudgets(clock=watchers.attempts.clock)
        self.hedges = Hedges(targets=self._targets, pool=pool, view=view, budgets=self.budgets)
        self._misses = Misses(targets=self._targets, pool=pool, budgets=self.budgets)
        self._overtaken = Overtaken(clock=watchers.attempts.clock)
        self._continuations = Continuations(upstream=upstream, pool=pool, attempts=watchers.attempts, view=view)

    async def send(self, call: Call, model: RoutedModel, adapter: RoutedAdapter | None = None) -> Reply:
        """Send a request for a model, or an adapter of it, to a replica and return the answer, as ``Gateway.relay`` says."""
        clock = self._attempts.clock
        prefix = prefix_key(call.body, session_id=call.session_id)
        request = UpstreamRequest("POST", call.path, _raw(call), call.request_id, call.content_type)
        # The affinity is asked for again each second that the request waits.
        errand = Errand(model.name, request, call, functools.cache(lambda: call.affinity))
        if adapter is not None:
            errand.adapter = AdapterErrand(adapter.name, self._view)
        if model.continue_streams:
            self._continuations.prepare(errand)
        self.budgets.deposit(errand.model)
        call.answerer.model = errand.name
        call.record.is_stream, call.record.prompt_estimate = errand.is_stream, prompt_estimate(call.raw)
        deadline_s = clock() + self._view().document.limits.wait_timeout_s
        while errand.may_go_on:
            call.deadline.check("queue")
            began_s = clock()
            with call.record.stage("queue") as queued:
                lease = await self._pool.lease(
                    lambda: self._choose(errand),
                    prefix=prefix,
                    timeout_s=call.deadline.bound(deadline_s - began_s),
                    exclude=errand.tried,
                    priority=call.caller.priority,
                )
                _say_where(queued, lease, errand)
            # While this was on its way here the client may have been told another variant, or this one may have been withdrawn.
            if self._targets.is_out(errand, lease.variant) or not call.answerer.take(lease.variant):
                lease.release()
                continue
            sent_s = clock()
            ask = functools.partial(self._try, errand=errand, began_s=began_s)
            if (reply := await self.hedges.answer(ask, lease, errand)) is not None:
                reply = _charged(reply, errand)
                if model.shadow is None or call.variant is not None:
                    return reply
                answered = Answered(errand.request, reply, prefix, clock() - sent_s)
                return self._shadows.follow(answered, model, model.shadow)
            call.answerer.is_taken = False
            errand.tried.append(lease.replica_id)
            deadline_s = self._go_on(errand, deadline_s)
        raise errand.error or unreached(errand)

    async def _try(self, lease: Lease, errand: Errand, began_s: float, *, is_first: bool = True) -> Reply | None:
        """Return the replica's answer, or None when another one is to be tried. Raises what the client is to hear."""
        attempt = self._begin(lease, errand, began_s)
        attempt.on_end = functools.partial(self._pool.judge, lease)
        record = attempt.record = errand.call.record
        reply = None
        try:
            # The time limit is within the stage: to the stage it is an error, unlike a client that leaves.
            with record.stage("first_token" if errand.is_stream else "answer") as stage:
                _say_where(stage, lease, errand)
                async with asyncio.timeout(self._patience_s(errand)) as limit:
                    self._allow_withdrawal(attempt, errand, limit)
                    end_when_lost(limit, lease)
                    with self._watch(lease, errand, attempt, began_s=began_s, limit=limit):
                        reply = await self._answer(lease, errand, attempt)
            self._pool.begin(lease)
            record.begin_answer()
        except asyncio.CancelledError:
            if not self.hedges.abandon(lease, attempt):
                attempt.end(Outcome.CANCELLED)  # the client left; how much was generated for it nobody knows
                errand.call.permit.charge(prompt_estimate(errand.call.raw))
            raise
        except MISSES as err:
            if not self.hedges.concede(lease, attempt):
                (self._misses.see if is_first else self._misses.note)(err, lease, errand, attempt=attempt)
        except BaseException:
            attempt.discard()
            raise
        finally:
            if reply is None or isinstance(reply.body, bytes):
                lease.release()
        return reply

    def _watch(
        self, lease: Lease, errand: Errand, attempt: Attempt, *, began_s: float, limit: asyncio.Timeout
    ) -> AbstractContextManager[None]:
        """Have the request sent to a second replica, too, when later ones overtake it; a hedged one goes there by the clock."""
        if not errand.may_be_rescued:
            return nullcontext()
        ask = functools.partial(self._try, errand=errand, began_s=began_s, is_first=False)
        rescue = functools.partial(self.hedges.rescue, ask, lease, errand, attempt=attempt, limit=limit)
        # It is called by a timer, and its task is to be this request's: so are the lines that it logs.
        rescue = functools.partial(contextvars.copy_context().run, rescue)
        return self._overtaken.watch(lease, attempt, errand.request, body=errand.call.body, rescue=rescue)

    def _go_on(self, errand: Errand, deadline_s: float) -> float:
        """Return until when the request may wait now. Raises what it was told last where no time is left for another."""
        now_s = self._attempts.clock()
        if errand.is_anew:
            errand.is_anew = False
            return now_s + self._view().document.limits.wait_timeout_s
        if errand.error is not None and now_s >= deadline_s:
            raise errand.error
        return deadline_s

    def _choose(self, errand: Errand) -> Target:
        if errand.is_picked:  # asked again while it waits
            return self._targets.choose(errand)
        errand.is_picked = True
        with errand.call.record.detail("pick"):
            return self._targets.choose(errand)

    def _begin(self, lease: Lease, errand: Errand, began_s: float) -> Attempt:
        key = (errand.model, lease.variant)
        if errand.adapter is None:
            return self._attempts.begin(key, began_s=began_s, is_stream=errand.is_stream)
        return self._attempts.begin_pair(
            key, errand.adapter.key, began_s=began_s, is_stream=errand.is_stream, is_scored=lease.has_adapter
        )

    def _allow_withdrawal(self, attempt: Attempt, errand: Errand, limit: asyncio.Timeout) -> None:
        """Let the wait for the first byte be ended where another variant, or version of the adapter, may answer."""
        attempt.limit = limit if self._targets.has_spare(errand, attempt.key[1]) else None
        if isinstance(attempt, PairedAttempt) and errand.adapter is not None:
            attempt.of_adapter.limit = limit if errand.adapter.has_spare else None

    async def _answer(self, lease: Lease, errand: Errand, attempt: Attempt) -> Reply:
        """Return the replica's answer: whole, or as a stream whose first bytes are here."""
        link = current_link()
        request = replace(errand.request, trace=link, timeout_s=errand.call.deadline.left_or_none())
        response = await self._upstream.open(lease.url, request)
        try:
            if response.status < 300 and response.content_type.startswith("text/event-stream"):
                first = await response.chunk()
                lease.on_lost = None  # from here on that is the stream's own affair
                self._misses.check_first(first, lease, errand)
                attempt.piece(first)
                leased = LeasedStream(response, lease, attempt=attempt, path=errand.request.path, first=first)
                leased.watch(self._view().document.stream_idle_timeout_s)
                stream = self._continuations.follow(leased, lease, errand)
                return self._reply(response, stream, lease, errand=errand)
            body = await _whole(response)
        except BaseException:
            response.close()
            raise
        response.close()
        attempt.end(Outcome.OK, body)
        return self._reply(response, body, lease, errand=errand)

    def _reply(self, response: UpstreamResponse, body: bytes | ByteStream, lease: Lease, *, errand: Errand) -> Reply:
        version = None
        if (adapter := errand.adapter) is not None:
            version = adapter.version
            if (culprit := adapter.culprit()) is not None:  # the version is sound, so that variant was to blame
                self._attempts.stats((errand.model, culprit)).outcomes[Outcome.SERVER_ERROR] += 1
        return Reply(response.content_type, body, errand.name, lease.variant, adapter_version=version)

    def _patience_s(self, errand: Errand) -> float | None:
        """Return the longest wait for the first byte of a stream; a whole answer comes when it is complete."""
        model = self._view().models.get(errand.model)
        return model.first_byte_timeout_s if model is not None and errand.is_stream else None


def _say_where(stage: StageTimer, lease: Lease, errand: Errand) -> None:
    if stage.record.trace is not None:
        stage.about = {"manta.model": errand.name, "manta.variant": lease.variant, "manta.replica": lease.replica_id}


def _raw(call: Call) -> bytes:
    """Return the body for the engine: as it was received, unless its answer must tell its usage on the way."""
    is_json = call.content_type.startswith("application/json")
    if not (call.permit.counts_tokens and is_json and tells_usage(call.body, call.path)):
        return call.raw
    return json.dumps(with_usage(call.body, call.path)).encode()


def _charged(reply: Reply, errand: Errand) -> Reply:
    """Return the reply that the client gets, charged now, or as a stream that charges its tokens."""
    call = errand.call
    if isinstance(reply.body, bytes):
        call.permit.charge(usage_of(reply.body) or prompt_estimate(call.raw))
        return reply
    if not call.permit.counts_tokens:
        return reply
    return replace(reply, body=metered(reply.body, call.permit, path=call.path, body=call.body, raw=call.raw))


async def _whole(response: UpstreamResponse) -> bytes:
    """Return an answer's body. Raises UpstreamRejected unless the engine was content, Unreadable for what is no answer."""
    try:
        body = await response.read()
    except AnswerTooLarge as err:
        raise UpstreamRejected(502, str(err).encode()) from err
    if response.status >= 300:
        raise UpstreamRejected(response.status, body)
    if response.content_type.startswith("application/json") and not looks_like_json(body):
        raise Unreadable
    return body
