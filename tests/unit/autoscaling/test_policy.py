from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaling.policy import QueueDepthPolicy, decide
from autoscaling.signals import OPEN, RUNNING, WAITING, engine_signals
from serve_app.contracts import EngineLoad

REPLICAS = st.integers(1, 100)
REQUESTS = st.integers(0, 10_000)
TARGETS = st.floats(0.5, 64)


@pytest.mark.parametrize(
    ("current", "waiting", "running", "wanted"),
    [
        (2, 0, 0, 0),
        (1, 4, 8, 1),
        (1, 5, 8, 2),
        (2, 40, 8, 10),
        (2, 9, 8, 3),
        (3, 0, 4, 2),
        (3, 0, 5, 3),
        (3, 1, 0, 3),
        (1, 0, 1, 1),
    ],
    ids=[
        "idle",
        "at-target",
        "over-target",
        "far-over",
        "just-over",
        "spare",
        "no-spare",
        "still-waiting",
        "last-one-works",
    ],
)
def test_replicas_for_a_load(current: int, waiting: int, running: int, wanted: int) -> None:
    assert decide(current=current, waiting=waiting, running=running, target_queue_depth=4) == wanted


@settings(deadline=None)
@given(current=REPLICAS, waiting=REQUESTS, running=REQUESTS, target=TARGETS)
def test_a_reaction_is_bounded(current: int, waiting: int, running: int, target: float) -> None:
    wanted = decide(current=current, waiting=waiting, running=running, target_queue_depth=target)
    assert wanted <= max(current + 1, math.ceil(waiting / target))
    assert wanted >= (current - 1 if waiting + running else 0)


@settings(deadline=None)
@given(current=REPLICAS, target=TARGETS)
def test_an_idle_variant_needs_nobody(current: int, target: float) -> None:
    assert decide(current=current, waiting=0, running=0, target_queue_depth=target) == 0


@settings(deadline=None)
@given(current=REPLICAS, waiting=REQUESTS, running=st.integers(1, 1000), target=TARGETS)
def test_so_many_are_added_that_the_queue_comes_down_to_the_target(
    current: int, waiting: int, running: int, target: float
) -> None:
    wanted = decide(current=current, waiting=waiting, running=running, target_queue_depth=target)
    assert waiting <= target * wanted * (1 + 1e-9)
    assert (wanted > current) == (waiting > target * current)


@settings(deadline=None)
@given(current=REPLICAS, waiting=REQUESTS, more=REQUESTS, running=st.integers(1, 1000), target=TARGETS)
def test_a_longer_queue_never_needs_fewer(current: int, waiting: int, more: int, running: int, target: float) -> None:
    few, many = (
        decide(current=current, waiting=w, running=running, target_queue_depth=target) for w in (waiting, waiting + more)
    )
    assert few <= many


@dataclass
class Context:
    """What Serve hands to a policy, as far as ours looks at it."""

    current_num_replicas: int = 2
    target_num_replicas: int = 3
    total_num_requests: float = 0.0
    aggregated_metrics: dict[str, dict[str, float]] | None = field(default_factory=dict)


def reported(*loads: EngineLoad) -> dict[str, dict[str, float]]:
    signals = {f"r{i}": engine_signals(load) for i, load in enumerate(loads)}
    return {name: {r: values[name] for r, values in signals.items()} for name in engine_signals(EngineLoad())}


def policy(context: Any, target: float = 4.0) -> int:
    wanted, state = QueueDepthPolicy(target, unknown="ignored")(context)
    assert state == {}
    return wanted


def test_the_load_of_all_replicas_counts() -> None:
    loads = reported(EngineLoad(waiting=10, running=5), EngineLoad(waiting=6, running=5))
    assert policy(Context(aggregated_metrics=loads)) == 4


@pytest.mark.parametrize(
    "metrics",
    [None, {}, {WAITING: {"r1": 9.0}}, {RUNNING: {"r1": 9.0}}, {WAITING: {}, RUNNING: {}}],
    ids=["none", "empty", "no-running", "no-waiting", "nobody-reported"],
)
def test_without_reports_everything_stays(metrics: dict[str, dict[str, float]] | None) -> None:
    assert policy(Context(aggregated_metrics=metrics)) == 3


def test_requests_open_on_the_port_count_before_the_engine_knows_them() -> None:
    assert policy(Context(aggregated_metrics=reported(EngineLoad(open_requests=5), EngineLoad()))) == 2


def test_open_requests_may_be_missing() -> None:
    assert policy(Context(aggregated_metrics={WAITING: {"r1": 0.0}, RUNNING: {"r1": 9.0}})) == 2


@pytest.mark.parametrize(("requests", "wanted"), [(0.0, 0), (1.0, 1)], ids=["nobody-calls", "a-wake-call-waits"])
def test_a_sleeping_variant_wakes_for_a_call(requests: float, wanted: int) -> None:
    assert policy(Context(current_num_replicas=0, target_num_replicas=0, total_num_requests=requests)) == wanted


def test_signals_are_flat_numbers() -> None:
    load = EngineLoad(waiting=1, running=2, kv_cache_usage_ratio=0.5, open_requests=4)
    assert engine_signals(load) == {WAITING: 1.0, RUNNING: 2.0, OPEN: 4.0, "manta_kv_cache_usage_ratio": 0.5}
