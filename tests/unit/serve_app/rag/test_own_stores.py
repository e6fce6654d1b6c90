"""A pipeline over a vector store of the caller's tenant."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from serve_app.documents.contract import Documents
from serve_app.errors import BadRequest, UnknownCollection
from serve_app.rollout.document import RoutedVectorStores
from tests.unit.serve_app.fakes import FakeResponse, FakeRetriever, document, entry, gateway, snapshot
from tests.unit.serve_app.rag.asking import CHAT, ask, pipeline


class Owned:
    """The one store that exists."""

    async def owns(self, tenant: str, store_id: str) -> bool:
        return (tenant, store_id) == ("anonymous", "vs_1")


async def searched(store_id: str, *, embedder: str = "minilm", **overrides: Any) -> str:
    """Return the collection that a request naming the store has searched."""
    retriever = FakeRetriever()
    made = gateway(FakeResponse((b"{}",)), retriever=retriever)
    made.stages = replace(made.stages, documents=cast("Documents", Owned()))
    stores = RoutedVectorStores(embedder=embedder, max_file_bytes=1)
    made.update(snapshot(entry("r1"), routing=document(pipelines=(pipeline(overrides=overrides),), vector_stores=stores)))
    await ask(made, CHAT, retrieval={"collection": store_id})
    return retriever.queries[0].collection


async def test_a_store_of_the_callers_tenant_is_searched() -> None:
    assert await searched("vs_1", vector_stores=True) == "vs_1"


async def test_another_tenants_store_is_unknown() -> None:
    with pytest.raises(UnknownCollection):
        await searched("vs_2", vector_stores=True)


@pytest.mark.parametrize(
    ("store_id", "more"),
    [("books2", {"vector_stores": True}), ("vs_1", {}), ("vs_1", {"vector_stores": True, "embedder": "other"})],
    ids=["no-store", "not-open", "another-embedder"],
)
async def test_any_other_store_is_not_among_the_choices(store_id: str, more: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="must be one of: books"):
        await searched(store_id, **more)
