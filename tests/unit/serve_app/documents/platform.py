"""Uploads and vector stores without Ray: real records and collections, an embedder that counts letters."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployments.retriever import Retriever
from deployments.stores.lancedb import LanceStore
from serve_app.config import VectorStoresConfig
from serve_app.contracts import EmbeddedDocument, EmbeddingFingerprint
from serve_app.documents.blobs import BlobStore, FolderBlobs
from serve_app.documents.ingestor import Ingestor
from serve_app.documents.records import Chunking
from serve_app.documents.registry import Registry
from serve_app.documents.service import DocumentService
from serve_app.documents.steps import Steps
from serve_app.documents.worker import Worker
from serve_app.filters import Scalar
from tests.unit.serve_app.ingest.fakes import WordTokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz"
START_NS = 1_700_000_000_000_000_000


@dataclass
class LetterEmbedder:
    """How often each letter is in a text; waits while ``gate`` is shut, and raises what ``errors`` hold first."""

    gate: asyncio.Event | None = None
    errors: list[Exception] = field(default_factory=list)
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    async def embed(self, texts: Sequence[str], *, budget_s: float | None = None) -> list[list[float]]:
        self.reached.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        return [[1.0 + text.lower().count(letter) for letter in LETTERS] for text in texts]

    async def describe(self) -> EmbeddingFingerprint:
        return EmbeddingFingerprint("org/letters", len(LETTERS), normalized=False)


@dataclass
class Clock:
    now_ns: int = START_NS

    def __call__(self) -> int:
        return self.now_ns


async def no_sleep(_: float) -> None:
    await asyncio.sleep(0)


class Crash(BaseException):
    """The process is gone."""


@dataclass
class MemoryBlobs:
    """Objects that outlive a service; after ``survives`` more writes the process is gone."""

    objects: dict[str, bytes] = field(default_factory=dict)
    survives: int = 1_000_000
    is_gone: bool = False

    async def put(self, key: str, data: bytes) -> None:
        self.count()
        self.objects[key] = data

    async def get(self, key: str) -> bytes:
        return self.objects[key]

    async def delete(self, key: str) -> None:
        self.count()
        self.objects.pop(key, None)

    async def keys(self) -> list[str]:
        return list(self.objects)

    def count(self) -> None:
        """Count a write that is about to begin."""
        if self.survives == 0:
            self.is_gone = True
            raise Crash
        self.survives -= 1


class FusedStore(LanceStore):
    """Collections whose writes count with those of the records, so that the process may be gone before any of both."""

    def __init__(self, uri: str, blobs: MemoryBlobs) -> None:
        super().__init__(uri, refresh_s=0)
        self._blobs = blobs

    async def create(self, collection: str, fingerprint: EmbeddingFingerprint) -> None:
        self._blobs.count()
        await super().create(collection, fingerprint)

    async def replace_documents(self, collection: str, documents: Sequence[EmbeddedDocument]) -> None:
        self._blobs.count()
        await super().replace_documents(collection, documents)

    async def delete_documents(self, collection: str, document_ids: Sequence[str]) -> int:
        self._blobs.count()
        return await super().delete_documents(collection, document_ids)

    async def set_attributes(self, collection: str, document_id: str, attributes: Mapping[str, Scalar]) -> None:
        self._blobs.count()
        await super().set_attributes(collection, document_id, attributes)

    async def drop(self, collection: str) -> None:
        self._blobs.count()
        await super().drop(collection)

    async def finish(self, collection: str) -> None:
        self._blobs.count()
        await super().finish(collection)


def made(folder: Path, *, embedder: LetterEmbedder | None = None, blobs: BlobStore | None = None, clock: Clock | None = None,
         sleep: Callable[[float], Awaitable[None]] = no_sleep, **config: Any) -> DocumentService:  # fmt: skip
    """Return a service over a folder; it is not open yet."""
    embedder = embedder or LetterEmbedder()
    uri = str(folder / "lance")
    store = FusedStore(uri, blobs) if isinstance(blobs, MemoryBlobs) else LanceStore(uri, refresh_s=0)
    registry = Registry(blobs or FolderBlobs(folder / "documents"), now_ns=clock or Clock())
    steps = Steps(registry, store)
    settings = VectorStoresConfig(embedder="letters", **config)
    auto = Chunking(settings.chunk_tokens, settings.overlap_tokens)
    ingestor = Ingestor(embedder, WordTokenizer(), auto=auto)
    worker = Worker(steps, ingestor, visible_after_s=0, sleep=sleep)
    retriever = Retriever([], store, embedders={"letters": embedder})
    return DocumentService(steps, worker, ingestor=ingestor, retriever=retriever, config=settings)


async def settled(service: DocumentService, tenant: str, store_id: str) -> dict[str, Any]:
    """Return the vector store once none of its files is in progress."""
    for _ in range(4000):
        store = await service.store(tenant, store_id)
        if not store["file_counts"]["in_progress"]:
            return store
        await asyncio.sleep(0.005)
    raise TimeoutError("files are still in progress")
