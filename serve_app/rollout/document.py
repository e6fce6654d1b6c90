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
)


class RoutedVariant(Config):
    """A variant as Routers see it."""

    name: str = Field(description="Name of the variant.")
    weight: int = Field(description="Share of conversations in percent.")
    max_leases: int = Field(description="Requests one Router may have open on one replica.")
    engine: str = Field(description="Kind of engine.")
    may_sleep: bool = Field(False, description="Whether it may have no replica until a request wakes it.")


class RoutedModel(Config):
    """A model and the variants that share its traffic."""

    name: str = Field(description="Public name.")
    variants: tuple[RoutedVariant, ...] = Field(description="Variants, in the declared order.")

    @cached_property
    def weights(self) -> tuple[tuple[str, int], ...]:
        """(variant, weight) in the declared order."""
        return tuple((v.name, v.weight) for v in self.variants)


class RoutingDocument(Config):
    """What is served, to whom, and how traffic is split."""

    models: tuple[RoutedModel, ...] = Field((), description="Models.")
    pipelines: tuple[PipelineConfig, ...] = Field((), description="RAG chains, prompts included.")
    embedders: tuple[str, ...] = Field((), description="Names of embedders.")
    auth: AuthConfig = Field(default=AuthConfig(), description="Accepted keys.")
    limits: LimitsConfig = Field(default=LimitsConfig(), description="Request bounds.")
    replica_choice: ReplicaChoice = Field("prefix", description="How Routers choose a replica.")
    balance_factor: float = Field(1.25, description="Times the mean load up to which a replica takes a prefix's requests.")


def routing_document(config: PlatformConfig) -> RoutingDocument:
    """Return what Routers need to know of a platform."""
    return RoutingDocument(
        models=tuple(RoutedModel(name=m.name, variants=tuple(map(_routed, m.variants))) for m in config.models),
        pipelines=config.pipelines,
        embedders=tuple(e.name for e in config.embedders),
        auth=config.auth,
        limits=config.limits,
        replica_choice=config.router.replica_choice,
        balance_factor=config.router.balance_factor,
    )


def _routed(variant: VariantConfig) -> RoutedVariant:
    return RoutedVariant(
        name=variant.name,
        weight=variant.weight,
        max_leases=variant.max_leases,
        engine=variant.engine.kind,
        may_sleep=variant.autoscaling is not None and variant.autoscaling.min_replicas == 0,
    )
