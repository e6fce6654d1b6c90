"""RoutingDocument: all that Routers need to know of the platform, carried by the Rollouts deployment's user_config.

It lives there and not in the Router's arguments because a change of arguments restarts replicas.
"""

from __future__ import annotations

from functools import cached_property

from pydantic import Field

from serve_app.config import (
    AuthConfig,
    Config,
    LimitsConfig,
    PipelineConfig,
    PlatformConfig,
    ReplicaChoice,
    VariantConfig,
    VectorStoresConfig,
)


class RoutedVariant(Config):
    """A variant as Routers see it."""

    name: str = Field(description="Name of the variant.")
    weight: int = Field(description="Share of conversations in percent.")
    max_leases: int = Field(description="Requests one Router may have open on one replica.")
    engine: str = Field(description="Kind of engine.")
    may_sleep: bool = Field(False, description="Whether it may have no replica until a request wakes it.")
    max_model_len: int | None = Field(None, description="Longest prompt plus answer, in tokens, where it is configured.")


class RoutedModel(Config):
    """A model and the variants that share its traffic."""

    name: str = Field(description="Public name.")
    variants: tuple[RoutedVariant, ...] = Field(description="Variants, in the declared order.")

    @cached_property
    def weights(self) -> tuple[tuple[str, int], ...]:
        """(variant, weight) in the declared order."""
        return tuple((v.name, v.weight) for v in self.variants)


class RoutedVectorStores(Config):
    """Callers' vector stores as Routers see them."""

    embedder: str = Field(description="Embedder of every vector store.")
    max_file_bytes: int = Field(description="Largest upload, in bytes.")


class RoutingDocument(Config):
    """What is served, to whom, and how traffic is split."""

    models: tuple[RoutedModel, ...] = Field((), description="Models.")
    pipelines: tuple[PipelineConfig, ...] = Field((), description="RAG chains, prompts included.")
    embedders: tuple[str, ...] = Field((), description="Names of embedders.")
    vector_stores: RoutedVectorStores | None = Field(None, description="Uploads and vector stores; absent: not offered.")
    auth: AuthConfig = Field(default=AuthConfig(), description="Accepted keys.")
    limits: LimitsConfig = Field(default=LimitsConfig(), description="Request bounds.")
    replica_choice: ReplicaChoice = Field("prefix", description="How Routers choose a replica.")
    balance_factor: float = Field(1.25, description="Times the mean load up to which a replica takes a prefix's requests.")
    keep_alive_s: float = Field(10.0, description="Seconds between the comments in a stream that has not begun; 0: none.")
    cors_origins: tuple[str, ...] = Field((), description="Origins whose pages may call from a browser.")


def routing_document(config: PlatformConfig) -> RoutingDocument:
    """Return what Routers need to know of a platform."""
    return RoutingDocument(
        models=tuple(RoutedModel(name=m.name, variants=tuple(map(_routed, m.variants))) for m in config.models),
        pipelines=config.pipelines,
        embedders=tuple(e.name for e in config.embedders),
        vector_stores=_routed_stores(config.vector_stores),
        auth=config.auth,
        limits=config.limits,
        replica_choice=config.router.replica_choice,
        balance_factor=config.router.balance_factor,
        keep_alive_s=config.router.keep_alive_s,
        cors_origins=config.router.cors_origins,
    )


def _routed_stores(stores: VectorStoresConfig | None) -> RoutedVectorStores | None:
    return None if stores is None else RoutedVectorStores(embedder=stores.embedder, max_file_bytes=stores.max_file_bytes)


def _routed(variant: VariantConfig) -> RoutedVariant:
    return RoutedVariant(
        name=variant.name,
        weight=variant.weight,
        max_leases=variant.max_leases,
        engine=variant.engine.kind,
        may_sleep=variant.autoscaling is not None and variant.autoscaling.min_replicas == 0,
        max_model_len=variant.engine.max_model_len,
    )
