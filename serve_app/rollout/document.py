"""RoutingDocument: all that Routers need to know of the platform, carried by the Rollouts deployment's user_config.

It lives there and not in the Router's arguments because a change of arguments restarts replicas.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Self

from pydantic import Field, model_validator

from serve_app.config import (
    AdapterConfig,
    AuthConfig,
    Config,
    LimitsConfig,
    ModelConfig,
    OutlierEjectionConfig,
    PipelineConfig,
    PlatformConfig,
    ReplicaChoice,
    RetryBudgetConfig,
    VariantConfig,
    VectorStoresConfig,
)
from serve_app.config_fields import public_name
from serve_app.config_logs import LogsConfig
from serve_app.config_rollouts import RolloutConfig, ShadowConfig, rollout_problems, shadow_problems
from serve_app.config_rules import refuse, share_problems, variant_units
from serve_app.config_tracing import TracingConfig
from serve_app.contracts import AdapterTag
from serve_app.rollout.table import Share, Split

# Changing these in place does not restart replicas, so they are no part of what a replica is made of.
NOT_IN_ARGS = frozenset({"weight", "replicas", "autoscaling", "max_replicas_per_node", "max_leases", "price_per_hour"})


class RoutedVariant(Config):
    """A variant as Routers see it."""

    name: str = Field(description="Name of the variant.")
    weight: int = Field(ge=0, le=100, description="Declared share of conversations in percent.")
    revision: str = Field("", description="Digest of what its replicas are made of: another one is another variant.")
    max_leases: int = Field(description="Requests one Router may have open on one replica.")
    engine: str = Field(description="Kind of engine.")
    may_sleep: bool = Field(False, description="Whether it may have no replica until a request wakes it.")
    is_budgeted: bool = Field(
        False, description="Whether its replicas share accelerators with others: Routers leave it to the policy to wake it."
    )
    max_model_len: int | None = Field(None, description="Longest prompt plus answer, in tokens, where it is configured.")


class RoutedAdapterVersion(Config):
    """A version of a LoRA adapter as Routers see it."""

    name: str = Field(description="Name of the version.")
    source: str = Field(description="Where its weights are.")
    weight: int = Field(ge=0, le=100, description="Declared share of the adapter's conversations in percent.")
    revision: str = Field(description="Digest of what it is made of: another one is another version.")


class RoutedAdapter(Config):
    """A LoRA adapter of a model, called as a model of its own."""

    name: str = Field(description="Public name, MODEL:ADAPTER.")
    versions: tuple[RoutedAdapterVersion, ...] = Field(min_length=1, description="Versions, in the declared order.")
    rollout: RolloutConfig | None = Field(None, description="How the canary's share grows.")

    @cached_property
    def model(self) -> str:
        """The model whose replicas load it."""
        return self.name.partition(":")[0]

    @cached_property
    def tags(self) -> Mapping[str, AdapterTag]:
        """What a replica is told of each version, by its name."""
        adapter = self.name.partition(":")[2]
        return {v.name: AdapterTag(f"{adapter}/{v.name}", v.source, v.revision) for v in self.versions}

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        refuse(share_problems("versions", self.versions))
        refuse(rollout_problems("versions", self.versions, self.rollout))
        return self


class RoutedModel(Config):
    """A model and the variants that share its traffic."""

    name: str = Field(description="Public name.")
    variants: tuple[RoutedVariant, ...] = Field(min_length=1, description="Variants, in the declared order.")
    rollout: RolloutConfig | None = Field(None, description="How the canary's share grows.")
    shadow: ShadowConfig | None = Field(None, description="Copies of requests.")
    adapters: tuple[RoutedAdapter, ...] = Field((), description="LoRA adapters that its replicas load when asked.")
    fallback: bool = Field(True, description="Whether another variant answers what one has failed before its first byte.")
    first_byte_timeout_s: float | None = Field(None, description="Seconds without a stream's first byte that are a failure.")
    hedge_after_s: float | None = Field(None, description="Seconds without a first byte until a second replica is asked too.")
    continue_streams: bool = Field(False, description="Whether a stream whose replica fails goes on at another one.")

    @cached_property
    def weights(self) -> tuple[tuple[str, int], ...]:
        """(variant, declared weight) in the declared order."""
        return tuple((v.name, v.weight) for v in self.variants)

    @cached_property
    def budgeted(self) -> frozenset[str]:
        """Variants that only the policy may wake."""
        return frozenset(v.name for v in self.variants if v.is_budgeted)

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        refuse(share_problems("variants", self.variants))
        refuse(rollout_problems("variants", self.variants, self.rollout))
        refuse(shadow_problems(self.variants, self.shadow))
        return self


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
    stream_idle_timeout_s: float = Field(120.0, description="Seconds without an event that end a begun stream; 0: never.")
    outlier_ejection: OutlierEjectionConfig = Field(
        default=OutlierEjectionConfig(), description="When Routers leave replicas alone."
    )
    retry_budget: RetryBudgetConfig = Field(default=RetryBudgetConfig(), description="How many requests are sent once more.")
    cors_origins: tuple[str, ...] = Field((), description="Origins whose pages may call from a browser.")
    logs: LogsConfig = Field(default=LogsConfig(), description="What is written of requests.")
    tracing: TracingConfig = Field(default=TracingConfig(), description="Which requests leave a trace.")


def routing_document(config: PlatformConfig) -> RoutingDocument:
    """Return what Routers need to know of a platform."""
    return RoutingDocument(
        models=tuple(_routed_model(model, has_budget=config.scaling.max_accelerators is not None) for model in config.models),
        pipelines=config.pipelines,
        embedders=tuple(e.name for e in config.embedders),
        vector_stores=_routed_stores(config.vector_stores),
        auth=config.auth,
        limits=config.limits,
        replica_choice=config.router.replica_choice,
        balance_factor=config.router.balance_factor,
        keep_alive_s=config.router.keep_alive_s,
        stream_idle_timeout_s=config.router.stream_idle_timeout_s,
        outlier_ejection=config.router.outlier_ejection,
        retry_budget=config.router.retry_budget,
        cors_origins=config.router.cors_origins,
        logs=config.logs,
        tracing=config.tracing,
    )


Part = RoutedModel | RoutedAdapter | PipelineConfig


def parts(document: RoutingDocument) -> tuple[Part, ...]:
    """Return everything whose traffic is split."""
    return (*document.models, *(adapter for model in document.models for adapter in model.adapters), *document.pipelines)


def declared_split(part: Part) -> Split:
    """Return how the traffic of a model, adapter or pipeline is shared by its declared weights."""
    owners = part.variants if isinstance(part, RoutedModel) else part.versions
    baseline = part.rollout.baseline if part.rollout is not None else owners[0].name
    shares = tuple(Share(variant=each.name, weight=each.weight) for each in owners)
    return Split(name=part.name, shares=shares, baseline=baseline)


def revisions(part: Part) -> dict[str, str]:
    """Return what each variant or version is made of, as digests: weights are no part of it."""
    if isinstance(part, RoutedModel):
        return {variant.name: variant.revision for variant in part.variants}
    if isinstance(part, RoutedAdapter):
        return {version.name: version.revision for version in part.versions}
    return {version.name: revision(version) for version in part.versions}


def revision(part: Config, *, without: frozenset[str] = frozenset({"weight"})) -> str:
    """Return a digest of a configuration, some fields left out."""
    # Defaults are left out: a field that a later release adds must not look like a change.
    text = json.dumps(part.model_dump(mode="json", exclude=set(without), exclude_defaults=True), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _routed_model(model: ModelConfig, *, has_budget: bool) -> RoutedModel:
    return RoutedModel(
        name=model.name,
        variants=tuple(_routed(variant, has_budget=has_budget) for variant in model.variants),
        rollout=model.rollout,
        shadow=model.shadow,
        adapters=tuple(_routed_adapter(model.name, adapter) for adapter in model.adapters),
        fallback=model.fallback,
        first_byte_timeout_s=model.first_byte_timeout,
        hedge_after_s=model.hedge_after,
        continue_streams=model.continue_streams,
    )


def _routed_adapter(model: str, adapter: AdapterConfig) -> RoutedAdapter:
    versions = (
        RoutedAdapterVersion(name=version.name, source=version.source, weight=version.weight, revision=revision(version))
        for version in adapter.served
    )
    return RoutedAdapter(name=public_name(model, adapter.name), versions=tuple(versions), rollout=adapter.rollout)


def _routed_stores(stores: VectorStoresConfig | None) -> RoutedVectorStores | None:
    return None if stores is None else RoutedVectorStores(embedder=stores.embedder, max_file_bytes=stores.max_file_bytes)


def _routed(variant: VariantConfig, *, has_budget: bool) -> RoutedVariant:
    return RoutedVariant(
        name=variant.name,
        weight=variant.weight,
        revision=revision(variant, without=NOT_IN_ARGS),
        max_leases=variant.max_leases,
        engine=variant.engine.kind,
        may_sleep=variant.autoscaling is not None and variant.autoscaling.min_replicas == 0,
        is_budgeted=has_budget and variant_units(variant) > 0,
        max_model_len=variant.engine.max_model_len,
    )
