from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaling.curve import FORGET, PRIOR, PRIOR_WEIGHT, ServiceCurve

LOOKS = st.lists(st.tuples(st.floats(0, 2), st.floats(0, 100)), min_size=1, max_size=50)


def curve_of(looks: list[tuple[float, float]]) -> ServiceCurve:
    curve = ServiceCurve()
    for utilization, service_s in looks:
        curve.add(utilization, service_s)
    return curve


def slope_of(curve: ServiceCurve) -> float:
    return curve.at(1.0, measured_s=1000.0, measured_at=0.0) - 1000.0


@given(looks=LOOKS)
def test_the_slope_is_that_of_weighted_ridge_regression(looks: list[tuple[float, float]]) -> None:
    x, y = np.array(looks).T
    weights = FORGET ** np.arange(len(looks))[::-1]
    mean_x, mean_y = np.average(x, weights=weights), np.average(y, weights=weights)
    shared, spread = (weights * (x - mean_x) * (y - mean_y)).sum(), (weights * (x - mean_x) ** 2).sum()
    expected = (max(0.0, shared) + PRIOR_WEIGHT * PRIOR * mean_y) / (spread + PRIOR_WEIGHT)
    assert slope_of(curve_of(looks)) == pytest.approx(expected, abs=1e-6)


@given(looks=LOOKS, measured_s=st.floats(0.01, 100), measured_at=st.floats(0, 2), less=st.floats(0, 2))
def test_a_fuller_replica_is_never_faster_and_an_emptier_one_at_most_twice_as_fast(
    looks: list[tuple[float, float]], measured_s: float, measured_at: float, less: float
) -> None:
    curve = curve_of(looks)
    at = [curve.at(measured_at + by, measured_s=measured_s, measured_at=measured_at) for by in (-less, 0.0, less)]
    assert at == sorted(at)
    assert at[1] == measured_s
    assert at[0] >= measured_s / 2


def test_without_a_look_nothing_is_added() -> None:
    assert slope_of(ServiceCurve()) == 0.0


def test_a_load_that_never_varied_leaves_the_prior() -> None:
    assert slope_of(curve_of([(0.5, 4.0)] * 1000)) == pytest.approx(4.0 * PRIOR)


@pytest.mark.parametrize("slope_s", [0.0, 1.0, 8.0])
def test_a_load_that_varies_teaches_the_slope(slope_s: float) -> None:
    looks = [(u, 4.0 + slope_s * u) for u in np.tile(np.linspace(0.1, 0.9, 60), 30).tolist()]
    assert slope_of(curve_of(looks)) == pytest.approx(slope_s, abs=0.15)


def test_an_engine_that_has_changed_is_learnt_anew() -> None:
    levels = np.tile(np.linspace(0.1, 0.9, 60), 300).tolist()
    before, after = [(u, 4.0 + 8.0 * u) for u in levels], [(u, 4.0 + u) for u in levels]
    assert slope_of(curve_of([*before, *after])) < 2.0 < 7.0 < slope_of(curve_of(before))
