from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import lancedb
import pyarrow as pa
import pytest

from deployments.stores.lance_rows import has_key, schema_for
from deployments.stores.lance_upkeep import cover_key
from deployments.stores.lancedb import LanceStore
from deployments.stores.opening import open_store
from serve_app.config import VectorStoreConfig
from serve_app.contracts import Chunk, EmbeddedDocument, EmbeddingFingerprint
from serve_app.errors import BadRequest, EmbeddingMismatch, EmptyCollection, Unavailable

PRINT = EmbeddingFingerprint("org/fake", dimension=4, normalized=True)
UP, DOWN, FAR = [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]


def document(name: str, *texts: str, vectors: Sequence[Sequence[float]] = (), version: str = "1") -> EmbeddedDocument:
    chunks = [
        Chunk(f"{name}#{i}", name, i, title=name, headings=("Top",), text=text, start=0, end=len(text))
        for i, text in enumerate(texts)
    ]
    return EmbeddedDocument(name, version, chunks, vectors or [FAR] * len(texts))


@pytest.fixture
def store(tmp_path: Path) -> LanceStore:
    return LanceStore(str(tmp_path / "lance"), refresh_s=0)


async def filled(store: LanceStore, *documents: EmbeddedDocument) -> LanceStore:
    await store.create("docs", PRINT)
    await store.replace_documents("docs", documents)
    return store


async def found(store: LanceStore, text: str, vector: Sequence[float] = UP, top_k: int = 5) -> list[str]:
    return [hit.chunk.text for hit in await store.search("docs", vector, text=text, top_k=top_k)]


async def test_a_collection_that_was_never_made_is_none_and_empty(store: LanceStore) -> None:
    assert await store.describe("docs") is None
    assert await store.documents("docs") == {}
    with pytest.raises(EmptyCollection):
        await store.search("docs", UP, text="x", top_k=1)


async def test_create_is_idempotent_and_counts_start_at_zero(store: LanceStore) -> None:
    await store.create("docs", PRINT)
    await store.create("docs", PRINT)
    info = await store.describe("docs")
    assert info is not None
    assert (info.fingerprint, info.chunks, info.documents) == (PRINT, 0, 0)
    assert await store.search("docs", UP, text="anything", top_k=3) == []


async def test_another_embedding_is_refused_with_both_named(store: LanceStore) -> None:
    await store.create("docs", PRINT)
    other = EmbeddingFingerprint("org/other", dimension=8, normalized=True)
    with pytest.raises(EmbeddingMismatch, match=r"org/fake \(4 dim.*org/other \(8 dim.*manta ingest PATH --collection"):
        await store.create("docs", other)


@pytest.mark.parametrize("name", ["", "../up", "a/b", "x" * 101], ids=["empty", "parent", "slash", "too-long"])
async def test_an_unfit_name_is_refused(store: LanceStore, name: str) -> None:
    with pytest.raises(BadRequest, match="no collection name"):
        await store.create(name, PRINT)


async def test_chunks_come_back_whole(store: LanceStore) -> None:
    chunk = Chunk("d#0", "d", 0, title="Tïtle", headings=("A", "B"), text='it\'s "quoted"', start=7, end=20)
    await filled(store, EmbeddedDocument("d", "h", [chunk], [UP]))
    assert [hit.chunk for hit in await store.search("docs", UP, text="quoted", top_k=3)] == [chunk]


async def test_a_changed_document_replaces_its_chunks_and_no_others(store: LanceStore) -> None:
    await filled(store, document("a", "one", "two", "three"), document("b", "other"))
    await store.replace_documents("docs", [document("a", "uno", version="2")])
    assert sorted(await found(store, "x", top_k=10)) == ["other", "uno"]
    assert await store.documents("docs") == {"a": "2", "b": "1"}


async def test_deleting_counts_chunks_and_ignores_unknown_documents(store: LanceStore) -> None:
    await filled(store, document("it's a", "one", "two"), document("b", "other"))
    assert await store.delete_documents("docs", ["it's a", "never there"]) == 2
    assert await store.documents("docs") == {"b": "1"}


