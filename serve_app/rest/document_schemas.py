"""What the OpenAPI document says of files and vector stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from serve_app.rest.operation import Operation
from serve_app.rest.uploads import PURPOSES

Schema = Mapping[str, Any]
ERRORS = (400, 403, 404, 409, 413, 429, 503, 504)
TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer"}
ID: Schema = {"type": "string", "minLength": 1}
QUERY: Mapping[str, Schema] = MappingProxyType(
    {
        "limit": {"type": "integer", "minimum": 1, "maximum": 100},
        "order": {"enum": ["asc", "desc"]},
        "after": {**ID, "description": "List what comes after this identifier."},
        "before": {**ID, "description": "List what comes before this identifier."},
        "filter": {"enum": ["in_progress", "completed", "failed", "cancelled"]},
        "purpose": TEXT,
    }
)
PAGE = ("limit", "order", "after", "before")


def operation(
    summary: str,
    tag: str,
    *,
    answer: Mapping[str, Schema],
    body: Mapping[str, Schema] = MappingProxyType({}),
    query: Sequence[str] = (),
) -> Operation:  # fmt: skip
    """Return what is said of a route; answer and body by content type."""
    parameters = {name: QUERY[name] for name in query}
    return Operation(summary, tag, bodies=body, answers=answer, query=parameters, errors=ERRORS)


def shape(required: Sequence[str] = (), **fields: Schema) -> Schema:
    """Return the schema of an object."""
    return {"type": "object", "properties": fields, **({"required": list(required)} if required else {})}


def listed(item: Schema) -> Schema:
    """Return the schema of a page of a list."""
    return shape(
        ["object", "data", "has_more"], object=TEXT, data={"type": "array", "items": item}, has_more={"type": "boolean"}
    )


METADATA: Schema = {
    "type": ["object", "null"],
    "maxProperties": 16,
    "additionalProperties": {"type": "string", "maxLength": 512},
}
ATTRIBUTES: Schema = {
    "type": ["object", "null"],
    "maxProperties": 16,
    "additionalProperties": {"type": ["string", "number", "boolean"]},
}
CHUNKING: Schema = {
    "type": "object",
    "description": "{type: auto} or, in tokens of the embedder, {type: static, static: {max_chunk_size_tokens, "
    "chunk_overlap_tokens}}.",
}
EXPIRES: Schema = shape(
    ["anchor", "days"], anchor={"const": "last_active_at"}, days={"type": "integer", "minimum": 1, "maximum": 365}
)
FILE_IDS: Schema = {"type": "array", "items": ID, "maxItems": 2000}

FILE = shape(["id", "object", "bytes", "created_at", "filename", "purpose"], id=ID, object=TEXT, bytes=COUNT, filename=TEXT)
UPLOAD = shape(["file", "purpose"], file={"type": "string", "format": "binary"}, purpose={"enum": list(PURPOSES)})
DELETED = shape(["id", "object", "deleted"], id=ID, object=TEXT, deleted={"type": "boolean"})
STORE = shape(["id", "object", "status", "file_counts"], id=ID, object=TEXT, status=TEXT, file_counts={"type": "object"})
STORE_FILE = shape(["id", "object", "status", "vector_store_id"], id=ID, object=TEXT, status=TEXT, vector_store_id=ID)
BATCH = shape(["id", "object", "status", "file_counts"], id=ID, object=TEXT, status=TEXT, file_counts={"type": "object"})
RESULTS = shape(["object", "data"], object=TEXT, data={"type": "array", "items": {"type": "object"}})

NEW_STORE = shape(
    name={"type": "string", "maxLength": 256},
    description={"type": "string", "maxLength": 512},
    metadata=METADATA,
    expires_after=EXPIRES,
    file_ids=FILE_IDS,
    chunking_strategy=CHUNKING,
)
STORE_CHANGES = shape(name={"type": ["string", "null"], "maxLength": 256}, metadata=METADATA, expires_after=EXPIRES)
NEW_STORE_FILE = shape(["file_id"], file_id=ID, attributes=ATTRIBUTES, chunking_strategy=CHUNKING)
NEW_ATTRIBUTES = shape(["attributes"], attributes=ATTRIBUTES)
NEW_BATCH = shape(
    file_ids=FILE_IDS,
    files={"type": "array", "items": NEW_STORE_FILE, "maxItems": 2000},
    attributes=ATTRIBUTES,
    chunking_strategy=CHUNKING,
)
SEARCH = shape(
    ["query"],
    query={"anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "items": ID, "minItems": 1, "maxItems": 8}]},
    max_num_results={"type": "integer", "minimum": 1, "maximum": 50},
    filters={
        "type": "object",
        "description": "{type: eq|ne|gt|gte|lt|lte|in|nin, key, value} or {type: and|or, filters: [...]}",
    },
    ranking_options=shape(ranker=TEXT, score_threshold={"type": "number", "minimum": 0, "maximum": 1}),
)
