"""Records as OpenAI's JSON objects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from serve_app.contracts import Chunk, Hit
from serve_app.documents.records import NS, BatchRecord, Chunking, FileRecord, FileStatus, StoreFileRecord, StoreRecord
from serve_app.filters import Attributes

Json = dict[str, Any]


def file_object(record: FileRecord) -> Json:
    """Return an upload as `client.files` shows it."""
    return {
        "id": record.id,
        "object": "file",
        "bytes": record.size_bytes,
        "created_at": _seconds(record.created_ns),
        "expires_at": None if record.expires_ns is None else _seconds(record.expires_ns),
        "filename": record.filename,
        "purpose": record.purpose,
        "status": "processed",
        "status_details": None,
    }


def store_object(record: StoreRecord, files: Sequence[StoreFileRecord], *, now_ns: int) -> Json:
    """Return a vector store as `client.vector_stores` shows it."""
    counts = file_counts(files)
    status = "expired" if record.is_expired(now_ns) else "in_progress" if counts["in_progress"] else "completed"
    expires_after = record.expires_after and {"anchor": "last_active_at", "days": record.expires_after.days}
    return {
        "id": record.id,
        "object": "vector_store",
        "created_at": _seconds(record.created_ns),
        "name": record.name,
        "description": record.description,
        "usage_bytes": sum(file.usage_bytes for file in files),
        "file_counts": counts,
        "status": status,
        "expires_after": expires_after,
        "expires_at": None if record.expires_ns is None else _seconds(record.expires_ns),
        "last_active_at": _seconds(record.last_active_ns),
        "metadata": dict(record.metadata),
    }


def store_file_object(record: StoreFileRecord, auto: Chunking) -> Json:
    """Return a file of a vector store; ``auto`` is how files are cut that ask for nothing else."""
    chunking = record.chunking or auto
    error = None if record.error_code is None else {"code": record.error_code, "message": record.error_message}
    return {
        "id": record.file_id,
        "object": "vector_store.file",
        "created_at": _seconds(record.created_ns),
        "vector_store_id": record.store_id,
        "status": record.status.value,
        "last_error": error,
        "usage_bytes": record.usage_bytes,
        "attributes": dict(record.attributes),
        "chunking_strategy": {
            "type": "static",
            "static": {"max_chunk_size_tokens": chunking.max_tokens, "chunk_overlap_tokens": chunking.overlap_tokens},
        },
    }


def batch_object(record: BatchRecord, files: Iterable[StoreFileRecord]) -> Json:
    """Return a batch; ``files`` are those of its vector store."""
    counts = file_counts([file for file in files if file.batch_id == record.id])
    return {
        "id": record.id,
        "object": "vector_store.files_batch",
        "created_at": _seconds(record.created_ns),
        "vector_store_id": record.store_id,
        "status": _batch_status(record, counts),
        "file_counts": counts,
    }


def _batch_status(record: BatchRecord, counts: dict[str, int]) -> str:
    if record.cancelled:
        return "cancelled"
    if counts["in_progress"]:
        return "in_progress"
    return "failed" if counts["total"] and counts["failed"] == counts["total"] else "completed"


def file_counts(files: Sequence[StoreFileRecord]) -> dict[str, int]:
    """Return how many files stand where."""
    counts = {status.value: sum(file.status is status for file in files) for status in FileStatus}
    return {**counts, "total": len(files)}


def deleted(object_id: str, kind: str) -> Json:
    """Return the answer to a deletion."""
    return {"id": object_id, "object": kind, "deleted": True}


def content_page(chunks: Iterable[Chunk]) -> Json:
    """Return the text of a file as it was cut."""
    data = [{"type": "text", "text": chunk.text} for chunk in chunks]
    return {"object": "vector_store.file_content.page", "data": data, "has_more": False, "next_page": None}


def search_page(queries: Sequence[str], results: Iterable[tuple[Hit, str, Attributes]]) -> Json:
    """Return search results: (hit, file name, attributes) of each."""
    data = [
        {
            "file_id": hit.chunk.document_id,
            "filename": filename,
            "score": hit.score,
            "attributes": dict(attributes),
            "content": [{"type": "text", "text": hit.chunk.text}],
        }
        for hit, filename, attributes in results
    ]
    return {
        "object": "vector_store.search_results.page",
        "search_query": list(queries),
        "data": data,
        "has_more": False,
        "next_page": None,
    }


def _seconds(time_ns: int) -> int:
    return time_ns // NS
