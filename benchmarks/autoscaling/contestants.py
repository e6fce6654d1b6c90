"""Contestants: every policy that is played, with the settings that it is tried with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from autoscaling.simulation.baselines import HpaLike, QueueDepth
from autoscaling.simulation.options import Policy
from autoscaling.simulation.oracle import Load, Oracle
from autoscaling.simulation.ray_default import RayDefault
from autoscaling.simulation.trace import Trace
from benchmarks.autoscaling.instant import Instant
from benchmarks.autoscaling.scenarios import MODEL, MOST_REPLICAS, Scenario
from serve_app.config_scaling import AutoscalingConfig

ORACLE, MANTA, RAY, HPA_QPS, HPA_USE, INSTANT = "oracle", "manta", "ray", "hpa-qps", "hpa-utilization", "instant"
Settings = tuple[tuple[str, float], ...]

_DEFAULTS = AutoscalingConfig()
MANTA_SETTINGS = ("queue_drain_s", "downscale_delay_s", "headroom")
MANTA_FRONTIER = (  # each alone, and all together towards more and less
    (30.0, 300.0, 2.0),
    (120.0, 300.0, 2.0),
    (60.0, 120.0, 2.0),
    (60.0, 600.0, 2.0),
    (60.0, 300.0, 1.0),
    (60.0, 300.0, 3.0),
    (30.0, 600.0, 3.0),
    (120.0, 120.0, 1.0),
)
RAY_LOOK_BACK_S, RAY_PUSH_S = 30.0, 1.0  # Ray's default, and the most favourable path of metrics (it pushes every 10 s)


@dataclass(frozen=True)
class Contestant:
    """A policy and its settings."""

    family: str
    settings: Settings = ()

    @property
    def label(self) -> str:
        """What tables call it."""
        values = ", ".join(f"{name} {value:g}" for name, value in self.settings)
        return f"{self.family} ({values})" if values else self.family

    def policy(self, scenario: Scenario, trace: Trace) -> Policy:
        """Return it anew, to be played once."""
        given = dict(self.settings)
        if self.family == MANTA:
            config = AutoscalingConfig.model_validate({"max_replicas": MOST_REPLICAS, **given})
            return QueueDepth(config)
        if self.family == RAY:
            return _ray(given)
        if self.family == INSTANT:
            return Instant(scenario, trace, drain_s=given["queue_drain_s"])
        if self.family == ORACLE:
            return Oracle(Load.of(trace, MODEL), factor=given["factor"], window_s=given["window_s"])
        return HpaLike("qps" if self.family == HPA_QPS else "utilization", given["target"])


def _ray(given: dict[str, float]) -> Policy:
    from ray.serve.config import AutoscalingConfig as RayConfig

    fixed = {"min_replicas": 1, "max_replicas": MOST_REPLICAS, "look_back_period_s": RAY_LOOK_BACK_S}
    return RayDefault(RayConfig.model_validate({**fixed, **given}), push_s=RAY_PUSH_S)


OURS = Contestant(MANTA, tuple((name, float(getattr(_DEFAULTS, name))) for name in MANTA_SETTINGS))


def contestants(*, with_frontier: bool, is_quick: bool = False) -> Iterator[Contestant]:
    """Yield all but the oracle, which has to be searched; ours with settings other than its defaults only if asked for."""
    yield OURS
    yield from (Contestant(INSTANT, (("queue_drain_s", drain_s),)) for drain_s in (60.0, 15.0))
    if with_frontier:
        yield from (Contestant(MANTA, tuple(zip(MANTA_SETTINGS, values, strict=True))) for values in MANTA_FRONTIER)
    names = ("target_ongoing_requests", "upscale_delay_s", "downscale_delay_s")
    targets = (16.0, 20.0, 24.0, 28.0, 36.0, 48.0)
    yield from _grid(RAY, names, ((16.0, 36.0), (0.0,), (300.0,)) if is_quick else (targets, (0.0, 30.0), (60.0, 300.0, 600.0)))
    yield from _grid(HPA_QPS, ("target",), ((3.0,) if is_quick else (2.5, 3.0, 3.5, 4.0),))
    yield from _grid(HPA_USE, ("target",), ((0.6,) if is_quick else (0.4, 0.6, 0.8),))


def _grid(family: str, names: tuple[str, ...], values: tuple[tuple[float, ...], ...]) -> Iterator[Contestant]:
    for chosen in product(*values):
        yield Contestant(family, tuple(zip(names, chosen, strict=True)))
