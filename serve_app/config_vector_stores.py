"""VectorStoresConfig: what callers may upload, and how it is made searchable."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from serve_app.config_fields import Config, Name, Text
from serve_app.config_rules import PlacedError

MIB = 1024 * 1024


def documents_uri(configured: str | None, collections_uri: str) -> str:
    """Return where uploads are kept: next to the collections unless the configuration says where."""
    return configured or f"{collections_uri.rstrip('/')}-documents"


class VectorStoresConfig(Config):
    """OpenAI's /v1/files and /v1/vector_stores: callers' own collections, filled in the background."""

    embedder: Name = Field(description="Embedder of every vector store; stores that another one filled cannot be searched.")
    uri: Text | None = Field(
        None,
        description="Folder or s3:// URI of files and records; absent means `vector_store.uri` with `-documents` added.",
    )
    # Serve hands an upload to the service in one piece, so both hold it in memory.
    max_file_bytes: int = Field(32 * MIB, ge=1024, le=512 * MIB, description="Largest upload, in bytes.")
    max_files_per_store: int = Field(10_000, ge=1, le=100_000, description="Most files in one vector store.")
    chunk_tokens: int = Field(
        120, ge=16, le=8192, description="Longest chunk, in tokens of the embedder, where a request asks for no other."
    )
    overlap_tokens: int = Field(20, ge=0, description="Tokens of a chunk that the next one repeats, at most; up to half of it.")
    workers: int = Field(2, ge=1, le=32, description="Files made searchable at a time; more make questions wait longer.")
    cpus: float = Field(0.5, gt=0, description="CPU cores reserved for the service.")

    @model_validator(mode="after")
    def _overlap_is_at_most_half(self) -> Self:
        if self.overlap_tokens > self.chunk_tokens // 2:
            half = self.chunk_tokens // 2
            raise PlacedError([(("overlap_tokens",), f"{self.overlap_tokens} is over half of chunk_tokens ({half})")])
        return self
