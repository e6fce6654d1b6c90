"""RayDefault: Ray Serve's own default policy, on the clock of a simulation."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

from autoscaling.observation import Observation

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingConfig, AutoscalingContext

_EPSILON_S = 1e-9
_LEAST_LAST_S = 1e-3  # for which Serve takes a count to last that is as new as the decision
_PUSH_S = 10.0  # RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S


class RayDefault:
    """What Serve 2.60 does for a deployment with an ``autoscaling_config`` and no policy of its own.

    The functions are Ray's, in the order in which its decorator calls them; only the clock is ours, for which
    ``_apply_delay_logic`` has a parameter that the decorator does not pass on. What Serve's controller does around them is
    repeated here: handles push their counts every ``push_s`` seconds, at once where a request waits and no replica is there,
    and the mean over ``look_back_period_s`` is weighted by time, the last count being taken to last until now.
    """

    def __init__(self, config: AutoscalingConfig, *, push_s: float = _PUSH_S) -> None:
        self.name = "ray default"
        self._config = config
        self._push_s = push_s
        self._next_push_s = -math.inf
        self._recorded: deque[tuple[float, float]] = deque()  # time, requests
        self._reported: list[tuple[float, float]] = []
        self._state: dict[str, Any] = {}

    def wanted(self, seen: Observation) -> int:
        """Return what Ray's functions decide."""
        replicas, self._state = _decide(self._context(seen), self._config)
        return math.ceil(replicas)

    def _context(self, seen: Observation) -> AutoscalingContext:
        """Return what Serve's controller would hand to the policy."""
        from ray.serve._private.common import DeploymentID
        from ray.serve.config import AutoscalingContext

        return AutoscalingContext(
            deployment_id=DeploymentID(name="simulated"),
            deployment_name="simulated",
            app_name=None,
            current_num_replicas=seen.ready,
            target_num_replicas=seen.target,
            running_replicas=[],
            total_num_requests=self._mean(seen),
            total_queued_requests=None,
            aggregated_metrics=None,
            raw_metrics=None,
            capacity_adjusted_min_replicas=self._config.min_replicas,
            capacity_adjusted_max_replicas=self._config.max_replicas,
            policy_state=self._state,
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=seen.now_s,
            config=self._config,
        )

    def _mean(self, seen: Observation) -> float:
        now_s, recorded = seen.now_s, self._recorded
        recorded.append((now_s, seen.open))
        while recorded[0][0] < now_s - self._config.look_back_period_s - _EPSILON_S:
            recorded.popleft()
        if now_s + _EPSILON_S >= self._next_push_s or (not seen.ready and seen.held):
            self._reported = list(recorded)
            self._next_push_s = now_s + self._push_s
        reported = self._reported
        end_s = max(now_s, reported[-1][0] + _LEAST_LAST_S)
        ends_s = [*(time_s for time_s, _ in reported[1:]), end_s]
        total = sum(value * (until_s - time_s) for (time_s, value), until_s in zip(reported, ends_s, strict=True))
        return total / (end_s - reported[0][0])


def _decide(ctx: AutoscalingContext, config: AutoscalingConfig) -> tuple[float, dict[str, Any]]:
    """Do what ``_apply_autoscaling_config(replica_queue_length_autoscaling_policy)`` does, at ``ctx.current_time``."""
    from ray.serve import autoscaling_policy as ray_policy

    if (first := ray_policy._get_cold_start_scale_up_replicas(ctx)) is not None:
        return first, ctx.policy_state
    desired, _ = ray_policy.replica_queue_length_autoscaling_policy(ctx)
    scaled = ray_policy._apply_scaling_factors(desired, ctx.current_num_replicas, config)
    if ctx.current_num_replicas == 0 and scaled > 0:
        return scaled, ctx.policy_state
    return ray_policy._apply_delay_logic(
        max(0, scaled), ctx.target_num_replicas, config, dict(ctx.policy_state), _now=ctx.current_time
    )
