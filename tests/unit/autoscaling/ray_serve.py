"""Serve's controller as far as policies meet it, without Ray's processes: contexts, its own wrapper, replicas that start."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ray.serve._private.common import DeploymentID, ReplicaID, TimeStampedValue
from ray.serve.autoscaling_policy import _apply_autoscaling_config
from ray.serve.config import AutoscalingConfig as RayConfig
from ray.serve.config import AutoscalingContext

from autoscaling.desk import Desk
from autoscaling.document import HELD, SCALING, Held, ScaledApp, ScalingDocument
from autoscaling.policy import QueueDepthPolicy
from autoscaling.signals import stage_signals

TICK_S = 0.1
RAY = RayConfig(min_replicas=0, max_replicas=8, upscale_delay_s=0.0, downscale_delay_s=0.0)


class Memory:
    """Ray's key-value store."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        return self.values.get(key)

    def put(self, key: str, data: bytes) -> None:
        self.values[key] = data


@dataclass
class Deployment:
    """One that serves calls in order of their arrival, ``slots`` at a time on each replica; calls wait at its handle."""

    app: str
    name: str = "LLM"
    startup_s: float = 40.0
    service_s: float = 5.0
    slots: int = 4
    target: int = 0
    state: dict[str, Any] = field(default_factory=dict)
    replicas: dict[ReplicaID, float] = field(default_factory=dict)  # when each serves
    queue: deque[float] = field(default_factory=deque)  # calls, by when they came
    ends_s: list[float] = field(default_factory=list)  # of those in service
    waits_s: list[float] = field(default_factory=list)  # how long each call waited at the handle
    arrived: int = 0
    made: int = 0
    asked_s: list[float] = field(default_factory=list)  # when the policy itself was asked

    @property
    def id(self) -> DeploymentID:
        return DeploymentID(name=self.name, app_name=self.app)

    def ready(self, now_s: float) -> list[ReplicaID]:
        return [replica for replica, serves_s in self.replicas.items() if serves_s <= now_s]

    def work(self, now_s: float) -> None:
        """Finish the calls that are due, and begin as many as there are slots for."""
        self.ends_s = [end_s for end_s in self.ends_s if end_s > now_s]
        while self.queue and len(self.ends_s) < self.slots * len(self.ready(now_s)):
            self.waits_s.append(now_s - self.queue.popleft())
            self.ends_s.append(now_s + self.service_s)
            self.arrived += 1

    def scale(self, target: int, now_s: float) -> None:
        """Start replicas, or stop the newest ones."""
        self.target = target
        while len(self.replicas) < target:
            self.replicas[ReplicaID(f"r{self.made}", self.id)] = now_s + self.startup_s
            self.made += 1
        while len(self.replicas) > target:
            self.replicas.popitem()

    def raw(self, now_s: float) -> Mapping[str, Mapping[ReplicaID, list[TimeStampedValue]]]:
        """Return what replicas reported: each an even part of the load, once a second."""
        ready = self.ready(now_s)
        share = len(self.ends_s) / max(1, len(ready))
        signals = stage_signals(waiting=0, running=share, slots=self.slots, arrived=self.arrived / max(1, len(ready)))
        return {name: {r: [TimeStampedValue(float(int(now_s)), value)] for r in ready} for name, value in signals.items()}


class Serve:
    """Ray Serve's control loop around one desk. Time passes only in :meth:`run`."""

    def __init__(self, apps: Mapping[str, ScaledApp], *deployments: Deployment, max_accelerators: int | None = None) -> None:
        self.now_s = 1000.0
        self.store = Memory()
        self.desk = Desk(self.store, clock=lambda: self.now_s, wall=lambda: self.now_s)
        self.deployments = deployments
        # The wrapper that Serve puts around every policy: it wakes by itself, without asking, what has no replica but calls.
        self._policy = _apply_autoscaling_config(QueueDepthPolicy(at=self.desk))
        self.publish(SCALING, ScalingDocument(max_accelerators=max_accelerators, apps=dict(apps)))

    def publish(self, key: str, value: Held | ScalingDocument) -> None:
        self.store.put(key, value.model_dump_json().encode())
        self.desk.feed.look()

    def hold(self, **held: int) -> None:
        """Publish what Routers hold."""
        self.publish(HELD, Held(stamp=self.now_s, held=held))

    def run(self, seconds: float, *, until: Callable[[], bool] = lambda: False) -> list[tuple[float, str, int]]:
        """Let time pass; return the changes of targets: (seconds from now, application, replicas)."""
        begin_s, changes = self.now_s, []
        for _ in range(round(seconds / TICK_S)):
            if until():
                break
            self.now_s += TICK_S
            for each in self.deployments:
                each.work(self.now_s)
                if (target := self._ask(each)) != each.target:
                    each.scale(target, self.now_s)
                    changes.append((round(self.now_s - begin_s, 1), each.app, target))
        return changes

    def _ask(self, each: Deployment) -> int:
        now_s, ready = self.now_s, each.ready(self.now_s)

        def raw() -> Any:
            each.asked_s.append(now_s)
            return each.raw(now_s)

        context = AutoscalingContext(
            deployment_id=each.id,
            deployment_name=each.name,
            app_name=each.app,
            current_num_replicas=len(ready),
            target_num_replicas=each.target,
            running_replicas=ready,
            total_num_requests=lambda: float(len(each.queue) + len(each.ends_s)),
            total_queued_requests=lambda: float(len(each.queue)),
            aggregated_metrics=dict,
            raw_metrics=raw,
            capacity_adjusted_min_replicas=0,
            capacity_adjusted_max_replicas=8,
            policy_state=dict(each.state),
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=now_s,
            config=RAY,
        )
        wanted, each.state = self._policy(context)
        return min(max(wanted, RAY.min_replicas), RAY.max_replicas)
