"""The retrieve stage: embed the question, search its collection."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from autoscaling.signals import SafeSignals, stage_signals
from deployments.slots import Slots
from deployments.store_watch import StoreWatch
from serve_app.contracts import CollectionInfo, Embedder, EmbeddingFingerprint, Hit, SearchQuery, VectorStore
from serve_app.errors import DeadlineExceeded, EmbeddingMismatch, EmptyCollection, Unavailable, UnknownModel
from serve_app.metrics import SEARCH_SECONDS, SEARCHES
from serve_app.observing.record import current_record
from serve_app.observing.tracing import StageTracing
from serve_app.registry import Registry

logger = logging.getLogger("ray.serve")

VERIFY_S = 30.0  # that a store may take to say what it holds, when a replica starts
CHECK_EVERY_S = 5.0  # how long a collection that fits its embedder is believed to


class Retriever:
    """Searches collections with the embedder that filled them, and refuses any other.

    ``registry`` has its metrics, ``tracing`` makes spans for callers that are traced.

    Args:
        bindings: (embedder, collection) pairs that pipelines use.
        store: where the collections live.
        embedders: by name.
        max_concurrent_searches: searches in the store at a time; further ones wait.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        bindings: Sequence[tuple[str, str]],
        store: VectorStore,
        *,
        embedders: Mapping[str, Embedder],
        max_concurrent_searches: int = 16,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bindings = tuple(bindings)
        self._store = store
        self._embedders = embedders
        self._clock = clock
        self._checked_at: dict[tuple[str, str], float] = {}
        self._slots = Slots(max_concurrent_searches)
        self._watch = StoreWatch(clock)
        self._signals = SafeSignals(self._load)
        self.tracing = StageTracing("retriever")
        self.registry = Registry()
        self._seconds = self.registry.histogram(SEARCH_SECONDS)
        self._searches = self.registry.counter(SEARCHES)

    async def search(self, query: SearchQuery) -> list[Hit]:
        """Return at most ``query.top_k`` hits, best first.

        Raises:
            UnknownModel: no embedder has that name.
            EmptyCollection: the collection is missing or has no chunks.
            EmbeddingMismatch: the collection was filled by another embedder.
            DeadlineExceeded: ``query.budget_s`` is used up.
        """
        try:
            with self.tracing.joined(query.trace, "retrieve", _about(query)):
                hits = await self._in_time(query)
        except Exception:
            self._searches.labels(outcome="error").inc()
            raise
        self._searches.labels(outcome="hits" if hits else "nothing").inc()
        return hits

    async def verify(self) -> None:
        """Check every binding; a collection that does not exist yet is fine, it may be filled later.

        A store that does not answer is none either: Serve gives a replica up that fails to start a few times, and would not
        begin again when the store is back. Each search checks what was not checked here.

        Raises:
            EmbeddingMismatch: a collection was filled by another embedder than the one bound to it.
        """
        await asyncio.gather(*(self._verify(embedder, collection) for embedder, collection in self._bindings))

    async def check_health(self) -> None:
        """Raise RuntimeError when the store has answered no search for long: embedders answer for themselves."""
        self._watch.check()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the signals of ``autoscaling.signals`` for the policy: searches in the store and those that wait for it."""
        return self._signals()

    def _load(self) -> dict[str, float]:
        slots = self._slots
        return stage_signals(waiting=slots.waiting, running=slots.running, slots=slots.count, arrived=slots.arrived)

    async def _in_time(self, query: SearchQuery) -> list[Hit]:
        if query.budget_s <= 0:
            raise _late(query)
        until_s = self._clock() + query.budget_s
        try:
            # One bound for all: the wait for a slot and the search in the store get what check and embedding have left.
            async with asyncio.timeout(query.budget_s):
                return await self._search(query, until_s)
        except TimeoutError as err:
            raise _late(query) from err

    async def _search(self, query: SearchQuery, until_s: float) -> list[Hit]:
        record = current_record()
        with record.detail("check"):
            await self._check(query.embedder, query.collection)
        with record.detail("embed"):
            left_s = until_s - self._clock()
            if left_s <= 0:
                raise _late(query)
            [vector] = await self._embedder(query.embedder).embed([query.text], budget_s=left_s)
        # Only this is the stage's own work: one that waits for a slow embedder would gain nothing by more replicas.
        async with self._slots:
            begun_s = self._clock()
            with record.detail("search"), self._watch.watched():
                hits = await self._store.search(
                    query.collection, vector, text=query.text, top_k=query.top_k, filters=query.filters
                )
            self._seconds.observe(self._clock() - begun_s)
            return hits

    async def _check(self, embedder: str, collection: str) -> None:
        """Check the pair, at most every ``CHECK_EVERY_S``; a refusal is never remembered, so a fix works at once."""
        checked_at = self._checked_at.get((embedder, collection))
        if checked_at is not None and self._clock() - checked_at < CHECK_EVERY_S:
            return
        if await self._chunks(embedder, collection) == 0:
            raise EmptyCollection(collection)
        self._checked_at[embedder, collection] = self._clock()

    async def _verify(self, embedder: str, collection: str) -> None:
        offered = await self._embedder(embedder).describe()
        try:
            async with asyncio.timeout(VERIFY_S):
                stored = await self._described(collection)
        except (Unavailable, TimeoutError) as err:
            why = str(err) or "the store does not answer"
            logger.warning("collection %s is checked when it is searched: %s", collection, why)
            return
        _require_fit(stored, offered)

    async def _chunks(self, embedder: str, collection: str) -> int:
        offered, stored = await asyncio.gather(self._embedder(embedder).describe(), self._described(collection))
        _require_fit(stored, offered)
        return 0 if stored is None else stored.chunks

    async def _described(self, collection: str) -> CollectionInfo | None:
        with self._watch.watched(is_search=False):
            return await self._store.describe(collection)

    def _embedder(self, name: str) -> Embedder:
        try:
            return self._embedders[name]
        except KeyError:
            raise UnknownModel(name) from None


def _require_fit(stored: CollectionInfo | None, offered: EmbeddingFingerprint) -> None:
    if stored is not None and stored.fingerprint != offered:
        raise EmbeddingMismatch(stored.name, str(stored.fingerprint), str(offered))


def _about(query: SearchQuery) -> dict[str, str | int]:
    return {
        "gen_ai.operation.name": "retrieval",
        "gen_ai.data_source.id": query.collection,
        "manta.embedder": query.embedder,
        "manta.top_k": query.top_k,
    }


def _late(query: SearchQuery) -> DeadlineExceeded:
    return DeadlineExceeded(f"no passages from {query.collection!r} within the {query.budget_s:g} s left")
