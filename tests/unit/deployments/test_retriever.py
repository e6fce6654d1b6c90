from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest

from deployments import retriever as module
from deployments.retriever import CHECK_EVERY_S, Retriever
from deployments.store_watch import UNHEALTHY_AFTER, UNHEALTHY_AFTER_S
from serve_app.contracts import Chunk, CollectionInfo, EmbeddedDocument, EmbeddingFingerprint, Hit, SearchQuery, Vector
from serve_app.errors import DeadlineExceeded, EmbeddingMismatch, EmptyCollection, Unavailable, UnknownModel
from serve_app.filters import Comparison, Filter, Scalar
from tests.unit.serve_app.fakes import FakeClock, turns

PRINT = EmbeddingFingerprint("org/fake", dimension=1, normalized=True)
HIT = Hit(Chunk("d#0", "d", 0, title="D", headings=(), text="t", start=0, end=1), 1.0)
QUERY = SearchQuery(collection="docs", embedder="fake", text="why?", top_k=3)


@dataclass
class FakeEmbedder:
    delay_s: float = 0.0
    may_embed: asyncio.Event | None = None

    async def embed(self, texts: Sequence[str], *, budget_s: float | None = None) -> list[list[float]]:
        await asyncio.sleep(self.delay_s)
        if self.may_embed is not None:
            await self.may_embed.wait()
        return [[float(len(text))] for text in texts]

    async def describe(self) -> EmbeddingFingerprint:
        return PRINT


@dataclass
class FakeStore:
    info: CollectionInfo | None
    described: int = 0
    filters: Filter | None = None
    searches: list[tuple[str, Vector, str, int]] = field(default_factory=list)
    hits: list[Hit] = field(default_factory=lambda: [HIT])
    on_search: Callable[[], None] = lambda: None
    may_find: asyncio.Event | None = None

    async def describe(self, collection: str) -> CollectionInfo | None:
        self.described += 1
        return self.info

    async def chunks_of(self, collection: str, document_id: str) -> list[Chunk]:
        return []

    async def set_attributes(self, collection: str, document_id: str, attributes: Mapping[str, Scalar]) -> None: ...
    async def drop(self, collection: str) -> None: ...
    async def search(
        self, collection: str, vector: Vector, *, text: str, top_k: int, filters: Filter | None = None
    ) -> list[Hit]:
        self.filters = filters
        self.searches.append((collection, vector, text, top_k))
        if self.may_find is not None:
            await self.may_find.wait()
        self.on_search()
        return self.hits

    async def create(self, collection: str, fingerprint: EmbeddingFingerprint) -> None: ...
    async def documents(self, collection: str) -> Mapping[str, str]:
        return {}

    async def replace_documents(self, collection: str, documents: Sequence[EmbeddedDocument]) -> None: ...
    async def delete_documents(self, collection: str, document_ids: Sequence[str]) -> int:
        return 0

    async def finish(self, collection: str) -> None: ...


def info(fingerprint: EmbeddingFingerprint = PRINT, chunks: int = 9) -> CollectionInfo:
    return CollectionInfo("docs", fingerprint, chunks=chunks, documents=1)


def retriever(store: FakeStore, *, delay_s: float = 0.0, clock: FakeClock | None = None) -> Retriever:
    return Retriever([("fake", "docs")], store, embedders={"fake": FakeEmbedder(delay_s)}, clock=clock or FakeClock())


async def test_the_question_is_embedded_and_searched() -> None:
    store = FakeStore(info())
    assert await retriever(store).search(QUERY) == [HIT]
    assert store.searches == [("docs", [4.0], "why?", 3)]


@pytest.mark.parametrize("stored", [None, info(chunks=0)], ids=["missing", "no-chunks"])
async def test_nothing_to_search_names_the_command_that_fills_it(stored: CollectionInfo | None) -> None:
    with pytest.raises(EmptyCollection, match="manta ingest PATH --collection docs"):
        await retriever(FakeStore(stored)).search(QUERY)


async def test_an_empty_collection_is_found_filled_at_once() -> None:
    store = FakeStore(None)
    stage = retriever(store)
    with pytest.raises(EmptyCollection):
        await stage.search(QUERY)
    store.info = info()
    assert await stage.search(QUERY) == [HIT]


