"""Values and protocols that cross seams: chunks and hits, the directory, and one Protocol per stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from serve_app.filters import Filter

Vector = Sequence[float]
SEARCH_BUDGET_S = 30.0
# On a replica's refusal while it drains: Routers then try another one.
DRAINING_HEADER = "x-manta-draining"
# On its answer to a request that its engine has died with, before any byte of an answer.
LOST_HEADER = "x-manta-lost"
# On its refusal of a request whose adapter it cannot load.
ADAPTER_UNAVAILABLE_HEADER = "x-manta-adapter-unavailable"
# What a Router tells a replica of a request's adapter.
ADAPTER_HEADER = "x-manta-adapter"
ADAPTER_SOURCE_HEADER = "x-manta-adapter-source"
ADAPTER_REVISION_HEADER = "x-manta-adapter-revision"


@dataclass(frozen=True, slots=True)
class EmbeddingFingerprint:
    """What makes two embedders' vectors comparable: equal fingerprints, comparable vectors."""

    model: str  # the embedder's source as configured, e.g. sentence-transformers/all-MiniLM-L6-v2
    dimension: int
    normalized: bool

    def __str__(self) -> str:
        norm = "normalized" if self.normalized else "not normalized"
        # Clients read this in error messages, and those name no path: of a folder, only its own name.
        is_folder = self.model.startswith(("/", ".", "~"))
        model = self.model.rstrip("/").rsplit("/", 1)[-1] if is_folder else self.model
        return f"{model} ({self.dimension} dimensions, {norm})"


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage of a document: ``text == document[start:end]`` for plain-text sources."""

    id: str  # "<document_id>#<ordinal>"
    document_id: str  # "<name of the ingested root>/<path below it>", POSIX separators
    ordinal: int
    title: str  # the document's title
    headings: tuple[str, ...]  # from the outermost to the innermost heading above the passage
    text: str
    start: int  # character offsets into the parsed text of the document
    end: int

    @property
    def passage(self) -> str:
        """Title, headings and text: what is embedded and indexed, so that a chunk is found by the words above it."""
        return "\n".join((self.title, *self.headings, self.text))


@dataclass(frozen=True, slots=True)
class EmbeddedDocument:
    """A document ready to be stored: at least one chunk, and one vector per chunk, in order."""

    document_id: str
    content_hash: str  # of the source and of everything that shaped the chunks; equal hashes, equal chunks
    chunks: Sequence[Chunk]
    vectors: Sequence[Vector]
    attributes: Mapping[str, str | float | bool] = field(default_factory=dict)  # what filters compare


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk found for a query; a higher ``score`` is better, comparable within one answer only."""

    chunk: Chunk
    score: float


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """A collection as stored."""

    name: str
    fingerprint: EmbeddingFingerprint
    chunks: int
    documents: int


class Embedder(Protocol):
    """The embed stage."""

    async def embed(self, texts: Sequence[str], *, budget_s: float | None = None) -> list[list[float]]:
        """Return one vector per text, in order.

        Raises:
            DeadlineExceeded: ``budget_s``, the seconds that somebody waits for it, was used up; None: for ever.
        """
        ...

    async def describe(self) -> EmbeddingFingerprint:
        """Return what the vectors are."""
        ...


class CountingEmbedder(Embedder, Protocol):
    """The embed stage as the front of ``/v1/embeddings`` needs it."""

    async def count_tokens(self, texts: Sequence[str], *, must_fit: bool = False) -> int:
        """Return how many tokens are read of the texts together.

        Raises:
            BadRequest: (param ``input``) a text that ``must_fit`` is longer than what is read of one.
        """
        ...


@dataclass(frozen=True, slots=True)
class TraceLink:
    """Where in a trace the work stands that another process is asked for."""

    traceparent: str  # W3C's header
    tracestate: str = ""
    export: str = ""  # TracingConfig as JSON: how that process delivers its spans; empty: it makes none


