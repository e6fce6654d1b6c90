"""The two rankings of a search in a LanceDB table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deployments.stores.lance_rows import CHUNK_COLUMNS, TEXT_COLUMN
from serve_app.contracts import Vector
from serve_app.filters import Filter

if TYPE_CHECKING:
    from lancedb.table import AsyncTable


@dataclass(frozen=True, slots=True)
class Question:
    """What a search asks for."""

    vector: Vector
    text: str
    depth: int  # how much of each ranking is read
    filters: Filter | None


async def nearest(table: AsyncTable, question: Question, where: str | None) -> list[dict[str, Any]]:
    """Return rows by cosine distance."""
    query = table.query().nearest_to(list(question.vector)).distance_type("cosine").refine_factor(10)
    query = query if where is None else query.where(where)  # before the ranking, as is LanceDB's default
    return await query.select([*CHUNK_COLUMNS, "_distance"]).limit(question.depth).to_list()


async def matching(table: AsyncTable, question: Question, where: str | None) -> list[dict[str, Any]]:
    """Return rows by BM25."""
    # A match query takes the text as words: quotes, colons and brackets have no meaning, unlike in a query string.
    from lancedb.query import MatchQuery

    query = table.query().nearest_to_text(MatchQuery(question.text, TEXT_COLUMN))  # type: ignore[call-arg]
    query = query if where is None else query.where(where)
    return await query.select([*CHUNK_COLUMNS, "_score"]).limit(question.depth).to_list()
