"""Ray-side constructors of the stages: they validate arguments and fetch handles, nothing more."""

from __future__ import annotations

from typing import Any

from deployments.blobs import open_blobs
from deployments.embedder import Embedder
from deployments.handles import HandleEmbedders
from deployments.names import embedder_app
from deployments.retriever import Retriever
from deployments.rollout_metrics import RolloutMetrics
from deployments.rollouts import Rollouts
from deployments.state import BlobState, ClusterState
from deployments.stores.opening import open_store
from serve_app.config import EmbedderConfig, RetrieverConfig, VectorStoreConfig


class ServedEmbedder(Embedder):
    """Embedder whose configuration arrives as JSON."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(EmbedderConfig.model_validate(config))


class ServedRetriever(Retriever):
    """Retriever over Serve handles; refuses to start when a collection does not fit its embedder."""

    async def __init__(  # type: ignore[misc]
        self, bindings: list[list[str]], store: dict[str, Any], *, config: dict[str, Any]
    ) -> None:
        super().__init__(
            [(embedder, collection) for embedder, collection in bindings],
            open_store(VectorStoreConfig.model_validate(store)),
            embedders=HandleEmbedders(embedder_app),
            max_concurrent_searches=RetrieverConfig.model_validate(config).max_concurrent_searches,
        )
        await self.verify()


class ServedRollouts(Rollouts):
    """Rollouts that outlives its process."""

    def __init__(self, state_uri: str | None) -> None:
        cluster = ClusterState()
        state = cluster if state_uri is None else BlobState(open_blobs(state_uri))
        super().__init__(state=state, cluster_state=cluster, metrics=RolloutMetrics())
