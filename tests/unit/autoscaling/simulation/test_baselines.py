from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from autoscaling.observation import Observation
from autoscaling.simulation.baselines import Fixed, HpaLike, Metric, QueueDepth


def seen(now_s: float, **fields: Any) -> Observation:
    return replace(Observation(now_s=now_s, target=4, ready=4, slots=10), **fields)


def wanted(metric: Metric, target: float, *looks: Observation) -> list[int]:
    policy = HpaLike(metric, target)
    return [policy.wanted(look) for look in looks]


def test_fixed_never_changes() -> None:
    assert [Fixed(7).name, Fixed(7).wanted(seen(0, target=2))] == ["fixed 7", 7]


@pytest.mark.parametrize(
    ("fields", "replicas"),
    [
        ({"running": 40}, 8),
        ({"running": 21.9}, 4),
        ({"running": 22.1}, 5),
        ({"running": 18.1}, 4),
        ({"running": 17.9}, 4),
        ({"running": 40, "target": 8}, 8),
        ({"running": 40, "target": 5}, 8),
        ({"running": 24, "target": 5}, 5),
        ({"running": 0, "target": 0, "ready": 0}, 1),
        ({"running": 0, "ready": 0}, 4),
        ({"running": 0, "slots": 0}, 4),
    ],
    ids=[
        "twice-the-target-doubles",
        "within-tolerance-above",
        "over-tolerance",
        "within-tolerance-below",
        "fewer-than-recommended-at-first",
        "starting-ones-count-as-idle",
        "starting-ones-are-not-enough",
        "starting-ones-turn-the-direction",
        "never-zero",
        "no-metric",
        "unknown-slots",
    ],
)
def test_utilization_of_half_the_slots(fields: dict[str, Any], replicas: int) -> None:
    # A replica of 10 slots with a target of 0.5: ceil(4 x (running / 40) / 0.5), as in the algorithm's details.
    calm = {"target": fields.get("target", 4), "ready": fields.get("ready", 4), "running": 20}
    assert wanted("utilization", 0.5, seen(0, **calm), seen(15, **fields))[1] == replicas


def test_queries_per_second_are_counted_over_a_minute() -> None:
    looks = [seen(second, arrived=8 * second, target=1, ready=1) for second in range(0, 121, 15)]
    assert wanted("qps", 2.0, *looks) == [1, 4, 4, 4, 4, 4, 4, 4, 4]  # none at 0: no rate yet
    late = seen(180, arrived=8 * 120 + 60 * 2, target=4)
    assert wanted("qps", 2.0, *looks, late)[-1] == 4  # 2 per second now, but 300 s ago it was 8


def test_queries_within_the_tolerance_change_nothing() -> None:
    # 4 replicas are found, which counts as the first recommendation.
    assert wanted("qps", 2.0, seen(0), seen(60, arrived=60 * 8.8)) == [4, 4]
    assert wanted("qps", 2.0, seen(0), seen(60, arrived=60 * 8.81)) == [4, 5]


def test_it_adds_at_most_as_many_as_there_are_or_four_per_sync() -> None:
    policy = HpaLike("qps", 1.0)
    policy.wanted(seen(0, target=2))
    assert policy.wanted(seen(60, arrived=6000, target=2)) == 6
    assert policy.wanted(seen(75, arrived=7500, target=6)) == 12
    assert policy.wanted(seen(90, arrived=9000, target=12)) == 24


def test_it_decides_every_15_seconds_only() -> None:
    policy = HpaLike("utilization", 0.5)
    policy.wanted(seen(0, running=20))
    assert [policy.wanted(seen(second, running=40)) for second in (1, 14, 15, 16)] == [4, 4, 8, 4]


def test_it_removes_replicas_only_when_nothing_spoke_against_it_for_300_seconds() -> None:
    policy = HpaLike("utilization", 0.5)
    policy.wanted(seen(0, running=20))
    decisions = [policy.wanted(seen(15 * sync, running=5)) for sync in range(1, 22)]
    assert decisions == [4] * 20 + [1]


def test_a_target_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="target must be over 0, got 0"):
        HpaLike("qps", 0)


def test_names_tell_the_metric_and_the_target() -> None:
    assert [HpaLike("qps", 2.5).name, HpaLike("utilization", 0.8).name] == ["hpa qps 2.5", "hpa utilization 0.8"]


def test_queue_depth_asks_the_scaler() -> None:
    from serve_app.config_scaling import AutoscalingConfig

    policy = QueueDepth(AutoscalingConfig(max_replicas=4))
    assert (policy.name, policy.wanted(seen(0, running=1, arrived=1)) in range(1, 5)) == ("manta", True)
