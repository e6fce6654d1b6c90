"""Retrieval: the passages for a question, within the time that the version and the request's deadline give it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from serve_app.config_pipelines import PipelineVersionConfig
from serve_app.contracts import SEARCH_BUDGET_S, Hit, SearchQuery
from serve_app.errors import DeadlineExceeded, EmptyCollection, PlatformError, Unavailable, UnknownCollection
from serve_app.gateway import Call, Gateway
from serve_app.rag.overrides import SearchPlan

logger = logging.getLogger("ray.serve")

RETRIEVAL = "retrieval"  # what is skipped, as clients are told
Skipped = Literal["late", "unavailable"]


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What was found, or why nothing was searched for to the end."""

    hits: Sequence[Hit]
    skipped: Skipped | None = None


async def retrieve(gateway: Gateway, call: Call, version: PipelineVersionConfig, *, query: str, plan: SearchPlan) -> Retrieved:
    """Return the passages; none where the version goes on without those that are late, or that nothing can search for.

    Raises:
        DeadlineExceeded, Unavailable: the same, where the version does not go on.
        EmptyCollection, UnknownCollection: there is nothing to search, and the version has no answer to that.
        PlatformError: what the Retriever raises.
    """
    budget_s = retrieval_budget_s(call, version)
    try:
        with call.record.stage("retrieve"):
            return Retrieved(await _passages(gateway, version, query=query, plan=plan, budget_s=budget_s))
    except (DeadlineExceeded, Unavailable) as err:
        if version.on_late_retrieval == "fail":
            raise
        return _without(call, err)


def retrieval_budget_s(call: Call, version: PipelineVersionConfig) -> float:
    """Return the seconds that the passages may take."""
    own_s = SEARCH_BUDGET_S if version.retrieve_timeout is None else version.retrieve_timeout
    return call.deadline.bound(own_s, share=version.retrieve_share)


def _without(call: Call, error: PlatformError) -> Retrieved:
    why: Skipped = "late" if isinstance(error, DeadlineExceeded) else "unavailable"
    call.record.skipped["retrieve"] = why
    logger.warning("request %s is answered without passages: %s", call.request_id, error.message)
    return Retrieved((), why)


async def _passages(
    gateway: Gateway, version: PipelineVersionConfig, *, query: str, plan: SearchPlan, budget_s: float
) -> list[Hit]:
    """Return what was found; nothing only where the version has an answer to that."""
    search = SearchQuery(plan.collection, version.embedder, query, plan.top_k, budget_s=budget_s, filters=plan.filters)
    try:
        # The Retriever keeps to its budget by itself, unless its process hangs.
        async with asyncio.timeout(budget_s) as limit:
            found = await gateway.stages.retriever.search(search)
    except (EmptyCollection, UnknownCollection):
        if version.no_passages == "error":
            raise
        return []
    except TimeoutError as err:
        if not limit.expired():
            raise
        raise DeadlineExceeded(f"no passages from {plan.collection!r} within {budget_s:.3g} s") from err
    return [hit for hit in found if version.min_score is None or hit.score >= version.min_score]
