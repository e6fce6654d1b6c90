"""Fakes for ingest: an embedder, a tokenizer and a store that need no model and no database."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from serve_app.contracts import Chunk, CollectionInfo, EmbeddedDocument, EmbeddingFingerprint, Hit, Vector
from serve_app.errors import BadRequest, EmbeddingMismatch
from serve_app.filters import Filter, Scalar


class WordTokenizer:
    """A token is a word or a mark."""

    name = "words"
    window_tokens: int | None = 256

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]


@dataclass
class FakeEmbedder:
    """Vector of a text: its length. Refuses texts with ``refuses`` in them."""

    dimension: int = 1
    refuses: str | None = None
    calls: list[list[str]] = field(default_factory=list)

    async def embed(self, texts: Sequence[str], *, budget_s: float | None = None) -> list[list[float]]:
        self.calls.append(list(texts))
        if self.refuses and any(self.refuses in text for text in texts):
            raise BadRequest("the embedder does not like it")
        return [[float(len(text))] * self.dimension for text in texts]

    async def describe(self) -> EmbeddingFingerprint:
        return EmbeddingFingerprint("org/fake", self.dimension, normalized=True)


@dataclass
class MemoryStore:
    """One collection."""

    fingerprint: EmbeddingFingerprint | None = None
    stored: dict[str, EmbeddedDocument] = field(default_factory=dict)
    commits: list[int] = field(default_factory=list)
    finished: int = 0

    @property
    def chunks(self) -> dict[str, Chunk]:
        return {chunk.id: chunk for document in self.stored.values() for chunk in document.chunks}

    async def describe(self, collection: str) -> CollectionInfo | None:
        if self.fingerprint is None:
            return None
        return CollectionInfo(collection, self.fingerprint, len(self.chunks), len(self.stored))

    async def create(self, collection: str, fingerprint: EmbeddingFingerprint) -> None:
        if self.fingerprint not in {None, fingerprint}:
            raise EmbeddingMismatch(collection, str(self.fingerprint), str(fingerprint))
        self.fingerprint = fingerprint

    async def documents(self, collection: str) -> Mapping[str, str]:
        return {name: document.content_hash for name, document in self.stored.items()}

    async def replace_documents(self, collection: str, documents: Sequence[EmbeddedDocument]) -> None:
        self.commits.append(len(documents))
        self.stored |= {document.document_id: document for document in documents}

    async def delete_documents(self, collection: str, document_ids: Sequence[str]) -> int:
        return sum(len(self.stored.pop(name).chunks) for name in document_ids)

    async def chunks_of(self, collection: str, document_id: str) -> list[Chunk]:
        return list(self.stored[document_id].chunks)

    async def finish(self, collection: str) -> None:
        self.finished += 1

    async def search(
        self, collection: str, vector: Vector, *, text: str, top_k: int, filters: Filter | None = None
    ) -> list[Hit]:
        return []

    async def set_attributes(self, collection: str, document_id: str, attributes: Mapping[str, Scalar]) -> None: ...
    async def drop(self, collection: str) -> None: ...


class HashEmbedder:
    """The vector of a text is made of its digest: the same in every process, and no two texts' alike."""

    dimension = 8

    async def embed(self, texts: Sequence[str], *, budget_s: float | None = None) -> list[list[float]]:
        return [[byte / 255 for byte in hashlib.sha256(text.encode()).digest()[: self.dimension]] for text in texts]

    async def describe(self) -> EmbeddingFingerprint:
        return EmbeddingFingerprint("org/hash", self.dimension, normalized=False)
