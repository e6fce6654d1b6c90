"""The shape of a LanceDB collection: its schema, and chunks to rows and back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from deployments.stores.lance_filters import ATTRIBUTE_COLUMNS, attribute_fields, attribute_values
from serve_app.contracts import Chunk, EmbeddedDocument, EmbeddingFingerprint
from serve_app.errors import BadRequest

if TYPE_CHECKING:
    import pyarrow as pa

KEY_COLUMN = "id"
# Lance then refuses a commit that adds a key which another writer has added since, and merges again.
_KEY_MARK = b"lance-schema:unenforced-primary-key:position"
TEXT_COLUMN = "passage"  # what BM25 reads: title, headings and text of the chunk
VECTOR_COLUMN = "vector"  # float32, as many as the fingerprint's dimension
CHUNK_COLUMNS = ["id", "document_id", "ordinal", "title", "headings", "text", "start", "end"]
FINGERPRINT_KEY = b"manta.embedding"  # in the table's schema metadata, so it is created in the same commit
COLLECTION_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")


def check_name(collection: str) -> None:
    """Refuse a name that is unfit for a folder or an object-store key."""
    if not COLLECTION_NAME.match(collection):
        raise BadRequest(
            f"{collection!r} is no collection name; use letters, digits, '-', '_' and '.', at most 100 characters",
            param="collection",
        )


def schema_for(fingerprint: EmbeddingFingerprint) -> pa.Schema:
    """Return the columns of a collection; offsets are int64 characters, vectors float32[dimension]."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field(KEY_COLUMN, pa.string(), nullable=False, metadata={_KEY_MARK: b"1"}),
            pa.field("document_id", pa.string(), nullable=False),
            pa.field("content_hash", pa.string(), nullable=False),
            pa.field("ordinal", pa.int32(), nullable=False),
            pa.field("title", pa.string(), nullable=False),
            pa.field("headings", pa.list_(pa.string()), nullable=False),
            pa.field("text", pa.string(), nullable=False),
            pa.field("start", pa.int64(), nullable=False),
            pa.field("end", pa.int64(), nullable=False),
            pa.field(TEXT_COLUMN, pa.string(), nullable=False),
            pa.field(VECTOR_COLUMN, pa.list_(pa.float32(), fingerprint.dimension), nullable=False),
            *attribute_fields(),
        ],
        metadata={FINGERPRINT_KEY: json.dumps(asdict(fingerprint)).encode()},
    )


def fingerprint_in(schema: pa.Schema, collection: str) -> EmbeddingFingerprint:
    """Return the fingerprint that ``schema_for`` stored.

    Raises:
        BadRequest: the table was not made by Manta.
    """
    stored = (schema.metadata or {}).get(FINGERPRINT_KEY)
    if stored is None:
        raise BadRequest(f"table {collection!r} was not made by `manta ingest`; use another name", param="collection")
    return EmbeddingFingerprint(**json.loads(stored))


def has_attributes(schema: pa.Schema) -> bool:
    """Whether the collection can hold attributes; those made by Manta 0.1.0 cannot until they are written to."""
    return set(ATTRIBUTE_COLUMNS) <= set(schema.names)


def has_key(schema: pa.Schema) -> bool:
    """Whether LanceDB knows what makes a chunk the same one; in collections made by Manta 0.1.0 it does not yet."""
    return _KEY_MARK in (schema.field(KEY_COLUMN).metadata or {})


def to_table(documents: Iterable[EmbeddedDocument], schema: pa.Schema) -> pa.Table:
    """Return one row per chunk.

    Raises:
        ValueError: a document has no chunk, or not one vector per chunk.
    """
    import pyarrow as pa

    rows = [row for document in documents for row in _rows(document)]
    return pa.Table.from_pylist(rows, schema=schema)


def _rows(document: EmbeddedDocument) -> list[dict[str, Any]]:
    if not document.chunks or len(document.chunks) != len(document.vectors):
        raise ValueError(
            f"{document.document_id}: {len(document.chunks)} chunks and {len(document.vectors)} vectors; "
            "a document needs at least one chunk, and one vector for each"
        )
    first = document.chunks[0]
    attributes = attribute_values(document.attributes, document_id=document.document_id, title=first.title)
    return [
        {
            "id": chunk.id,
            "document_id": chunk.document_id,
            "content_hash": document.content_hash,
            "ordinal": chunk.ordinal,
            "title": chunk.title,
            "headings": list(chunk.headings),
            "text": chunk.text,
            "start": chunk.start,
            "end": chunk.end,
            TEXT_COLUMN: chunk.passage,
            VECTOR_COLUMN: vector,
            **attributes,
        }
        for chunk, vector in zip(document.chunks, document.vectors, strict=True)
    ]


def to_chunk(row: Mapping[str, Any]) -> Chunk:
    """Return the chunk that a row stores."""
    return Chunk(**{name: row[name] for name in CHUNK_COLUMNS if name != "headings"}, headings=tuple(row["headings"]))


def is_one_of(column: str, values: Sequence[str]) -> str:
    """Return a SQL condition; quotes inside values are doubled, so a value never ends the literal."""
    quoted = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
    return f"{column} IN ({quoted})"