async def test_a_vector_of_another_length_stores_nothing(store: LanceStore) -> None:
    await filled(store, document("a", "one"))
    with pytest.raises(ValueError, match=r"(?i)size|length|convert"):
        await store.replace_documents("docs", [document("b", "two", vectors=[[1.0, 2.0]])])
    assert await store.documents("docs") == {"a": "1"}


async def test_a_document_without_chunks_is_refused(store: LanceStore) -> None:
    await store.create("docs", PRINT)
    with pytest.raises(ValueError, match="at least one chunk"):
        await store.replace_documents("docs", [document("a")])


@pytest.mark.parametrize("is_finished", [False, True], ids=["before-finish", "after-finish"])
async def test_hybrid_finds_what_either_side_alone_misses(store: LanceStore, is_finished: bool) -> None:
    crowd = [document(f"crowd{i}", f"filler number {i}", vectors=[DOWN]) for i in range(80)]
    identifier = document("id", "call frobnicate_v2(x)", vectors=[FAR])  # no dense ranking of depth 50 has it first
    meaning = document("meaning", "synonyms only", vectors=[UP])  # shares no word with the question
    await filled(store, *crowd, identifier, meaning)
    if is_finished:
        await store.finish("docs")
    assert set(await found(store, "what does frobnicate_v2 do?", UP, top_k=2)) == {
        "call frobnicate_v2(x)",
        "synonyms only",
    }


async def test_headings_and_title_are_searched_too(store: LanceStore) -> None:
    await filled(store, document("zebra.md", "stripes", vectors=[FAR]), document("lion.md", "mane", vectors=[FAR]))
    assert (await found(store, "zebra", FAR))[0] == "stripes"


@pytest.mark.parametrize(
    "text",
    ['what\'s "that"? (a+b): c/d', "AND OR NOT", "^~*[]{}\\", "?!", "os.path.join('a', *p)", "日本語", "\x00"],
    ids=["punctuation", "operators", "syntax", "no-words", "code", "cjk", "nul"],
)
async def test_any_text_is_a_question(store: LanceStore, text: str) -> None:
    await filled(store, document("a", "one passage"))
    assert await found(store, text) == ["one passage"]


async def test_another_process_sees_new_documents(store: LanceStore, tmp_path: Path) -> None:
    await filled(store, document("a", "one"))
    reader = LanceStore(str(tmp_path / "lance"), refresh_s=0)
    assert await found(reader, "one") == ["one"]
    await store.replace_documents("docs", [document("b", "two")])
    await store.finish("docs")
    assert sorted(await found(reader, "one")) == ["one", "two"]


async def test_an_index_whose_rows_were_all_replaced_still_ranks_by_words(store: LanceStore) -> None:
    names = [f"d{i}" for i in range(30)]
    await filled(store, *(document(name, f"old {name}") for name in names))
    await store.replace_documents("docs", [document(name, f"new only{name}", version="2") for name in names])
    assert (await found(store, "onlyd7", FAR))[0] == "new onlyd7"


async def test_a_large_collection_gets_a_vector_index_and_still_finds(tmp_path: Path) -> None:
    store = LanceStore(str(tmp_path), vector_index_rows=256)
    vectors = [[float(i), 1.0, float(i % 7), float(i % 3)] for i in range(300)]
    await filled(store, document("a", *(f"t{i}" for i in range(300)), vectors=vectors))
    await store.finish("docs")
    assert (await found(store, "?", vectors[250], top_k=1)) == ["t250"]


async def test_a_folder_deleted_and_filled_again_under_a_reader_is_read_anew(tmp_path: Path) -> None:
    folder = tmp_path / "lance"
    reader = LanceStore(str(folder), refresh_s=0)
    await filled(LanceStore(str(folder)), document("a", "before"))
    assert await found(reader, "before") == ["before"]
    shutil.rmtree(folder)
    with pytest.raises((EmptyCollection, Unavailable)):
        await found(reader, "before")
    await filled(LanceStore(str(folder)), document("a", "after"))
    assert await found(reader, "after") == ["after"]


