"""Searching: questions to a vector store, through the retrieve stage."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from serve_app.contracts import Hit, Retriever, SearchQuery
from serve_app.documents.requests import Search
from serve_app.errors import EmptyCollection

BUDGET_S = 30.0
# Hits carry the sum of 1 / (60 + rank) over two rankings (reciprocal rank fusion); first in both is the most there is.
BEST_SCORE = 2 / 61


async def search_store(retriever: Retriever, store_id: str, *, embedder: str, search: Search) -> list[Hit]:
    """Return the passages that any of the queries finds, best first, with scores from 0 to 1."""
    queries = (
        SearchQuery(store_id, embedder, text, search.max_results, budget_s=BUDGET_S, filters=search.filters)
        for text in search.queries
    )
    found = await asyncio.gather(*(_hits(retriever, query) for query in queries))
    best: dict[str, Hit] = {}
    for hit in _scaled([hit for hits in found for hit in hits]):
        if hit.chunk.id not in best or best[hit.chunk.id].score < hit.score:
            best[hit.chunk.id] = hit
    ranked = sorted(best.values(), key=lambda hit: hit.score, reverse=True)
    return [hit for hit in ranked if hit.score >= search.score_threshold][: search.max_results]


def _scaled(hits: Sequence[Hit]) -> list[Hit]:
    return [replace(hit, score=min(1.0, hit.score / BEST_SCORE)) for hit in hits]


async def _hits(retriever: Retriever, query: SearchQuery) -> list[Hit]:
    try:
        return await retriever.search(query)
    except EmptyCollection:  # nothing was added yet, or nothing is left
        return []
