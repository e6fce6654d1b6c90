"""Collections in LanceDB: embedded, in a local folder or an object store."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from deployments.stores.fusion import fuse
from deployments.stores.lance_commits import committed, connected, created, reached
from deployments.stores.lance_filters import attribute_updates, condition
from deployments.stores.lance_rows import (
    CHUNK_COLUMNS,
    KEY_COLUMN,
    VECTOR_COLUMN,
    check_name,
    fingerprint_in,
    has_attributes,
    is_one_of,
    schema_for,
    to_chunk,
    to_table,
)
from deployments.stores.lance_search import Question, matching, nearest
from deployments.stores.lance_upkeep import cover_attributes, cover_key, cover_some_rows, index_of
from deployments.stores.mounts import StoreFolder
from deployments.stores.object_store import storage_options
from serve_app.contracts import Chunk, CollectionInfo, EmbeddedDocument, EmbeddingFingerprint, Hit, Vector
from serve_app.errors import EmbeddingMismatch, EmptyCollection, Unavailable
from serve_app.filters import Filter, Scalar

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.db import AsyncConnection
    from lancedb.table import AsyncTable

Result = TypeVar("Result")

KEEP_VERSIONS_S = 3600.0  # a reader that opened an old version may finish with it
CANDIDATES_PER_HIT = 4  # each ranking is read this much deeper than the answer, so that fusion can see both
MIN_CANDIDATES = 50
DELETE_BATCH = 500  # document ids in one SQL condition


class LanceStore:
    """VectorStore on LanceDB. Cheap to make and to pickle: it connects at the first call.

    Writes are single commits, so a reader sees a batch whole or not at all, and an interrupted run leaves whole
    batches behind that a rerun completes. Other processes see a commit after at most ``refresh_s`` seconds. Several
    processes may write to one collection: of two versions of a document that are written at once, one stays, whole.
    A folder whose volume goes away under a store is told from an empty store by whoever had found a collection in it
    before: calls raise Unavailable, and nothing is written. (What was read within ``refresh_s`` may still be told.)

    Args:
        uri: folder or s3:// URI; a missing folder is created by the first write.
        refresh_s: most seconds a reader may be behind a writer in another process; 0 checks at every call.
        vector_index_rows: rows from which ``finish`` builds an approximate vector index; below it, exact search is
            fast enough (measured: 20,000 rows of 384 floats take 50 ms on one slow core).
    """

    def __init__(self, uri: str, *, refresh_s: float = 1.0, vector_index_rows: int = 100_000) -> None:
        self._uri = uri
        self._folder = StoreFolder(uri)
        self._refresh = timedelta(seconds=refresh_s)
        self._vector_index_rows = vector_index_rows
        self._connection: AsyncConnection | None = None
        self._tables: dict[str, AsyncTable] = {}

    async def describe(self, collection: str) -> CollectionInfo | None:
        """Return the collection, or None when it does not exist."""
        return await self._retry_on_stale(collection, lambda: self._describe(collection))

    async def create(self, collection: str, fingerprint: EmbeddingFingerprint) -> None:
        """Create it if missing.

        Raises:
            EmbeddingMismatch: it exists with another fingerprint.
            BadRequest: the name is unfit, or the table was not made by Manta.
        """
        await self._anew(collection, lambda: self._create(collection, fingerprint))

    async def documents(self, collection: str) -> Mapping[str, str]:
        """Return document id -> content hash of every stored document; empty when there is no collection."""
        return await self._retry_on_stale(collection, lambda: self._documents(collection))

    async def replace_documents(self, collection: str, documents: Sequence[EmbeddedDocument]) -> None:
        """Store the documents in one commit, each in place of what it was.

        Raises:
            EmptyCollection: the collection was not created.
            ValueError: a document without chunks, or a vector of another length than the collection's.
        """
        if documents:
            await self._anew(collection, lambda: self._replace_documents(collection, documents))

    async def delete_documents(self, collection: str, document_ids: Sequence[str]) -> int:
        """Delete documents with their chunks; return how many chunks went."""
        return await self._anew(collection, lambda: self._delete_documents(collection, document_ids))

    async def chunks_of(self, collection: str, document_id: str) -> list[Chunk]:
        """Return a document's chunks in order; empty when it is not there."""
        return await self._retry_on_stale(collection, lambda: self._chunks_of(collection, document_id))

    async def set_attributes(self, collection: str, document_id: str, attributes: Mapping[str, Scalar]) -> None:
        """Give a stored document other attributes, in one commit; its chunks stay."""
        await self._anew(collection, lambda: self._set_attributes(collection, document_id, attributes))

    async def drop(self, collection: str) -> None:
        """Delete a collection with all it holds; one that is not there is no error."""
        check_name(collection)
        await self._anew(collection, lambda: self._drop(collection))

    async def finish(self, collection: str) -> None:
        """Compact, bring the BM25 index up to date and, in a large collection, build a vector index."""
        await self._anew(collection, lambda: self._finish(collection))

    async def search(
        self, collection: str, vector: Vector, *, text: str, top_k: int, filters: Filter | None = None
    ) -> list[Hit]:
        """Return at most ``top_k`` chunks, by cosine distance and BM25, fused by reciprocal rank.

        Only documents that pass the filters are ranked.

        Raises:
            EmptyCollection: there is no such collection.
            Unavailable: the store cannot be read.
        """
        question = Question(vector, text, depth=max(MIN_CANDIDATES, CANDIDATES_PER_HIT * top_k), filters=filters)
        return (await self._retry_on_stale(collection, lambda: self._search(collection, question)))[:top_k]

    async def _describe(self, collection: str) -> CollectionInfo | None:
        table = await self._find(collection)
        if table is None:
            return None
        fingerprint = fingerprint_in(await table.schema(), collection)
        chunks, documents = await asyncio.gather(table.count_rows(), table.count_rows("ordinal = 0"))
        return CollectionInfo(collection, fingerprint, chunks=chunks, documents=documents)

    async def _create(self, collection: str, fingerprint: EmbeddingFingerprint) -> None:
        table = await self._find(collection)
        if table is None:
            table = await self._make(collection, schema_for(fingerprint))
        stored = fingerprint_in(await table.schema(), collection)
        if stored != fingerprint:
            raise EmbeddingMismatch(collection, str(stored), str(fingerprint))
        await cover_key(table)

    async def _documents(self, collection: str) -> Mapping[str, str]:
        table = await self._find(collection)
        if table is None:
            return {}
        rows = await table.query().where("ordinal = 0").select(["document_id", "content_hash"]).to_arrow()
        return dict(zip(rows["document_id"].to_pylist(), rows["content_hash"].to_pylist(), strict=True))

    async def _replace_documents(self, collection: str, documents: Sequence[EmbeddedDocument]) -> None:
        table = await self._get(collection)
        await cover_attributes(table)
        rows = to_table(documents, await table.schema())
        merge = (
            table.merge_insert(KEY_COLUMN)
            .when_matched_update_all()
            .when_not_matched_insert_all()
            .when_not_matched_by_source_delete(is_one_of("document_id", [d.document_id for d in documents]))
        )
        await committed(table, lambda: merge.execute(rows))
        await cover_some_rows(table)

    async def _delete_documents(self, collection: str, document_ids: Sequence[str]) -> int:
        table = await self._find(collection)
        if table is None or not document_ids:
            return 0
        before = await table.count_rows()
        for i in range(0, len(document_ids), DELETE_BATCH):
            where = is_one_of("document_id", document_ids[i : i + DELETE_BATCH])
            await committed(table, partial(table.delete, where))
        return before - await table.count_rows()

    async def _chunks_of(self, collection: str, document_id: str) -> list[Chunk]:
        table = await self._find(collection)
        if table is None:
            return []
        rows = await table.query().where(is_one_of("document_id", [document_id])).select(CHUNK_COLUMNS).to_list()
        return sorted(map(to_chunk, rows), key=lambda chunk: chunk.ordinal)

    async def _set_attributes(self, collection: str, document_id: str, attributes: Mapping[str, Scalar]) -> None:
        table = await self._find(collection)
        if table is not None:
            await cover_attributes(table)
            where = is_one_of("document_id", [document_id])
            await committed(table, lambda: table.update(updates_sql=attribute_updates(attributes), where=where))

    async def _drop(self, collection: str) -> None:
        self._tables.pop(collection, None)
        await (await self._connect()).drop_table(collection, ignore_missing=True)

    async def _finish(self, collection: str) -> None:
        table = await self._get(collection)
        if (rows := await table.count_rows()) == 0:
            return
        await cover_some_rows(table)
        if rows >= self._vector_index_rows and await index_of(table, VECTOR_COLUMN) is None:
            from lancedb.index import IvfPq

            config = IvfPq(distance_type="cosine")
            await committed(table, lambda: table.create_index(VECTOR_COLUMN, config=config))
        await committed(table, lambda: table.optimize(cleanup_older_than=timedelta(seconds=KEEP_VERSIONS_S)))

    async def _search(self, collection: str, question: Question) -> list[Hit]:
        table = await self._get(collection)
        where = None
        if question.filters is not None:
            where = condition(question.filters, has_attributes=has_attributes(await table.schema()))
        rankings = await asyncio.gather(nearest(table, question, where), matching(table, question, where))
        rows = {row["id"]: row for ranking in rankings for row in ranking}
        fused = fuse([[row["id"] for row in ranking] for ranking in rankings])
        return [Hit(to_chunk(rows[key]), score) for key, score in fused]

    async def _connect(self) -> AsyncConnection:
        if self._connection is None:
            import lancedb

            options = storage_options(self._uri, os.environ)
            connect = partial(lancedb.connect_async, self._uri, storage_options=options)
            self._connection = await connected(partial(connect, read_consistency_interval=self._refresh))
        return self._connection

    async def _make(self, collection: str, schema: pa.Schema) -> AsyncTable:
        connection = await self._connect()
        try:
            table = await created(collection, lambda: connection.create_table(collection, schema=schema))
        except ValueError:  # another process was faster
            return await self._get(collection)
        self._folder.remember(await self._folder.identity())
        return table

    async def _find(self, collection: str) -> AsyncTable | None:
        check_name(collection)
        if collection not in self._tables:
            folder = await self._folder.identity()
            try:
                self._tables[collection] = await (await self._connect()).open_table(collection)
            except ValueError as err:
                if "not found" not in str(err):
                    raise
                await self._check_folder()
                return None
            self._folder.remember(folder)
        return self._tables[collection]

    async def _check_folder(self) -> None:
        """Raise Unavailable when the folder is not the one of before, unless it holds collections: one that was put back."""
        folder = await self._folder.identity()
        if not self._folder.is_another(folder):
            return
        if folder is None or not (await (await self._connect()).list_tables(limit=1)).tables:
            raise Unavailable(
                "the vector store is not where it was: an empty folder, or none, is at vector_store.uri; "
                "mount its volume again, or start the replicas anew if it was emptied on purpose"
            )
        self._folder.remember(folder)

    async def _get(self, collection: str) -> AsyncTable:
        table = await self._find(collection)
        if table is None:
            raise EmptyCollection(collection)
        return table

    async def _retry_on_stale(self, collection: str, read: Callable[[], Awaitable[Result]]) -> Result:
        """Read again through a fresh handle when files went away under the cached one (folder deleted, re-made)."""
        try:
            return await read()
        except (RuntimeError, OSError):
            self._tables.pop(collection, None)
        try:
            return await read()
        except (RuntimeError, OSError) as err:
            self._tables.pop(collection, None)
            raise Unavailable(f"collection {collection!r} cannot be read now") from err

    async def _anew(self, collection: str, write: Callable[[], Awaitable[Result]]) -> Result:
        """Write, and again through a fresh handle when files went away under the cached one, so that nothing was written."""
        await self._check_folder()
        try:
            return await reached(collection, write)
        except (RuntimeError, OSError) as err:
            if "Not found" not in str(err):
                raise
        self._tables.pop(collection, None)
        return await reached(collection, write)