CALLS: dict[str, Callable[[LanceStore], Awaitable[object]]] = {
    "describe": lambda store: store.describe("docs"),
    "documents": lambda store: store.documents("docs"),
    "chunks_of": lambda store: store.chunks_of("docs", "a"),
    "search": lambda store: found(store, "kept"),
    "create": lambda store: store.create("docs", PRINT),
    "create another": lambda store: store.create("another", PRINT),
    "replace_documents": lambda store: store.replace_documents("docs", [document("b", "new")]),
    "delete_documents": lambda store: store.delete_documents("docs", ["a"]),
    "set_attributes": lambda store: store.set_attributes("docs", "a", {"year": 1}),
    "finish": lambda store: store.finish("docs"),
    "drop": lambda store: store.drop("docs"),
}


WRITES = {"create another", "replace_documents", "delete_documents", "set_attributes", "finish", "drop"}


async def test_a_store_whose_volume_goes_away_is_away_and_not_empty(tmp_path: Path) -> None:
    for call, made in CALLS.items():
        folder, volume = tmp_path / call / "lance", tmp_path / call / "volume"
        store = await filled(LanceStore(str(folder), refresh_s=0), document("a", "kept"))
        folder.rename(volume)
        folder.mkdir()  # a mount point without its volume
        for _ in range(2):
            with pytest.raises(Unavailable, match=r"not where it was.* vector_store\.uri; mount its volume again"):
                await made(store)
        assert list(folder.iterdir()) == []
        folder.rmdir()
        with pytest.raises(Unavailable, match="or none"):
            await made(store)
        volume.rename(folder)
        assert await found(store, "kept") == ["kept"]


@pytest.mark.parametrize("refresh_s", [0.0, 60.0])
@pytest.mark.parametrize("has_rows", [False, True])
async def test_nothing_is_written_where_the_volume_of_a_store_was(tmp_path: Path, refresh_s: float, has_rows: bool) -> None:
    for call in WRITES:
        folder, volume = tmp_path / call / "lance", tmp_path / call / "volume"
        store = await filled(LanceStore(str(folder), refresh_s=refresh_s), *([document("a", "kept")] if has_rows else []))
        folder.rename(volume)
        folder.mkdir()
        for _ in range(2):
            with pytest.raises(Unavailable, match="not where it was"):
                await CALLS[call](store)
        assert list(folder.iterdir()) == []
        folder.rmdir()
        volume.rename(folder)
        await CALLS[call](store)


async def test_a_volume_that_is_put_back_as_another_one_is_known_again(tmp_path: Path) -> None:
    folder, copy = tmp_path / "lance", tmp_path / "copy"
    store = await filled(LanceStore(str(folder), refresh_s=0), document("a", "kept"))
    shutil.copytree(folder, copy)
    folder.rename(tmp_path / "old")
    copy.rename(folder)
    await store.create("another", PRINT)
    assert await found(store, "kept") == ["kept"]
    shutil.rmtree(folder)
    with pytest.raises(Unavailable, match="not where it was"):
        await store.describe("another")


async def test_a_collection_that_was_dropped_and_made_again_is_written_to(tmp_path: Path) -> None:
    store = await filled(LanceStore(str(tmp_path), refresh_s=0), document("a", "before"))
    other = LanceStore(str(tmp_path))
    await other.drop("docs")
    with pytest.raises(EmptyCollection):
        await store.replace_documents("docs", [document("b", "lost")])
    assert await store.documents("docs") == {}
    await filled(other, document("a", "after"))
    await store.replace_documents("docs", [document("b", "too")])
    assert set(await found(store, "after", top_k=5)) == {"after", "too"}


async def test_a_collection_that_another_process_drops_is_missing_in_a_store_that_is_there(tmp_path: Path) -> None:
    store = await filled(LanceStore(str(tmp_path), refresh_s=0), document("a", "gone"))
    await LanceStore(str(tmp_path)).drop("docs")
    with pytest.raises(EmptyCollection):
        await found(store, "gone")
    assert await store.describe("docs") is None


