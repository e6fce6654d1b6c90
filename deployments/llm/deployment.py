"""The Ray side of an LLM replica: identity from Serve's context, directory by handle, engine by kind."""

from __future__ import annotations

import asyncio
from typing import Any

from autoscaling.signals import SafeSignals, engine_signals
from deployments.handles import HandleDirectory
from deployments.llm.adapter_metrics import AdapterMetrics
from deployments.llm.engine import Engine
from deployments.llm.phases import StartPhases
from deployments.llm.replica import LlmReplica, ReplicaIdentity
from deployments.llm.stages import RayStages, own_host
from deployments.llm.start_metrics import StartMetrics
from deployments.llm.vllm_metrics import VllmFamilies
from deployments.names import ROLLOUTS_APP
from deployments.ray_export import RayExport, keep_exporting
from serve_app.config import VariantConfig
from serve_app.registry import Registry
from serve_app.settings import read_settings


def build_engine(identity: ReplicaIdentity, config: VariantConfig, registry: Registry) -> Engine:
    """Return the engine of a variant; nothing heavy is imported for kinds that are not asked for."""
    model = identity.model
    if config.engine.kind == "simulated":
        from deployments.llm.simulated import SimulatedEngine

        return SimulatedEngine(model, config.engine.simulated)
    from deployments.llm.vllm import VllmEngine

    stages = None
    if config.engine.pipeline_parallel_size > 1:
        stages = RayStages(model, config, host=identity.host, name=identity.replica_id)
    metrics = StartMetrics(model, config.name, registry=registry)
    phases = StartPhases(timeout_s=config.engine.start_timeout_s, on_end=metrics.ended, on_progress=metrics.downloaded)
    return VllmEngine(model, config, stages=stages, phases=phases)


class LLM:
    """Serve deployment of one model variant."""

    async def __init__(self, model: str, config: dict[str, Any]) -> None:  # type: ignore[misc]
        """Start the engine; Serve allows this constructor to be async and calls the replica ready when it returns."""
        from ray import serve

        variant = VariantConfig.model_validate(config)
        settings = read_settings()
        identity = ReplicaIdentity(
            replica_id=serve.get_replica_context().replica_id.unique_id,
            model=model,
            host=own_host(settings.replica_host),
            token=settings.internal_token,
        )
        registry = Registry()
        # `ReplicaId` is what Ray's dashboards tell replicas of Serve by. The start is shown while it lasts.
        whose = {"model": model, "variant": variant.name, "ReplicaId": identity.replica_id}
        exports = RayExport(registry), RayExport(VllmFamilies(whose))
        self._exporting = [asyncio.create_task(keep_exporting(export)) for export in exports]
        engine = build_engine(identity, variant, registry)
        self._replica = LlmReplica(identity, variant, engine=engine, directory=HandleDirectory(ROLLOUTS_APP))
        self._signals = SafeSignals(lambda: engine_signals(self._replica.load()))
        if variant.engine.lora is not None:
            self._replica.watch_adapters(AdapterMetrics(model, variant.name, registry=registry))
        await self._replica.start()

    async def wake(self) -> None:
        """Do nothing: being called is what makes Serve start a replica of a variant that sleeps at zero."""

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the signals of ``autoscaling.signals`` for the policy."""
        return self._signals()

    async def check_health(self) -> None:
        """Raise when the engine is dead, so that Serve replaces the replica."""
        await self._replica.check_health()

    async def __del__(self) -> None:
        """Drain. Serve awaits this inside graceful_shutdown_timeout_s before it ends the replica."""
        replica = getattr(self, "_replica", None)
        if replica is not None:
            await replica.stop()
