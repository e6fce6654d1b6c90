from __future__ import annotations

import re
from typing import Any

import pytest

from autoscaling.simulation.options import SimulationOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_replicas": 0}, "max_replicas must be over 0, got 0"),
        ({"interval_s": 0}, "interval_s must be over 0, got 0"),
        ({"max_leases": 0}, "max_leases must be over 0, got 0"),
        ({"slo_ttft_s": 0}, "slo_ttft_s must be over 0, got 0"),
        ({"slo_itl_s": 0}, "slo_itl_s must be over 0, got 0"),
        ({"sample_s": 0}, "sample_s must be over 0, got 0"),
        ({"min_replicas": -1}, "min_replicas must be at least 0, got -1"),
        ({"delay_s": -1}, "delay_s must be at least 0, got -1"),
        ({"warm_up_s": -1}, "warm_up_s must be at least 0, got -1"),
        ({"finish_s": -1}, "finish_s must be at least 0, got -1"),
        ({"report_loss": 1.5}, "report_loss must be between 0 and 1, got 1.5"),
        (
            {"min_replicas": 2, "max_replicas": 4, "initial_replicas": 5},
            "initial_replicas must be between min_replicas 2 and max_replicas 4, got 5",
        ),
        (
            {"min_replicas": 5, "max_replicas": 4},
            "initial_replicas must be between min_replicas 5 and max_replicas 4, got 5",
        ),
    ],
)
def test_a_field_out_of_its_range_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        SimulationOptions(**options)


def test_replicas_start_at_the_minimum_unless_told_otherwise() -> None:
    assert SimulationOptions(min_replicas=3).first_replicas == 3
    assert SimulationOptions(min_replicas=3, initial_replicas=7).first_replicas == 7


def test_clamp_keeps_a_number_within_the_bounds() -> None:
    options = SimulationOptions(min_replicas=2, max_replicas=5)
    assert [options.clamp(replicas) for replicas in (-1, 2, 4, 9)] == [2, 2, 4, 5]
