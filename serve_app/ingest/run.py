"""One ingest run: what changed is parsed, cut, embedded and stored in batches of whole documents."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from serve_app.contracts import Chunk, EmbeddedDocument, Embedder, VectorStore
from serve_app.errors import ErrorKind, PlatformError
from serve_app.ingest.chunk import ChunkSizes, chunk
from serve_app.ingest.documents import UnreadableFile
from serve_app.ingest.embed import REQUESTS_IN_FLIGHT, embed_texts
from serve_app.ingest.parse import parse
from serve_app.ingest.report import FileFailure, IngestReport
from serve_app.ingest.sources import SourceFile, SourceSet, content_hash
from serve_app.ingest.tokens import Tokenizer

COMMIT_CHUNKS = 256  # a batch of documents is stored when it has this many: few commits, little to redo
# The embedder refuses the text itself: other files may be fine. Anything else would fail for every file.
FAULTS_OF_THE_FILE = frozenset({ErrorKind.BAD_REQUEST, ErrorKind.TOO_LARGE})

OnFileDone = Callable[[IngestReport], None]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A changed document, cut but not embedded."""

    document_id: str
    content_hash: str
    chunks: Sequence[Chunk]


class IngestRun:
    """Brings a collection in line with a set of files. Running it again continues where an interrupted run stopped.

    Args:
        collection: created when missing.
        store: where it lives.
        embedder: makes the vectors; several requests are in flight at a time.
        tokenizer: of that embedder.
        sizes: of the chunks.
    """

    def __init__(
        self, collection: str, store: VectorStore, *, embedder: Embedder, tokenizer: Tokenizer, sizes: ChunkSizes
    ) -> None:  # fmt: skip
        self._collection = collection
        self._store = store
        self._embedder = embedder
        self._tokenizer = tokenizer
        self._sizes = sizes
        self._requests = asyncio.Semaphore(REQUESTS_IN_FLIGHT)
        self._report = IngestReport(collection)
        self._stored: Mapping[str, str] = {}

    async def execute(self, sources: SourceSet, *, prune: bool, on_file_done: OnFileDone) -> IngestReport:
        """Ingest the files and return what was done; a file that fails is reported and does not stop the rest.

        Raises:
            EmbeddingMismatch: the collection was filled by another embedder.
            Unavailable: the embedder went away; what was stored so far stays.
        """
        started_s = time.monotonic()
        await self._store.create(self._collection, await self._embedder.describe())
        self._stored = await self._store.documents(self._collection)
        self._report.ignored = sources.ignored
        await self._write_changed(sources.files, on_file_done)
        if prune:
            await self._prune(sources)
        await self._store.finish(self._collection)
        self._report.elapsed_s = time.monotonic() - started_s
        return self._report

    async def _write_changed(self, files: Sequence[SourceFile], on_file_done: OnFileDone) -> None:
        batch: list[_Prepared] = []
        for file in files:
            prepared = await self._prepare(file)
            if prepared is not None:
                batch.append(prepared)
            if sum(len(document.chunks) for document in batch) >= COMMIT_CHUNKS:
                await self._commit(batch)
                batch = []
            on_file_done(self._report)
        await self._commit(batch)
        on_file_done(self._report)

    async def _prepare(self, file: SourceFile) -> _Prepared | None:
        """Return the document cut into chunks; None when it did not change or cannot be read."""
        try:
            return await asyncio.to_thread(self._read, file)
        except UnreadableFile as err:
            self._fail(file.document_id, err.message)
        except OSError as err:
            self._fail(file.document_id, f"cannot be read: {err.strerror or type(err).__name__}")
        return None

    def _read(self, file: SourceFile) -> _Prepared | None:
        _require_utf8(file.document_id)
        data = file.path.read_bytes()
        digest = content_hash(data, tokenizer=self._tokenizer, sizes=self._sizes)
        if self._stored.get(file.document_id) == digest:
            self._report.unchanged += 1
            return None
        document = parse(file.path, data)
        chunks = chunk(document, file.document_id, tokenizer=self._tokenizer, sizes=self._sizes)
        return _Prepared(file.document_id, digest, chunks)

    async def _commit(self, batch: Sequence[_Prepared]) -> None:
        if not batch:
            return
        try:
            documents = await self._embed(batch)
        except PlatformError as err:
            if err.kind not in FAULTS_OF_THE_FILE:
                raise
            if len(batch) == 1:
                self._fail(batch[0].document_id, err.message)
                return
            for document in batch:  # one by one, to find whose fault it is
                await self._commit([document])
            return
        await self._store.replace_documents(self._collection, documents)
        for stored in documents:
            self._count(stored)

    async def _embed(self, batch: Sequence[_Prepared]) -> list[EmbeddedDocument]:
        passages = [piece.passage for document in batch for piece in document.chunks]
        vectors = iter(await embed_texts(self._embedder, passages, turns=self._requests))
        return [
            EmbeddedDocument(
                document.document_id, document.content_hash, document.chunks, [next(vectors) for _ in document.chunks]
            )
            for document in batch
        ]

    async def _prune(self, sources: SourceSet) -> None:
        """Delete the documents of this root whose file is gone; a file that failed is not gone."""
        present = {file.document_id for file in sources.files}
        gone = [name for name in self._stored if name.startswith(f"{sources.root}/") and name not in present]
        self._report.chunks_pruned = await self._store.delete_documents(self._collection, gone)
        self._report.pruned = len(gone)

    def _count(self, document: EmbeddedDocument) -> None:
        if document.document_id in self._stored:
            self._report.changed += 1
        else:
            self._report.added += 1
        self._report.chunks_written += len(document.chunks)

    def _fail(self, document_id: str, message: str) -> None:
        shown = document_id.encode(errors="replace").decode()
        self._report.failures.append(FileFailure(shown, message))


def _require_utf8(document_id: str) -> None:
    try:
        document_id.encode()
    except UnicodeEncodeError as err:
        raise UnreadableFile("its name is not UTF-8, so it cannot be cited; rename it") from err
