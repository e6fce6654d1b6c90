"""Uploads and vector stores without Ray: real records and collections, an embedder that counts letters."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployments.retriever import Retriever
from deployments.stores.lancedb import LanceStore
from serve_app.config import VectorStoresConfig
from serve_app.contracts import EmbeddingFingerprint
from serve_app.documents.blobs import BlobStore, FolderBlobs
from serve_app.documents.ingestor import Ingestor
from serve_app.documents.records import Chunking
from serve_app.documents.registry import Registry
from serve_app.documents.service import DocumentService
from serve_app.documents.steps import Steps
from serve_app.documents.worker import Worker
from tests.unit.serve_app.ingest.fakes import WordTokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz"
START_NS = 1_700_000_000_000_000_000


@dataclass
class LetterEmbedder:
    """How often each letter is in a text; waits while ``gate`` is shut, and raises what ``errors`` hold first."""

    gate: asyncio.Event | None = None
    errors: list[Exception] = field(default_factory=list)
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
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
        self._count()
        self.objects[key] = data

    async def get(self, key: str) -> bytes:
        return self.objects[key]

    async def delete(self, key: str) -> None:
        self._count()
        self.objects.pop(key, None)

    async def keys(self) -> list[str]:
        return list(self.objects)

    def _count(self) -> None:
        if self.survives == 0:
            self.is_gone = True
            raise Crash
        self.survives -= 1


def made(folder: Path, *, embedder: LetterEmbedder | None = None, blobs: BlobStore | None = None, clock: Clock | None = None,
         sleep: Callable[[float], Awaitable[None]] = no_sleep, **config: Any) -> DocumentService:  # fmt: skip
    """Return a service over a folder; it is not open yet."""
    embedder = embedder or LetterEmbedder()
    store = LanceStore(str(folder / "lance"), refresh_s=0)
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
