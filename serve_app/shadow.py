"""Shadow: copies of requests for a variant that does not answer them."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from serve_app.call import Reply
from serve_app.comparison import has_text, similarity, texts
from serve_app.config_rollouts import ShadowConfig
from serve_app.contracts import Embedder
from serve_app.engine_errors import UpstreamRejected
from serve_app.pool import Lease, ReplicaPool, Target
from serve_app.recording import Broken, RecordedStream, Recording, record, recorded
from serve_app.rollout.document import RoutedModel
from serve_app.rollout.telemetry import Outcome, ShadowStats, VariantKey
from serve_app.upstream import ReplicaDraining, ReplicaUnreachable, Upstream, UpstreamRequest

logger = logging.getLogger("ray.serve")

OTHER = "other"  # the outcome that no variant is to blame for


@dataclass(frozen=True, slots=True)
class Answered:
    """A request, and the answer that has begun, or is there as a whole."""

    request: UpstreamRequest
    reply: Reply
    prefix: str | bytes
    took_s: float  # from sending it to the first byte; of whole answers to the last


@dataclass(eq=False, slots=True)
class _Copy:
    key: VariantKey
    shadow: ShadowConfig
    lease: Lease
    request: UpstreamRequest
    took_s: float
    client: Recording | None  # what the client was answered; None: it is not to be compared
    holds_lease: bool = True
    task: asyncio.Task[None] = field(init=False)  # kept here, or it might be collected


class Shadows:
    """The copies of one Router, and what became of them. Single-threaded: every method runs on its event loop."""

    def __init__(
        self,
        *,
        upstream: Upstream,
        pool: ReplicaPool,
        embedders: Callable[[], Mapping[str, Embedder]],
        clock: Callable[[], float],
    ) -> None:
        self._upstream = upstream
        self._pool = pool
        self._embedders = embedders
        self._clock = clock
        self._stats: dict[VariantKey, ShadowStats] = {}
        self._open: dict[VariantKey, set[_Copy]] = {}

    def take(self) -> dict[VariantKey, ShadowStats]:
        """Return what was counted since the last call."""
        taken, self._stats = self._stats, {}
        return taken

    def follow(self, answered: Answered, model: RoutedModel, shadow: ShadowConfig) -> Reply:
        """Return the reply, and start a copy of its request if that is one to be copied and there is room. Raises nothing."""
        try:
            return self._follow(answered, model, shadow) if _is_chosen(answered, shadow) else answered.reply
        except Exception:
            logger.exception("a request for %s was not copied", model.name)
            self._stats_of((model.name, shadow.variant)).failed[OTHER] += 1
            return answered.reply

    def shed(self, key: VariantKey) -> bool:
        """End the copies on a variant's replicas, because a request would have to wait there; whether there were any."""
        holding = [copy for copy in self._open.get(key, ()) if copy.holds_lease]
        for copy in holding:
            self._open[key].discard(copy)
            self._stats_of(key).dropped["shed"] += 1
            copy.task.cancel()
            self._let_go(copy)
        return bool(holding)

    async def close(self) -> None:
        """End all copies."""
        tasks = [copy.task for copies in self._open.values() for copy in copies]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _follow(self, answered: Answered, model: RoutedModel, shadow: ShadowConfig) -> Reply:
        key = (model.name, shadow.variant)
        lease = self._place(answered, model, shadow)
        if isinstance(lease, str):
            self._stats_of(key).dropped[lease] += 1
            return answered.reply
        self._stats_of(key).copied += 1
        # Engines' logs tell it by its id from the request that somebody waits for.
        request = replace(answered.request, request_id=f"{answered.request.request_id}-shadow")
        client, reply = _recorded(answered.reply) if shadow.compare != "none" else (None, answered.reply)
        self._start(_Copy(key, shadow, lease, request, answered.took_s, client))
        return reply

    def _place(self, answered: Answered, model: RoutedModel, shadow: ShadowConfig) -> Lease | str:
        """Return a lease for a copy, or why there is none; nothing is waited for and nobody is woken."""
        if len(self._open.get((model.name, shadow.variant), ())) >= shadow.max_concurrent:
            return "too_many"
        if not self._pool.has_ready(model.name, shadow.variant):
            return "no_replica"
        if self._pool.waiting():
            return "busy"
        variant = next(each for each in model.variants if each.name == shadow.variant)
        adapter = answered.request.adapter
        target = Target(model.name, variant.name, variant.max_leases, None if adapter is None else adapter.key)
        lease = self._pool.try_lease(target, prefix=answered.prefix)
        if lease is not None and lease.is_trial:
            # A copy tells the pool nothing, and while it runs nothing that does is sent there.
            lease.release()
            lease = self._pool.try_lease(target, prefix=answered.prefix, exclude=(lease.replica_id,))
        return lease or "busy"

    def _start(self, copy: _Copy) -> None:
        copies = self._open.setdefault(copy.key, set())
        copies.add(copy)

        def ended(_: asyncio.Task[None]) -> None:
            copies.discard(copy)
            self._let_go(copy)  # of one that was cancelled before it ran, nothing else would

        copy.task = asyncio.create_task(self._carry_out(copy))
        copy.task.add_done_callback(ended)

    async def _carry_out(self, copy: _Copy) -> None:
        try:
            async with asyncio.timeout(copy.shadow.timeout):
                theirs = await self._answer(copy)
        except Exception as err:
            self._fail(copy, _outcome(err), err)
            return
        copy.holds_lease = False
        copy.lease.release()
        try:
            await self._compare(copy, theirs)
        except Exception as err:
            self._fail(copy, OTHER, err)

    async def _answer(self, copy: _Copy) -> Recording:
        sent_s = self._clock()

        def first() -> None:
            late_s = self._clock() - sent_s - copy.took_s
            stats = self._stats_of(copy.key)
            (stats.slower if late_s > 0 else stats.faster).observe(abs(late_s))

        response = await self._upstream.open(copy.lease.url, copy.request)
        try:
            return await record(response, on_first=first)
        finally:
            response.close()

    async def _compare(self, copy: _Copy, theirs: Recording) -> None:
        if (client := copy.client) is None:
            return
        await client.ended.wait()
        said = await asyncio.to_thread(texts, copy.request.path, client, theirs)
        if said is None:
            return
        shadow, embedder = copy.shadow, None
        if shadow.compare == "embedding" and shadow.embedder is not None:
            embedder = self._embedders()[shadow.embedder]
        async with asyncio.timeout(shadow.timeout):
            found = await similarity(said[0], said[1], embedder)
        stats = self._stats_of(copy.key)
        stats.compared += 1
        stats.agreed += found >= (1.0 if embedder is None else shadow.min_similarity)
        stats.similarity_sum += found

    def _fail(self, copy: _Copy, outcome: str, err: Exception) -> None:
        self._let_go(copy)
        self._stats_of(copy.key).failed[outcome] += 1
        if outcome == OTHER:  # the counts say enough of the others
            logger.warning("a copy for %s of %s failed: %r", copy.key[1], copy.key[0], err, exc_info=err)

    def _let_go(self, copy: _Copy) -> None:
        """Give the place back; and a client's long answer is not kept for a copy that is gone."""
        copy.holds_lease = False
        copy.lease.release()
        if copy.client is not None:
            copy.client.forget()

    def _stats_of(self, key: VariantKey) -> ShadowStats:
        found = self._stats.get(key)
        if found is None:
            found = self._stats[key] = ShadowStats()
        return found


def _is_chosen(answered: Answered, shadow: ShadowConfig) -> bool:
    request = answered.request
    if answered.reply.variant == shadow.variant or not request.content_type.startswith("application/json"):
        return False
    # By the id and not by chance, so that what is sent again is copied again, and tests can choose.
    is_drawn = zlib.crc32(request.request_id.encode()) < shadow.percent / 100 * (1 << 32)
    return is_drawn and has_text(request.path)


def _recorded(reply: Reply) -> tuple[Recording, Reply]:
    """Return the recording of what a client is answered, and the reply that makes it."""
    if isinstance(reply.body, bytes):
        return recorded(reply.body), reply
    recording = Recording(is_stream=True)
    return recording, replace(reply, body=RecordedStream(reply.body, recording))


def _outcome(err: Exception) -> str:
    match err:
        case TimeoutError():
            return Outcome.TIMEOUT.value
        case ReplicaDraining() | ReplicaUnreachable():
            return Outcome.UNREACHABLE.value
        case UpstreamRejected():
            return Outcome.SERVER_ERROR.value if err.is_engines_fault else Outcome.REJECTED.value
        case Broken():
            return Outcome.BROKEN.value
        case _:
            return OTHER