async def test_calls_without_anything_to_do_do_nothing(store: LanceStore) -> None:
    assert await store.delete_documents("docs", ["a"]) == 0
    await store.create("docs", PRINT)
    await store.replace_documents("docs", [])
    await store.finish("docs")
    assert await store.documents("docs") == {}


async def test_writing_to_a_collection_that_was_not_made_is_refused(store: LanceStore) -> None:
    with pytest.raises(EmptyCollection):
        await store.replace_documents("docs", [document("a", "one")])


async def test_two_processes_that_create_at_once_agree(store: LanceStore, tmp_path: Path) -> None:
    await store.describe("docs")  # connects, and finds nothing
    late = LanceStore(str(tmp_path / "lance"), refresh_s=0)
    await asyncio.gather(store.create("docs", PRINT), late.create("docs", PRINT))
    assert await store.describe("docs") == await late.describe("docs")


async def rows_by_document(folder: Path) -> dict[str, list[tuple[str, str]]]:
    table = await (await lancedb.connect_async(folder)).open_table("docs")
    rows = await table.query().select(["document_id", "id", "content_hash"]).to_list()
    found: dict[str, list[tuple[str, str]]] = {}
    for row in sorted(rows, key=lambda row: str(row["id"])):
        found.setdefault(row["document_id"], []).append((row["id"], row["content_hash"]))
    return found


async def without_key(folder: Path) -> None:
    """Make the collection as Manta 0.1.0 made it."""
    schema = schema_for(PRINT)
    bare = pa.schema([f.remove_metadata() for f in schema], metadata=schema.metadata)
    await (await lancedb.connect_async(folder)).create_table("docs", schema=bare)


@pytest.mark.parametrize("is_old", [False, True], ids=["new-collection", "collection-of-0.1.0"])
async def test_two_writers_of_the_same_documents_leave_one_version_of_each_whole(tmp_path: Path, is_old: bool) -> None:
    folder = tmp_path / "lance"
    if is_old:
        await without_key(folder)
    writers = {version: LanceStore(str(folder), refresh_s=0) for version in ("1", "2")}
    versions = {v: [document(f"d{i}", *[f"text {v}"] * (2 * int(v)), version=v) for i in range(9)] for v in writers}

    async def write(version: str) -> None:
        for i in range(0, 9, 3):
            await writers[version].replace_documents("docs", versions[version][i : i + 3])
        await writers[version].finish("docs")

    await asyncio.gather(*(writer.create("docs", PRINT) for writer in writers.values()))
    await asyncio.gather(*map(write, writers))
    whole: dict[str, list[list[tuple[str, str]]]] = {}
    for each in (*versions["1"], *versions["2"]):
        whole.setdefault(each.document_id, []).append([(chunk.id, each.content_hash) for chunk in each.chunks])
    found = await rows_by_document(folder)
    assert found.keys() == whole.keys()
    assert [name for name, rows in found.items() if rows not in whole[name]] == []


async def test_a_key_that_another_process_sets_at_the_same_moment_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await without_key(tmp_path)
    early, late = [await (await lancedb.connect_async(tmp_path)).open_table("docs") for _ in range(2)]

    async def set_later(columns: str) -> None:
        await cover_key(early)
        raise ValueError(f"an unenforced primary key is already set on this table, not {columns}")

    monkeypatch.setattr(late, "set_unenforced_primary_key", set_later)
    await cover_key(late)
    assert has_key(await late.schema())


async def test_a_table_of_another_program_is_not_touched(store: LanceStore, tmp_path: Path) -> None:
    connection = await lancedb.connect_async(tmp_path / "lance")
    await connection.create_table("docs", pa.table({"x": [1]}))
    for call in (store.create("docs", PRINT), store.describe("docs")):
        with pytest.raises(BadRequest, match="was not made by `manta ingest`"):
            await call


async def test_the_configured_store_opens(tmp_path: Path) -> None:
    store = open_store(VectorStoreConfig(uri=str(tmp_path)))
    assert await store.describe("docs") is None
