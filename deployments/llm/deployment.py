"""The Ray side of an LLM replica: identity from Serve's context, directory by handle, engine by kind."""

from __future__ import annotations

from typing import Any

from autoscaling.signals import SafeSignals, engine_signals
from deployments.handles import HandleDirectory
from deployments.llm.engine import Engine
from deployments.llm.replica import LlmReplica, ReplicaIdentity
from deployments.names import ROLLOUTS_APP
from serve_app.config import VariantConfig
from serve_app.settings import read_settings


def build_engine(model: str, config: VariantConfig) -> Engine:
    """Return the engine of a variant; nothing heavy is imported for kinds that are not asked for."""
    if config.engine.kind == "simulated":
        from deployments.llm.simulated import SimulatedEngine

        return SimulatedEngine(model, config.engine.simulated)
    from deployments.llm.vllm import VllmEngine

    return VllmEngine(model, config)


class LLM:
    """Serve deployment of one model variant."""

    async def __init__(self, model: str, config: dict[str, Any]) -> None:  # type: ignore[misc]
        """Start the engine; Serve allows this constructor to be async and calls the replica ready when it returns."""
        import ray
        from ray import serve

        variant = VariantConfig.model_validate(config)
        settings = read_settings()
        identity = ReplicaIdentity(
            replica_id=serve.get_replica_context().replica_id.unique_id,
            model=model,
            host=settings.replica_host or ray.util.get_node_ip_address(),  # type: ignore[no-untyped-call]
            token=settings.internal_token,
        )
        engine = build_engine(model, variant)
        self._replica = LlmReplica(identity, variant, engine=engine, directory=HandleDirectory(ROLLOUTS_APP))
        self._signals = SafeSignals(lambda: engine_signals(self._replica.load()))
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