async def test_a_collection_of_another_embedder_is_refused_with_the_fix() -> None:
    other = info(EmbeddingFingerprint("org/other", dimension=8, normalized=False))
    stage = retriever(FakeStore(other))
    with pytest.raises(EmbeddingMismatch, match=r"org/other \(8 .*org/fake \(1 .*re-embed into a new collection"):
        await stage.search(QUERY)
    with pytest.raises(EmbeddingMismatch):
        await stage.verify()


@pytest.mark.parametrize("stored", [None, info(chunks=0), info()], ids=["missing", "empty", "fits"])
async def test_verify_accepts_what_may_still_be_filled(stored: CollectionInfo | None) -> None:
    await retriever(FakeStore(stored)).verify()


@pytest.mark.parametrize("is_hung", [False, True], ids=["refused", "hung"])
async def test_a_store_that_is_away_keeps_no_replica_from_starting_and_is_checked_by_searches(
    monkeypatch: pytest.MonkeyPatch, is_hung: bool
) -> None:
    other = info(EmbeddingFingerprint("org/other", dimension=8, normalized=False))
    store = FakeStore(other)

    async def away(_: str) -> None:
        if is_hung:
            await asyncio.Event().wait()
        raise Unavailable("the vector store cannot be opened")

    with monkeypatch.context() as patch:
        patch.setattr(store, "describe", away)
        patch.setattr(module, "VERIFY_S", 0.01)
        stage = retriever(store)
        await stage.verify()
    with pytest.raises(EmbeddingMismatch):
        await stage.search(QUERY)


async def test_the_fingerprint_is_checked_again_only_after_a_while() -> None:
    store = FakeStore(info())
    clock = FakeClock()
    stage = retriever(store, clock=clock)
    counts = []
    for after_s in (0.0, CHECK_EVERY_S - 1, 1.0):
        clock.now_s += after_s
        await stage.search(QUERY)
        counts.append(store.described)
    assert counts == [1, 1, 2]


async def test_an_unknown_embedder_is_named() -> None:
    stage = Retriever([], FakeStore(info()), embedders={})
    with pytest.raises(UnknownModel, match="'fake'"):
        await stage.search(QUERY)


@pytest.mark.parametrize("budget_s", [0.0, 0.01], ids=["none-left", "runs-out"])
async def test_a_used_up_budget_ends_the_search(budget_s: float) -> None:
    query = SearchQuery(collection="docs", embedder="fake", text="why?", top_k=3, budget_s=budget_s)
    with pytest.raises(DeadlineExceeded, match="'docs'"):
        await retriever(FakeStore(info()), delay_s=5.0).search(query)


async def test_filters_reach_the_store() -> None:
    store = FakeStore(CollectionInfo("docs", PRINT, chunks=1, documents=1))
    wanted = Comparison("eq", "year", 2024)
    await Retriever([], store, embedders={"fake": FakeEmbedder()}).search(replace(QUERY, filters=wanted))
    assert store.filters == wanted


async def load(stage: Retriever) -> tuple[float, ...]:
    """Return (waiting, running, slots, arrived)."""
    signals = await stage.record_autoscaling_stats()
    return tuple(signals[f"manta_{name}"] for name in ("waiting", "running", "slots", "arrived"))


def bounded(store: FakeStore, embedder: FakeEmbedder | None = None) -> Retriever:
    """Return one that searches twice at a time."""
    return Retriever([], store, embedders={"fake": embedder or FakeEmbedder()}, max_concurrent_searches=2)


async def test_searches_over_the_bound_wait_for_the_store() -> None:
    store = FakeStore(info(), may_find=asyncio.Event())
    stage = bounded(store)
    searches = [asyncio.create_task(stage.search(QUERY)) for _ in range(5)]
    await turns()
    assert (len(store.searches), await load(stage)) == (2, (3, 2, 2, 5))
    assert store.may_find is not None
    store.may_find.set()
    assert await asyncio.gather(*searches) == [[HIT]] * 5
    assert await load(stage) == (0, 0, 2, 5)


async def test_waiting_for_the_embedder_is_no_load_of_the_retriever() -> None:
    may_embed = asyncio.Event()
    stage = bounded(FakeStore(info()), FakeEmbedder(may_embed=may_embed))
    searches = [asyncio.create_task(stage.search(QUERY)) for _ in range(5)]
    await turns()
    assert await load(stage) == (0, 0, 2, 0)
    may_embed.set()
    await asyncio.gather(*searches)
    assert await load(stage) == (0, 0, 2, 5)


