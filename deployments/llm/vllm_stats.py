"""LatestStats: what vLLM's scheduler last said, and what its steps add up to."""

from __future__ import annotations

from typing import Any

from deployments.rate import Rate
from serve_app.contracts import EngineLoad


class LatestStats:
    """Keeps the newest SchedulerStats and counts steps and tokens; vLLM calls it from the replica's own event loop."""

    def __init__(self, tokens: Rate) -> None:
        self.load = EngineLoad()
        self.tokens = tokens
        self.steps = 0

    def record(self, scheduler_stats: Any, iteration_stats: Any) -> None:
        """Take what one step of the engine was; vLLM leaves out what there is nothing to say of."""
        self.steps += 1
        if scheduler_stats is not None:
            self.load = EngineLoad(
                waiting=scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs,
                running=scheduler_stats.num_running_reqs,
                kv_cache_usage_ratio=scheduler_stats.kv_cache_usage,
            )
        if iteration_stats is not None:
            self.tokens.add(iteration_stats.num_generation_tokens)

    def factory(self) -> Any:
        """Return a vLLM StatLoggerFactory which records here."""
        from vllm.v1.metrics.loggers import StatLoggerBase

        latest = self

        class Recorder(StatLoggerBase):  # type: ignore[misc]  # vllm ships no types
            def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:  # noqa: ARG002
                self.engine_index = engine_index

            def record(self, scheduler_stats: Any, iteration_stats: Any, *_: Any, **__: Any) -> None:
                latest.record(scheduler_stats, iteration_stats)

            def log_engine_initialized(self) -> None:
                pass

        return Recorder
