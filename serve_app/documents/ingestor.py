"""Ingestor: an upload's bytes to chunks with vectors."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from serve_app.contracts import Chunk, EmbeddedDocument, Embedder, EmbeddingFingerprint, Vector
from serve_app.documents.records import Chunking, ErrorCode, StoreFileRecord
from serve_app.errors import BadRequest, ErrorKind, PlatformError
from serve_app.ingest.chunk import ChunkSizes, chunk
from serve_app.ingest.documents import UnreadableFile
from serve_app.ingest.embed import REQUESTS_IN_FLIGHT, embed_texts
from serve_app.ingest.parse import PARSERS, parse
from serve_app.ingest.sources import content_hash
from serve_app.ingest.tokens import Tokenizer

SPECIAL_TOKENS = 2
MAX_CHUNKS = 100_000  # of one file; its vectors are held in memory until all are there
# Read as plain text: what these formats mean is in their words.
TEXT_SUFFIXES = frozenset(
    (
        *(".c", ".cpp", ".cs", ".css", ".csv", ".go", ".h", ".hpp", ".ini", ".java", ".js", ".json", ".jsonl", ".kt", ".log"),
        *(".php", ".py", ".rb", ".rs", ".sh", ".sql", ".swift", ".tex", ".toml", ".ts", ".tsv", ".xml", ".yaml", ".yml"),
    )
)


class UnsupportedFile(UnreadableFile):
    """A file of a format that nothing here reads."""


class Ingestor:
    """Cuts files by the embedder's tokens and embeds the pieces.

    Args:
        embedder: makes the vectors. Few requests are in flight at a time, whatever the number of files.
        tokenizer: of that embedder.
        auto: how files are cut that ask for nothing else.

    Raises:
        BadRequest: chunks of that size would not fit the embedder.
    """

    def __init__(self, embedder: Embedder, tokenizer: Tokenizer, *, auto: Chunking) -> None:
        self._embedder = embedder
        self._tokenizer = tokenizer
        self.auto = auto
        self._turns = asyncio.Semaphore(REQUESTS_IN_FLIGHT)
        self.check(auto, param="vector_stores.chunk_tokens")

    def check(self, chunking: Chunking | None, *, param: str) -> None:
        """Raise BadRequest when chunks would be longer than the embedder reads."""
        window = self._tokenizer.window_tokens
        if chunking is not None and window is not None and chunking.max_tokens > window - SPECIAL_TOKENS:
            most = window - SPECIAL_TOKENS
            raise BadRequest(f"{param} is {chunking.max_tokens} tokens; the embedder reads at most {most}", param=param)

    async def fingerprint(self) -> EmbeddingFingerprint:
        """Return what the vectors are."""
        return await self._embedder.describe()

    async def prepare(self, record: StoreFileRecord, content: bytes) -> EmbeddedDocument:
        """Return the file's chunks with vectors.

        Raises:
            UnreadableFile: the file cannot be read, or is too long.
            PlatformError: as the embedder says.
        """
        sizes = chunk_sizes(record.chunking or self.auto)
        chunks = await asyncio.to_thread(self._cut, record, content, sizes=sizes)
        vectors = await embed_texts(self._embedder, [piece.passage for piece in chunks], turns=self._turns)
        digest = content_hash(content, tokenizer=self._tokenizer, sizes=sizes)
        return EmbeddedDocument(record.file_id, digest, chunks, vectors, record.attributes)

    def _cut(self, record: StoreFileRecord, content: bytes, *, sizes: ChunkSizes) -> list[Chunk]:
        document = parse(readable_path(record.filename), content)
        chunks = chunk(document, record.file_id, tokenizer=self._tokenizer, sizes=sizes)
        if len(chunks) > MAX_CHUNKS:
            raise UnreadableFile(f"the file makes {len(chunks)} chunks; at most {MAX_CHUNKS} are taken: split it")
        # Citations name the file; what it calls itself stays above each passage, for search.
        above = () if document.title == PurePosixPath(record.filename).stem else (document.title,)
        return [replace(piece, title=record.filename, headings=(*above, *piece.headings)) for piece in chunks]


def chunk_sizes(chunking: Chunking) -> ChunkSizes:
    """Return the sizes as the chunker takes them."""
    return ChunkSizes(chunking.max_tokens, chunking.overlap_tokens)


def readable_path(filename: str) -> PurePosixPath:
    """Return a name whose suffix has a parser. Raises UnsupportedFile."""
    path = PurePosixPath(filename)
    suffix = path.suffix.lower()
    if suffix in TEXT_SUFFIXES:
        return path.with_suffix(".txt")
    if suffix not in PARSERS:
        known = ", ".join(sorted({*PARSERS, *TEXT_SUFFIXES}))
        raise UnsupportedFile(f"{path.suffix or 'a file without suffix'} is not supported; supported: {known}")
    return path


def usage_bytes(chunks: Sequence[Chunk], vectors: Sequence[Vector]) -> int:
    """Return what a file takes in its collection: texts, and four bytes per number of a vector."""
    return sum(len(piece.passage.encode()) + 4 * len(vector) for piece, vector in zip(chunks, vectors, strict=True))


def failure(error: Exception) -> tuple[ErrorCode, str]:
    """Return what a caller reads in `last_error`; of an unknown error only that there was one."""
    if isinstance(error, UnsupportedFile):
        return "unsupported_file", error.message
    if isinstance(error, PlatformError) and error.kind in (ErrorKind.BAD_REQUEST, ErrorKind.TOO_LARGE):
        return "invalid_file", error.message
    if isinstance(error, PlatformError):
        return "server_error", error.message
    return "server_error", "internal error; add the file again"
