"""Requests about uploads and vector stores: OpenAI's JSON, checked and named."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypedDict, TypeVar

from serve_app.documents.records import BatchMember, Chunking, ExpiresAfter
from serve_app.errors import BadRequest
from serve_app.filters import MAX_KEY_CHARS, MAX_VALUE_CHARS, Attributes, Filter, check_scalar, check_text, parse_filter

Body: TypeAlias = Mapping[str, Any]
Parsed = TypeVar("Parsed")

MAX_PAIRS = 16  # of attributes and of metadata
MAX_NAME_CHARS = 256
MAX_DESCRIPTION_CHARS = 512
MAX_BATCH_FILES = 2000
MAX_QUERIES = 8
MAX_QUERY_CHARS = 4096
MAX_RESULTS = 50
DEFAULT_RESULTS = 10
MAX_DAYS = 365
# All of them mean the one ranking there is; a re-ranker is not chosen per request.
RANKERS = frozenset({"none", "auto", "default-2024-11-15", "default_2024_08_21"})


@dataclass(frozen=True, slots=True)
class NewStore:
    """A vector store to make, with its first files."""

    name: str = ""
    description: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    expires_after: ExpiresAfter | None = None
    members: tuple[BatchMember, ...] = ()


class StoreChanges(TypedDict, total=False):
    """What of a vector store becomes another; what is absent stays."""

    name: str
    metadata: Mapping[str, str]
    expires_after: ExpiresAfter | None


@dataclass(frozen=True, slots=True)
class Search:
    """A search in a vector store."""

    queries: tuple[str, ...]
    max_results: int = DEFAULT_RESULTS
    filters: Filter | None = None
    score_threshold: float = 0.0


def parse_new_store(body: Body) -> NewStore:
    """Return the vector store that a request asks for. Raises BadRequest."""
    _refuse_unknown(body, {"name", "description", "metadata", "expires_after", "file_ids", "chunking_strategy"})
    chunking = parse_chunking(body.get("chunking_strategy"), param="chunking_strategy")
    file_ids = _ids(body["file_ids"], "file_ids") if body.get("file_ids") else []
    return NewStore(
        name=_optional(body, "name", _name) or "",
        description=_optional(body, "description", _description),
        metadata=_optional(body, "metadata", _metadata) or {},
        expires_after=_optional(body, "expires_after", _expires_after),
        members=tuple(BatchMember(file_id, chunking=chunking) for file_id in file_ids),
    )


def parse_store_changes(body: Body) -> StoreChanges:
    """Return what a request changes of a vector store; null empties. Raises BadRequest."""
    _refuse_unknown(body, {"name", "metadata", "expires_after"})
    changes: StoreChanges = {}
    if "name" in body:
        changes["name"] = _optional(body, "name", _name) or ""
    if "metadata" in body:
        changes["metadata"] = _optional(body, "metadata", _metadata) or {}
    if "expires_after" in body:
        changes["expires_after"] = _optional(body, "expires_after", _expires_after)
    return changes


def parse_new_store_file(body: Body) -> BatchMember:
    """Return the file that a request adds to a vector store. Raises BadRequest."""
    return _member(body, "")


def parse_new_batch(body: Body) -> tuple[BatchMember, ...]:
    """Return the files that a request adds to a vector store, each once. Raises BadRequest."""
    _refuse_unknown(body, {"file_ids", "files", "attributes", "chunking_strategy"})
    if (body.get("file_ids") is None) == (body.get("files") is None):
        raise BadRequest("give either file_ids or files", param="file_ids")
    if body.get("files") is not None:
        members = [_member(item, f"files[{i}].") for i, item in enumerate(_batch_list(body["files"], "files"))]
    else:
        attributes = parse_attributes(body.get("attributes"), param="attributes")
        chunking = parse_chunking(body.get("chunking_strategy"), param="chunking_strategy")
        members = [BatchMember(file_id, attributes, chunking) for file_id in _ids(body["file_ids"], "file_ids")]
    return tuple({member.file_id: member for member in members}.values())


def parse_new_attributes(body: Body) -> Attributes:
    """Return the attributes that a file of a vector store gets. Raises BadRequest."""
    _refuse_unknown(body, {"attributes"})
    if "attributes" not in body:
        raise BadRequest("attributes is missing", param="attributes")
    return parse_attributes(body["attributes"], param="attributes")


def parse_search(body: Body) -> Search:
    """Return the search that a request asks for. Raises BadRequest."""
    _refuse_unknown(body, {"query", "max_num_results", "filters", "ranking_options", "rewrite_query"})
    if body.get("rewrite_query"):
        raise BadRequest("rewrite_query is not supported; ask as you want to find, and leave it out", param="rewrite_query")
    query = body.get("query")
    queries = [query] if isinstance(query, str) else query
    if not isinstance(queries, list) or not 1 <= len(queries) <= MAX_QUERIES:
        raise BadRequest(f"query must be a string or a list of 1 to {MAX_QUERIES} strings", param="query")
    filters = body.get("filters")
    return Search(
        queries=tuple(_query(item) for item in queries),
        max_results=_number(body.get("max_num_results"), "max_num_results", most=MAX_RESULTS, default=DEFAULT_RESULTS),
        filters=None if filters is None else parse_filter(filters, param="filters"),
        score_threshold=_threshold(body.get("ranking_options")),
    )


def parse_attributes(value: object, *, param: str) -> Attributes:
    """Return attributes: at most 16 strings, numbers and bools; null is none. Raises BadRequest."""
    return {key: check_scalar(item, param=f"{param}.{key}") for key, item in _pairs(value, param).items()}


def parse_chunking(value: object, *, param: str) -> Chunking | None:
    """Return how to cut, or None for `auto`. Raises BadRequest."""
    if value is None:
        return None
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind == "auto":
        return None
    if kind != "static" or not isinstance(value, Mapping) or not isinstance(static := value.get("static"), Mapping):
        what = "{type: auto} or {type: static, static: {max_chunk_size_tokens, chunk_overlap_tokens}}"
        raise BadRequest(f"{param} must be {what}", param=param)
    most = _number(static.get("max_chunk_size_tokens"), f"{param}.static.max_chunk_size_tokens", most=4096)
    name = f"{param}.static.chunk_overlap_tokens"
    overlap = _number(static.get("chunk_overlap_tokens"), name, least=0, most=most // 2)
    return Chunking(most, overlap)


def _member(body: object, prefix: str) -> BatchMember:
    if not isinstance(body, Mapping):
        raise BadRequest(f"{prefix.rstrip('.')} must be an object with file_id", param=prefix.rstrip("."))
    _refuse_unknown(body, {"file_id", "attributes", "chunking_strategy"}, prefix)
    attributes = parse_attributes(body.get("attributes"), param=f"{prefix}attributes")
    chunking = parse_chunking(body.get("chunking_strategy"), param=f"{prefix}chunking_strategy")
    return BatchMember(_id(body.get("file_id"), f"{prefix}file_id"), attributes, chunking)


def _refuse_unknown(body: Body, known: set[str], prefix: str = "") -> None:
    if others := sorted(body.keys() - known):
        param = prefix + others[0][:MAX_KEY_CHARS]
        raise BadRequest(f"{param} is not known here; known: {', '.join(sorted(known))}", param=param)


def _optional(body: Body, name: str, parse: Callable[[object], Parsed]) -> Parsed | None:
    return None if body.get(name) is None else parse(body[name])


def _name(value: object) -> str:
    return _text(value, "name", MAX_NAME_CHARS)


def _description(value: object) -> str:
    return _text(value, "description", MAX_DESCRIPTION_CHARS)


def _text(value: object, param: str, most: int) -> str:
    if not isinstance(value, str):
        raise BadRequest(f"{param} must be a string", param=param)
    return check_text(value, param=param, most=most)


def _query(value: object) -> str:
    text = _text(value, "query", MAX_QUERY_CHARS)
    if not text.strip():
        raise BadRequest("query must not be empty", param="query")
    return text


def _metadata(value: object) -> Mapping[str, str]:
    return {key: _text(item, f"metadata.{key}", MAX_VALUE_CHARS) for key, item in _pairs(value, "metadata").items()}


def _pairs(value: object, param: str) -> Mapping[str, object]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or len(value) > MAX_PAIRS:
        raise BadRequest(f"{param} must be an object of at most {MAX_PAIRS} pairs", param=param)
    for key in value:
        check_text(key, param=f"{param} key {key[:MAX_KEY_CHARS]!r}", most=MAX_KEY_CHARS)
    return value


def _expires_after(value: object) -> ExpiresAfter:
    if not isinstance(value, Mapping) or value.get("anchor") != "last_active_at" or value.keys() - {"anchor", "days"}:
        raise BadRequest("expires_after must be {anchor: last_active_at, days}", param="expires_after")
    return ExpiresAfter(_number(value.get("days"), "expires_after.days", most=MAX_DAYS))


def _threshold(options: object) -> float:
    if options is None:
        return 0.0
    if not isinstance(options, Mapping):
        raise BadRequest("ranking_options must be an object", param="ranking_options")
    _refuse_unknown(options, {"ranker", "score_threshold"}, "ranking_options.")
    if (ranker := options.get("ranker")) is not None and ranker not in RANKERS:
        raise BadRequest(f"ranking_options.ranker must be one of {', '.join(sorted(RANKERS))}", param="ranking_options.ranker")
    threshold = 0.0 if options.get("score_threshold") is None else options["score_threshold"]
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise BadRequest("ranking_options.score_threshold must be between 0 and 1", param="ranking_options.score_threshold")
    return float(threshold)


def _ids(value: object, param: str) -> list[str]:
    return [_id(item, f"{param}[{i}]") for i, item in enumerate(_batch_list(value, param))]


def _id(value: object, param: str) -> str:
    if not isinstance(value, str) or not value:
        raise BadRequest(f"{param} must be the id of an uploaded file", param=param)
    return value


def _batch_list(value: object, param: str) -> Sequence[object]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_BATCH_FILES:
        raise BadRequest(f"{param} must be a list of 1 to {MAX_BATCH_FILES} files", param=param)
    return value


def _number(value: object, param: str, *, most: int, least: int = 1, default: int | None = None) -> int:
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BadRequest(f"{param} must be a whole number between {least} and {most}", param=param)
    return value
