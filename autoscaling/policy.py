"""QueueDepthPolicy: Ray Serve's class policy around ``Scaler``, one for every deployment that scales."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autoscaling.desk import Desk, Look, desk

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext


class QueueDepthPolicy:
    """What Serve's controller calls about ten times a second for every deployment. It never waits and never raises.

    It takes no arguments that matter: Serve counts a policy's arguments into the version of the deployment, so that a
    changed one would restart every replica. What is configured comes by ``autoscaling.feed``.
    """

    def __init__(self, *, at: Desk | None = None, **_: Any) -> None:
        self._desk = at or desk()

    def __call__(self, ctx: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """Return the wanted number of replicas, and no state: Serve forgets it at every change of a deployment."""
        return self._desk.decide(_look(ctx)), {}


def _look(ctx: AutoscalingContext) -> Look:
    return Look(
        app=ctx.app_name or "",
        target=ctx.target_num_replicas,
        replicas=ctx.running_replicas,
        raw=lambda: ctx.raw_metrics,
        queued=lambda: ctx.total_queued_requests,
    )
