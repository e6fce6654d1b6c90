"""Ray-side constructors of the stages: they validate arguments and fetch handles, nothing more."""

from __future__ import annotations

import asyncio
from typing import Any

from deployments.blobs import open_blobs
from deployments.embedder import Embedder
from deployments.handles import HandleEmbedders
from deployments.line_files import open_audit
from deployments.names import embedder_app
from deployments.ray_export import RayExport, keep_exporting
from deployments.retriever import Retriever
from deployments.rollout_audit import AuditedRollouts
from deployments.rollout_metrics import RolloutMetrics
from deployments.state import BlobState, ClusterState
from deployments.stores.opening import open_store
from deployments.tries import INNER_TRY_S
from serve_app.config import EmbedderConfig, RetrieverConfig, VectorStoreConfig


class ServedEmbedder(Embedder):
    """Embedder whose configuration arrives as JSON."""

    async def __init__(self, config: dict[str, Any]) -> None:  # type: ignore[misc]
        super().__init__(EmbedderConfig.model_validate(config))
        self._exporting = asyncio.create_task(keep_exporting(RayExport(self.registry)))

    async def __del__(self) -> None:
        """Send the last spans; Serve has waited for open requests before it calls this."""
        if (tracing := getattr(self, "tracing", None)) is not None:
            await tracing.close()


class ServedRetriever(Retriever):
    """Retriever over Serve handles; refuses to start when a collection does not fit its embedder."""

    async def __init__(  # type: ignore[misc]
        self, bindings: list[list[str]], store: dict[str, Any], *, config: dict[str, Any]
    ) -> None:
        super().__init__(
            [(embedder, collection) for embedder, collection in bindings],
            open_store(VectorStoreConfig.model_validate(store)),
            embedders=HandleEmbedders(embedder_app, try_s=INNER_TRY_S),
            max_concurrent_searches=RetrieverConfig.model_validate(config).max_concurrent_searches,
        )
        await self.verify()
        self._exporting = asyncio.create_task(keep_exporting(RayExport(self.registry)))

    async def __del__(self) -> None:
        """Send the last spans; Serve has waited for open requests before it calls this."""
        if (tracing := getattr(self, "tracing", None)) is not None:
            await tracing.close()


class ServedRollouts(AuditedRollouts):
    """Rollouts that outlives its process."""

    def __init__(self, state_uri: str | None) -> None:
        self._lines = open_audit()
        cluster = ClusterState()
        state = cluster if state_uri is None else BlobState(open_blobs(state_uri))
        super().__init__(state=state, cluster_state=cluster, metrics=RolloutMetrics())
