"""Policies by name, as a command line gives them: `ours`, or `hpa-qps:target=3`; and playing them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from autoscaling.simulation.baselines import Fixed, HpaLike, QueueDepth
from autoscaling.simulation.latency import LatencyModel
from autoscaling.simulation.names import numbers, split
from autoscaling.simulation.options import Policy, SimulationOptions
from autoscaling.simulation.oracle import best_oracle
from autoscaling.simulation.ray_default import RayDefault
from autoscaling.simulation.results import Result
from autoscaling.simulation.run import simulate
from autoscaling.simulation.trace import Trace
from serve_app.config_scaling import AutoscalingConfig

ORACLE = "oracle"
STANDARD = ("ours", "ray-default", "hpa-qps", ORACLE)


@dataclass(frozen=True)
class Case:
    """What policies are compared on."""

    trace: Trace
    model: LatencyModel
    config: AutoscalingConfig  # of our policy; others take its bounds, and its utilization as theirs
    options: SimulationOptions

    @property
    def capacity(self) -> float:
        """Requests per second that a replica with all slots busy answers, at this trace's mean lengths."""
        return self.model.slots / service_s(self.trace, self.model)


Made = Callable[[Case, Mapping[str, float]], Policy]
Defaults = Callable[[Case], Mapping[str, float]]


def _ours(case: Case, _: Mapping[str, float]) -> Policy:
    return QueueDepth(case.config)


def _ray_default(case: Case, options: Mapping[str, float]) -> Policy:
    from ray.serve.config import AutoscalingConfig as RayConfig

    if not options["target"] > 0:
        raise ValueError(f"ray-default: target must be over 0, such as target=2; got {options['target']:g}")
    least, most = case.config.min_replicas, case.config.max_replicas
    return RayDefault(RayConfig(min_replicas=least, max_replicas=most, target_ongoing_requests=options["target"]))


def _hpa_qps(_: Case, options: Mapping[str, float]) -> Policy:
    return HpaLike("qps", options["target"])


def _hpa_utilization(_: Case, options: Mapping[str, float]) -> Policy:
    return HpaLike("utilization", options["target"])


def _fixed(_: Case, options: Mapping[str, float]) -> Policy:
    replicas = options["replicas"]
    if replicas < 1 or not replicas.is_integer():
        raise ValueError(f"fixed: replicas must be a whole number, at least 1, such as replicas=2; got {replicas:g}")
    return Fixed(int(replicas))


# Every target is the share of a replica that our own policy lets load take, in the unit of the policy: the comparison is of
# what they do, not of how well somebody has guessed a number. What Ray itself would take is `ray-default:target=2`.
POLICIES: Mapping[str, tuple[Made, Defaults]] = {
    "ours": (_ours, lambda _: {}),
    "ray-default": (_ray_default, lambda case: {"target": case.config.target_utilization * case.model.slots}),
    "hpa-qps": (_hpa_qps, lambda case: {"target": case.config.target_utilization * case.capacity}),
    "hpa-utilization": (_hpa_utilization, lambda case: {"target": case.config.target_utilization}),
    "fixed": (_fixed, lambda case: {"replicas": float(max(1, case.options.first_replicas))}),
}


def play(text: str, case: Case, *, attainment: float) -> Result:
    """Return how the policy that a text names does; the result bears the text as its name.

    Args:
        text: `oracle`, or a name of :data:`POLICIES`, and after a colon options as ``name=number``, separated by commas.
        case: what to play.
        attainment: share of requests within the objectives, 0..1, that the oracle must reach.

    Raises:
        ValueError: an unknown name or option, or a number out of range; says what to write instead.
    """
    if (policy := named(text, case)) is None:
        return best_oracle(case.trace, case.model, options=case.options, attainment=attainment)[1]
    return replace(simulate(case.trace, case.model, policy, options=case.options), policy=text)


def named(text: str, case: Case) -> Policy | None:
    """Return a new policy that a text names, None for the oracle, which has to be searched. Raises ValueError as above."""
    name, rest = split(text, (*POLICIES, ORACLE), "policy")
    if name == ORACLE:
        numbers(name, rest, {})
        return None
    make, defaults = POLICIES[name]
    return make(case, numbers(name, rest, defaults(case)))


def service_s(trace: Trace, model: LatencyModel) -> float:
    """Return the seconds that a request of mean length takes on a replica whose slots are all busy."""
    if not len(trace):
        return model.step_of(model.slots)
    prefill_s = model.slots * model.prefill_s_per_token * float(trace.prompt_tokens.mean())
    return float(trace.output_tokens.mean()) * model.step_of(model.slots) + prefill_s
