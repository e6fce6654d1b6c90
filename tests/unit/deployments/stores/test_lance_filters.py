"""What LanceDB finds is what ``serve_app.filters.matches`` says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lancedb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.stores.lance_filters import ATTRIBUTE_COLUMNS
from deployments.stores.lancedb import LanceStore
from serve_app.contracts import Chunk, EmbeddedDocument, EmbeddingFingerprint
from serve_app.filters import DOCUMENT_ID, TITLE, Comparison, Compound, Filter, Scalar, matches, parse_filter

PRINT = EmbeddingFingerprint("org/fake", dimension=2, normalized=True)
NASTY = ["", "a", "b", "it's", "''", "\\", '"', "%", "é", "\U0001f427", "a\0b", "x' OR 'a'='a", "--", "$1", "{}"]
NUMBERS = [0, -0.0, 1, 1.5, -3, 2**53, 1e308, 5e-324]
KEYS = ["year", "name", "it's", "string:name", "title", "document_id", "k'] OR TRUE --"]
SCALARS = st.sampled_from([*NASTY, *NUMBERS, True, False])
ATTRIBUTES = st.dictionaries(st.sampled_from(KEYS), SCALARS, max_size=5)
COMPARISONS = st.one_of(
    st.builds(Comparison, st.sampled_from(["eq", "ne"]), st.sampled_from(KEYS), SCALARS),
    st.builds(
        Comparison, st.sampled_from(["gt", "gte", "lt", "lte"]), st.sampled_from(KEYS), st.sampled_from([*NASTY, *NUMBERS])
    ),
    st.builds(
        Comparison, st.sampled_from(["in", "nin"]), st.sampled_from(KEYS), st.lists(SCALARS, min_size=1, max_size=4).map(tuple)
    ),
)
FILTERS: st.SearchStrategy[Filter] = st.recursive(
    COMPARISONS,
    lambda inner: st.builds(Compound, st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=3).map(tuple)),
    max_leaves=6,
)


def document(name: str, attributes: Mapping[str, Scalar], title: str = "Title") -> EmbeddedDocument:
    chunk = Chunk(f"{name}#0", name, 0, title=title, headings=(), text="word", start=0, end=4)
    return EmbeddedDocument(name, "1", [chunk], [[1.0, 0.0]], attributes)


def complete(stored: EmbeddedDocument) -> Mapping[str, Scalar]:
    return {DOCUMENT_ID: stored.document_id, TITLE: stored.chunks[0].title, **stored.attributes}


async def filled(folder: Path, *documents: EmbeddedDocument) -> LanceStore:
    store = LanceStore(str(folder / "lance"), refresh_s=0)
    await store.create("docs", PRINT)
    await store.replace_documents("docs", documents)
    return store


async def found(store: LanceStore, wanted: Filter | dict[str, Any]) -> set[str]:
    filters = parse_filter(wanted, param="filters") if isinstance(wanted, dict) else wanted
    hits = await store.search("docs", [1.0, 0.0], text="word", top_k=100, filters=filters)
    return {hit.chunk.document_id for hit in hits}


@settings(max_examples=25, deadline=None)
@given(st.lists(ATTRIBUTES, min_size=1, max_size=12), st.lists(FILTERS, min_size=8, max_size=8))
def test_the_store_finds_what_matches(tmp_path_factory: pytest.TempPathFactory, stored: Any, asked: list[Filter]) -> None:
    documents = [document(f"d{i}", attributes, NASTY[i]) for i, attributes in enumerate(stored)]

    async def check() -> None:
        store = await filled(tmp_path_factory.mktemp("filters"), *documents)
        for wanted in asked:
            expected = {d.document_id for d in documents if matches(wanted, complete(d))}
            assert await found(store, wanted) == expected, wanted

    asyncio.run(check())


async def test_filters_come_before_the_ranking(tmp_path: Path) -> None:
    crowd = [document(f"d{i}", {"year": 1999}) for i in range(300)]
    store = await filled(tmp_path, *crowd, document("needle", {"year": 2024}))
    filters = Comparison("gt", "year", 2000)
    hits = await store.search("docs", [0.0, 1.0], text="absent", top_k=1, filters=filters)  # by vector only
    assert [hit.chunk.document_id for hit in hits] == ["needle"]
    hits = await store.search("docs", [1.0, 0.0], text="word", top_k=5, filters=filters)
    assert [hit.chunk.document_id for hit in hits] == ["needle"]


async def test_new_attributes_replace_the_old_ones(tmp_path: Path) -> None:
    store = await filled(tmp_path, document("a", {"year": 1999, "name": "x"}), document("b", {"year": 1999}))
    await store.set_attributes("docs", "a", {"year": "it's '24", "title": True})
    assert await found(store, {"type": "eq", "key": "year", "value": "it's '24"}) == {"a"}
    assert await found(store, {"type": "eq", "key": "year", "value": 1999}) == {"b"}
    assert await found(store, {"type": "eq", "key": "name", "value": "x"}) == set()
    assert await found(store, {"type": "eq", "key": "title", "value": True}) == {"a"}
    assert await found(store, {"type": "eq", "key": "document_id", "value": "a"}) == {"a"}
    await store.set_attributes("docs", "a", {})
    assert await found(store, {"type": "eq", "key": "title", "value": "Title"}) == {"a", "b"}


async def old_collection(tmp_path: Path) -> LanceStore:
    """One as Manta 0.1.0 made it: without the columns."""
    await filled(tmp_path, document("old", {}, "Old"), document("older", {}, "Older"))
    table = await (await lancedb.connect_async(str(tmp_path / "lance"))).open_table("docs")
    await table.drop_columns(list(ATTRIBUTE_COLUMNS))
    return LanceStore(str(tmp_path / "lance"), refresh_s=0)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Comparison("eq", "title", "Old"), {"old"}),
        (Comparison("in", "document_id", ("older", "x", 3)), {"older"}),
        (Comparison("ne", "title", "Old"), {"older"}),
        (Comparison("eq", "year", 1), set()),
        (Comparison("nin", "year", (1, "a")), {"old", "older"}),
    ],
)
async def test_documents_of_an_old_collection_have_an_id_and_a_title(
    tmp_path: Path, wanted: Filter, expected: set[str]
) -> None:
    assert await found(await old_collection(tmp_path), wanted) == expected


async def test_the_first_write_to_an_old_collection_gives_it_attributes(tmp_path: Path) -> None:
    store = await old_collection(tmp_path)
    await store.replace_documents("docs", [document("new", {"year": 2024}, "New")])
    assert await found(store, Comparison("eq", "year", 2024)) == {"new"}
    assert await found(store, Comparison("ne", "year", 2024)) == {"old", "older"}
    assert await found(store, Comparison("in", "title", ("Old", "New"))) == {"old", "new"}
    info = await store.describe("docs")
    assert info is not None
    assert info.fingerprint == PRINT


async def test_chunks_of_a_document_come_in_order(tmp_path: Path) -> None:
    chunks = [Chunk(f"it's#{i}", "it's", i, title="T", headings=(), text=str(i), start=i, end=i + 1) for i in range(12)]
    store = await filled(tmp_path, EmbeddedDocument("it's", "1", chunks, [[1.0, 0.0]] * 12), document("other", {}))
    assert await store.chunks_of("docs", "it's") == chunks
    assert await store.chunks_of("docs", "absent") == []
    assert await store.chunks_of("nowhere", "it's") == []


async def test_a_dropped_collection_is_gone_and_can_be_made_again(tmp_path: Path) -> None:
    store = await filled(tmp_path, document("a", {}))
    await store.drop("docs")
    await store.drop("docs")
    assert await store.describe("docs") is None
    await store.create("docs", PRINT)
    assert await store.documents("docs") == {}
