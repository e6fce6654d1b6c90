"""The ``retrieval`` member of a request: what it asks for, within what the pipeline and the caller's key allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serve_app.config_pipelines import PipelineVersionConfig
from serve_app.errors import BadRequest, Forbidden
from serve_app.filters import Filter, parse_filter

MEMBER = "retrieval"
_SHOWN_CHARS = 64  # of a member's name that a client made up


class RetrievalRequest(BaseModel):
    """What one request may say about its search."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    top_k: int | None = Field(None, ge=1)
    filters: Any = None  # in OpenAI's form, which has a parser of its own
    collection: str | None = None


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """Where to search, and for how much."""

    collection: str
    top_k: int
    filters: Filter | None = None


def without_retrieval(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the body as engines know it."""
    return {name: value for name, value in body.items() if name != MEMBER}


def wished_collection(body: Mapping[str, Any]) -> str | None:
    """Return the collection that a request names, whether it may or not."""
    wish = body.get(MEMBER)
    named = wish.get("collection") if isinstance(wish, dict) else None
    return named if isinstance(named, str) else None


def search_plan(
    body: Mapping[str, Any], version: PipelineVersionConfig, may_search: Callable[[str], bool], *, own_store: str | None = None
) -> SearchPlan:
    """Return what the version and the request's own wishes make together.

    ``own_store`` is a vector store of the caller's tenant that it may choose.

    Raises:
        BadRequest: a wish that cannot be read, or that the version's ``overrides`` do not allow.
        Forbidden: a collection that the caller's key does not cover.
    """
    wish = _parse(body.get(MEMBER))
    return SearchPlan(
        collection=_collection(wish.collection, [*version.collections, *([own_store] if own_store else [])], may_search),
        top_k=_top_k(wish.top_k, version),
        filters=_filters(wish.filters, version),
    )


def _parse(value: object) -> RetrievalRequest:
    if value is None:
        return RetrievalRequest()
    try:
        return RetrievalRequest.model_validate(value)
    except ValidationError as err:
        problem = err.errors(include_url=False, include_context=False, include_input=False)[0]
    param = ".".join([MEMBER, *(str(part)[:_SHOWN_CHARS] for part in problem["loc"])])
    if problem["type"] == "extra_forbidden":
        raise BadRequest(f"{param} is unknown; {MEMBER} takes {', '.join(RetrievalRequest.model_fields)}", param=param)
    if not problem["loc"]:
        raise BadRequest(f"{param} must be an object", param=param)
    raise BadRequest(f"{param}: {problem['msg'].lower()}", param=param)


def _top_k(wished: int | None, version: PipelineVersionConfig) -> int:
    most = version.overrides.max_top_k or version.top_k
    if wished is not None and wished > most:
        raise BadRequest(f"{MEMBER}.top_k must be at most {most} here, got {wished}", param=f"{MEMBER}.top_k")
    return wished or version.top_k


def _filters(wished: object, version: PipelineVersionConfig) -> Filter | None:
    if wished is None:
        return None
    if not version.overrides.filters:
        raise BadRequest(f"{MEMBER}.filters is not open to requests of this pipeline", param=f"{MEMBER}.filters")
    return parse_filter(wished, param=f"{MEMBER}.filters")


def _collection(wished: str | None, choice: Sequence[str], may_search: Callable[[str], bool]) -> str:
    """Return the one wished for, or the first: whoever may use the pipeline may search that."""
    default = choice[0]
    if wished is None or wished == default:
        return default
    param = f"{MEMBER}.collection"
    usable = [name for name in choice if name == default or may_search(name)]
    if wished not in choice:
        raise BadRequest(f"{param} must be one of: {', '.join(usable)}", param=param)
    if wished not in usable:
        raise Forbidden(f"this API key may not search collection {wished!r}", param=param)
    return wished
