"""QueueDepthPolicy: replicas of an LLM variant by the depth of its engines' queues."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autoscaling.signals import OPEN, RUNNING, WAITING

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext


def decide(*, current: int, waiting: float, running: float, target_queue_depth: float) -> int:
    """Return how many replicas the present load needs.

    Up: so many that the waiting requests, spread evenly, are at most ``target_queue_depth`` per replica.
    Down: one fewer when nothing waits and the replicas that remain would run at most half of ``target_queue_depth``
    requests each, so that removing one does not make a queue. Nothing at all to do: none.
    """
    if waiting + running <= 0:
        return 0
    if waiting > target_queue_depth * max(current, 1):
        return max(current + 1, math.ceil(waiting / target_queue_depth))
    if current > 1 and waiting <= 0 and running <= target_queue_depth * (current - 1) / 2:
        return current - 1
    return max(current, 1)


class QueueDepthPolicy:
    """Ray Serve's class-policy adapter around ``decide``; delays and bounds are applied by Serve."""

    def __init__(self, target_queue_depth: float = 4.0, **_: Any) -> None:
        self._target = target_queue_depth

    def __call__(self, ctx: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """Return the wanted number of replicas and no state of our own."""
        if ctx.current_num_replicas == 0:
            # A sleeping variant has no engine to report; a wake call waiting at its handle is the only sign of need.
            return (1 if ctx.total_num_requests > 0 else 0), {}
        metrics = ctx.aggregated_metrics
        waiting, running = _sum(metrics, WAITING), _sum(metrics, RUNNING)
        if waiting is None or running is None:
            return ctx.target_num_replicas, {}  # nobody has reported yet
        running = max(running, (_sum(metrics, OPEN) or 0.0) - waiting)
        wanted = decide(current=ctx.current_num_replicas, waiting=waiting, running=running, target_queue_depth=self._target)
        return wanted, {}


def _sum(metrics: Mapping[str, Mapping[Any, float]] | None, name: str) -> float | None:
    values = (metrics or {}).get(name)
    return sum(values.values()) if values else None