class Retriever(Protocol):
    """The retrieve stage."""

    async def search(self, query: SearchQuery) -> list[Hit]:
        """Return at most ``query.top_k`` hits, best first."""
        ...


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """One question to a collection."""

    collection: str
    embedder: str
    text: str
    top_k: int
    budget_s: float = SEARCH_BUDGET_S  # seconds left for this stage
    filters: Filter | None = None  # on the attributes of documents, before anything is ranked
    trace: TraceLink | None = None  # set on the way to another process


class VectorStore(Protocol):
    """Where collections live. Every write is idempotent; all I/O is async."""

    async def describe(self, collection: str) -> CollectionInfo | None:
        """Return the collection, or None when it does not exist."""
        ...

    async def create(self, collection: str, fingerprint: EmbeddingFingerprint) -> None:
        """Create it if missing. Raises EmbeddingMismatch when it exists with another fingerprint."""
        ...

    async def documents(self, collection: str) -> Mapping[str, str]:
        """Return document id -> content hash of every stored document."""
        ...

    async def replace_documents(self, collection: str, documents: Sequence[EmbeddedDocument]) -> None:
        """Store the documents in one commit, each in place of what it was: readers see all old or all new."""
        ...

    async def delete_documents(self, collection: str, document_ids: Sequence[str]) -> int:
        """Delete documents with their chunks; return how many chunks went."""
        ...

    async def chunks_of(self, collection: str, document_id: str) -> list[Chunk]:
        """Return a document's chunks in order; empty when it is not there."""
        ...

    async def set_attributes(self, collection: str, document_id: str, attributes: Mapping[str, str | float | bool]) -> None:
        """Give a stored document other attributes; its chunks stay."""
        ...

    async def drop(self, collection: str) -> None:
        """Delete a collection with all it holds; one that is not there is no error."""
        ...

    async def finish(self, collection: str) -> None:
        """Build indexes and compact after a run of writes; search is right without it, only slower."""
        ...

    async def search(
        self, collection: str, vector: Vector, *, text: str, top_k: int, filters: Filter | None = None
    ) -> list[Hit]:
        """Hybrid search among the documents that pass the filters: dense and BM25, fused by reciprocal rank."""
        ...


@dataclass(frozen=True, slots=True)
class AdapterTag:
    """A version of a LoRA adapter, as a replica is told of it."""

    key: str  # <adapter>/<version>
    source: str  # folder, s3:// prefix or hub id
    revision: str  # digest of the version: the same key with another revision is loaded anew


class ReplicaState(StrEnum):
    """Whether a Router may send new work to an LLM replica."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What an engine says of itself right now."""

    waiting: int = 0  # requests queued in the engine, not yet scheduled: the queue depth
    running: int = 0  # requests being decoded
    kv_cache_usage_ratio: float = 0.0  # 0..1
    open_requests: int = 0  # HTTP requests open on the replica's port
    slots: int = 0  # requests decoded at a time at most; 0: unknown, as while the engine starts
    arrived: int = 0  # requests that have come to the replica's port since it opened: a counter
    prefill_tokens_queued: int = 0  # of prompts without an answer's first byte; estimated from the size of bodies
    tokens_per_s: float = 0.0  # generated, over the last seconds


@dataclass(frozen=True, slots=True)
class ReplicaEntry:
    """One line of the directory: an LLM replica that Routers may call."""

    replica_id: str
    model: str
    variant: str
    url: str  # http://<node ip>:<port>
    state: ReplicaState
    load: EngineLoad = field(default_factory=EngineLoad)
    engine: str = "vllm"
    revision: str = ""  # digest of what it is made of (serve_app.rollout.document.revision)
    phase: str = ""  # of a replica that starts: download, load or warm-up
    adapters: tuple[str, ...] = ()  # versions of LoRA adapters in its memory, as AdapterTag.key


@dataclass(frozen=True, slots=True)
class DirectorySnapshot:
    """The directory and the routing document at one version; ``epoch`` changes when Rollouts restarts."""

    epoch: str
    version: int
    replicas: tuple[ReplicaEntry, ...]
    routing: str  # RoutingDocument as JSON (serve_app.rollout.document)
    traffic: str = ""  # TrafficTable as JSON (serve_app.rollout.table); empty: the declared weights
    is_complete: bool = True  # False while a restarted Rollouts is still hearing from the replicas
