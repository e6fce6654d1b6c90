from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoscaling.simulation.latency import LatencyModel
from autoscaling.simulation.options import SimulationOptions
from autoscaling.simulation.policy_names import STANDARD, Case, named, play, service_s
from autoscaling.simulation.trace import Draw, LengthModel, Trace, poisson
from serve_app.config_scaling import AutoscalingConfig

FLAT = LengthModel(prompt_median=100, prompt_mean=100, output_median=50, output_mean=50)
MODEL = LatencyModel(step_s=0.02, step_s_per_sequence=0.001, prefill_s_per_token=0.0001, slots=10, startup_s=5.0)


@pytest.fixture
def case() -> Case:
    trace = poisson(4.0, 60.0, draw=Draw(lengths=FLAT))
    config = AutoscalingConfig(max_replicas=10, target_utilization=0.8)
    return Case(trace, MODEL, config, SimulationOptions(max_replicas=10, initial_replicas=2))


def test_a_busy_replica_serves_its_slots_in_a_service_time(case: Case) -> None:
    expected_s = 50 * (0.02 + 10 * 0.001) + 10 * 100 * 0.0001  # fifty full steps, and a prompt of each slot
    assert service_s(case.trace, MODEL) == pytest.approx(expected_s)
    assert case.capacity == pytest.approx(10 / expected_s)


def test_without_requests_a_step_is_the_service_time() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    assert service_s(Trace("none", np.zeros(0), nothing, nothing, 1.0), MODEL) == MODEL.step_of(10)


@pytest.mark.parametrize("name", STANDARD)
def test_a_result_bears_the_name_that_was_asked_for(case: Case, name: str) -> None:
    assert play(name, case, attainment=0.9).policy == name


def test_a_fixed_number_is_the_first_unless_it_is_given(case: Case) -> None:
    assert play("fixed", case, attainment=0.9).cost.max_replicas == 2
    assert play("fixed:replicas=7", case, attainment=0.9).cost.max_replicas == 7


def test_a_fixed_number_is_one_where_a_run_begins_with_none(case: Case) -> None:
    asleep = replace(case, options=replace(case.options, min_replicas=0, initial_replicas=0))
    assert play("fixed", asleep, attainment=0.9).cost.max_replicas == 1


def test_a_lower_target_takes_more_replicas(case: Case) -> None:
    costs = [play(f"hpa-qps:target={target}", case, attainment=0.9).replica_seconds for target in (0.5, 5.0)]
    assert costs[0] > costs[1]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("orcale", r"there is no policy 'orcale'; did you mean oracle\? take one of ours, ray-default"),
        ("oracle:window=3", "oracle has no option 'window'; it has none"),
        ("ray-default:target=0", "^ray-default: target must be over 0, such as target=2; got 0$"),
        ("ray-default:target=-1.5", "^ray-default: target must be over 0, such as target=2; got -1.5$"),
        ("fixed:replicas=-1", "^fixed: replicas must be a whole number, at least 1, such as replicas=2; got -1$"),
        ("fixed:replicas=0", "whole number, at least 1, such as replicas=2; got 0$"),
        ("fixed:replicas=1.5", "whole number, at least 1, such as replicas=2; got 1.5$"),
    ],
)
def test_a_wrong_name_is_explained(case: Case, text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        named(text, case)


def test_a_wrong_option_is_explained(case: Case) -> None:
    with pytest.raises(ValueError, match="hpa-qps has no option 'qps'; it has target"):
        play("hpa-qps:qps=3", case, attainment=0.9)