async def test_searches_that_are_cancelled_or_late_give_their_places_back() -> None:
    store = FakeStore(info(), may_find=asyncio.Event())
    stage = bounded(store)
    patient = [asyncio.create_task(stage.search(QUERY)) for _ in range(3)]
    hasty = asyncio.create_task(stage.search(replace(QUERY, budget_s=0.1)))
    with pytest.raises(DeadlineExceeded):
        await hasty
    assert await load(stage) == (1, 2, 2, 4)
    for search in patient[:2]:
        search.cancel()
    await turns()
    assert await load(stage) == (0, 1, 2, 4)
    patient[2].cancel()
    await asyncio.wait(patient)
    assert await load(stage) == (0, 0, 2, 4)


async def test_a_search_that_fails_in_the_store_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> list[Hit]:
        raise OSError("store away")

    store = FakeStore(info())
    monkeypatch.setattr(store, "search", fail)
    stage = bounded(store)
    with pytest.raises(OSError, match="store away"):
        await stage.search(QUERY)
    assert await load(stage) == (0, 0, 2, 1)


def passes(clock: FakeClock, seconds: float) -> None:
    clock.now_s += seconds


def outcomes(stage: Retriever) -> dict[str, float]:
    found = {
        name: stage.registry.get_sample_value("manta_searches_total", {"outcome": name})
        for name in ("hits", "nothing", "error")
    }
    return {name: count for name, count in found.items() if count is not None}


async def test_searches_are_counted_by_what_they_found() -> None:
    store = FakeStore(info())
    stage = retriever(store)
    await stage.search(QUERY)
    store.hits = []
    await stage.search(QUERY)
    for refused in (replace(QUERY, budget_s=0.0), replace(QUERY, embedder="nobody")):
        with pytest.raises((DeadlineExceeded, UnknownModel)):
            await stage.search(refused)
    assert outcomes(stage) == {"hits": 1, "nothing": 1, "error": 2}


async def test_a_search_whose_caller_left_is_no_error() -> None:
    store = FakeStore(info(), may_find=asyncio.Event())
    stage = retriever(store)
    search = asyncio.create_task(stage.search(QUERY))
    await turns()
    search.cancel()
    await asyncio.wait([search])
    assert outcomes(stage) == {}


async def test_the_stores_time_is_measured_without_the_embedders_and_the_wait_for_a_place() -> None:
    clock = FakeClock()

    class SlowEmbedder(FakeEmbedder):
        async def embed(self, texts: Sequence[str], *, budget_s: float | None = None) -> list[list[float]]:
            passes(clock, 8.0)
            return await super().embed(texts, budget_s=budget_s)

    store = FakeStore(info(), on_search=lambda: passes(clock, 0.25))
    stage = Retriever([], store, embedders={"fake": SlowEmbedder()}, max_concurrent_searches=1, clock=clock)
    await asyncio.gather(*(stage.search(QUERY) for _ in range(3)))
    read = stage.registry.get_sample_value
    assert (read("manta_search_seconds_count"), read("manta_search_seconds_sum")) == (3, 0.75)


async def test_a_search_that_fails_has_no_time() -> None:
    def fail() -> None:
        raise OSError("store away")

    stage = retriever(FakeStore(info(), on_search=fail))
    with pytest.raises(OSError, match="store away"):
        await stage.search(QUERY)
    assert (stage.registry.get_sample_value("manta_search_seconds_count"), outcomes(stage)) == (0, {"error": 1})


async def test_a_store_that_answers_no_search_for_long_makes_it_unhealthy() -> None:
    def lost() -> None:
        raise ConnectionError("connection lost")

    clock, store = FakeClock(), FakeStore(info(), on_search=lost)
    stage = retriever(store, clock=clock)
    for _ in range(UNHEALTHY_AFTER):
        await stage.check_health()
        with pytest.raises(ConnectionError):
            await stage.search(QUERY)
        clock.now_s += UNHEALTHY_AFTER_S / (UNHEALTHY_AFTER - 1)
    with pytest.raises(RuntimeError, match=r"10 calls of the vector store failed, .* ConnectionError: connection lost"):
        await stage.check_health()
    store.on_search = lambda: None
    await stage.search(QUERY)
    await stage.check_health()
