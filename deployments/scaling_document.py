"""PlatformConfig -> ScalingDocument: what every application's number of replicas goes by."""

from __future__ import annotations

from collections.abc import Iterator

from autoscaling.document import ScaledApp, ScalingDocument
from deployments.names import RETRIEVER_APP, ROUTER_APP, embedder_app, llm_app
from serve_app.config import AutoscalingConfig, PlatformConfig, StageScalingConfig
from serve_app.config_rules import embedder_units, variant_units


def scaling_document(config: PlatformConfig) -> ScalingDocument:
    """Return what policies need to know of a platform."""
    return ScalingDocument(max_accelerators=config.scaling.max_accelerators, apps=dict(_apps(config)))


def _apps(config: PlatformConfig) -> Iterator[tuple[str, ScaledApp]]:
    for model in config.models:
        for variant in model.variants:
            app = _app("LLM", variant.autoscaling, replicas=variant.replicas)
            more = {"units": variant_units(variant), "priority": model.priority, "price_per_hour": variant.price_per_hour}
            yield llm_app(model.name, variant.name), app.model_copy(update=more)
    for embedder in config.embedders:
        app = _app("Embedder", embedder.autoscaling, replicas=embedder.replicas)
        yield embedder_app(embedder.name), app.model_copy(update={"units": embedder_units(embedder)})
    if config.pipelines or config.vector_stores:
        yield RETRIEVER_APP, _app("Retriever", config.retriever.autoscaling, replicas=config.retriever.replicas)
    yield ROUTER_APP, _app("Router", config.router.autoscaling, replicas=config.router.replicas)


def _app(deployment: str, scaling: StageScalingConfig | None, *, replicas: int) -> ScaledApp:
    if scaling is None:
        # Variants may have no replica, yet no settings allow for none at most.
        fixed = AutoscalingConfig(min_replicas=replicas, max_replicas=max(1, replicas))
        return ScaledApp(deployment=deployment, settings=fixed, is_fixed=True)
    settings = AutoscalingConfig.model_validate(scaling.model_dump())
    return ScaledApp(deployment=deployment, settings=settings)
