from __future__ import annotations

import pytest

from autoscaling.simulation.timeline import Change, reversals

UP, DOWN = (1, 2), (2, 1)


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ([], 0),
        ([(0.0, UP)], 0),
        ([(0.0, UP), (10.0, UP)], 0),
        ([(0.0, UP), (10.0, DOWN)], 1),
        ([(0.0, UP), (600.0, DOWN), (1199.5, UP)], 1),
        ([(0.0, UP), (10.0, DOWN), (20.0, UP)], 2),
    ],
    ids=["none", "one", "same-way", "turn", "too-far-apart", "two-turns"],
)
def test_a_reversal_is_a_turn_within_the_window(changes: list[tuple[float, tuple[int, int]]], count: int) -> None:
    assert reversals([Change(time_s, before, after) for time_s, (before, after) in changes], 600.0) == count
