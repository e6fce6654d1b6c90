from __future__ import annotations

from typing import Any

import pytest

from loadtests.scenario import Shape
from loadtests.shapes import level_at, stage_index, stages


def shape(**fields: Any) -> Shape:
    return Shape.model_validate(fields)


@pytest.mark.parametrize(
    ("made", "levels"),
    [
        pytest.param(shape(kind="constant", level=3), [3, 3, 3, 3, 3], id="constant"),
        pytest.param(shape(kind="step", levels=[1, 5]), [1, 1, 5, 5, 5], id="step"),
        pytest.param(shape(kind="ramp", level=2, peak=8, steps=4), [2, 4, 6, 8, 8], id="ramp"),
        pytest.param(shape(kind="spike", level=1, peak=10, spike_at=0.25, spike_for=0.25), [1, 10, 1, 1, 1], id="spike"),
        pytest.param(shape(kind="diurnal", level=2, peak=6), [2, 4, 6, 4, 2], id="diurnal"),
        pytest.param(shape(kind="diurnal", level=2, peak=6, period=50), [2, 6, 2, 6, 2], id="diurnal-twice"),
    ],
)
def test_a_shape_has_its_levels(made: Shape, levels: list[float]) -> None:
    assert [level_at(made, at_s, 100.0) for at_s in (0, 25, 50, 75, 100)] == pytest.approx(levels)


def test_the_warm_up_has_the_level_of_the_begin() -> None:
    assert level_at(shape(kind="ramp", level=2, peak=8), -30.0, 100.0) == 2


def test_stages_are_the_spans_of_one_level() -> None:
    found = stages(shape(kind="ramp", level=10, peak=30, steps=3), 60.0)
    assert [(each.begin_s, each.end_s, each.level) for each in found] == [(0, 20, 10), (20, 40, 20), (40, 60, 30)]
    assert [stage_index(found, at_s) for at_s in (-1, 0, 19.9, 20, 59, 60)] == [None, 0, 0, 1, 2, None]


def test_a_level_that_moves_on_and_on_has_no_stages() -> None:
    assert stages(shape(kind="diurnal", level=1, peak=2), 60.0) == ()
