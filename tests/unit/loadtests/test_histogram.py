from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.histogram import Histogram


def of(*durations_s: float) -> Histogram:
    made = Histogram()
    for duration_s in durations_s:
        made.observe(duration_s)
    return made


@given(st.lists(st.floats(1e-4, 1e3), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_a_quantile_is_within_half_a_percent(durations_s: list[float], q: float) -> None:
    rank = max(1, math.ceil(q * len(durations_s)))
    assert of(*durations_s).quantile(q) == pytest.approx(sorted(durations_s)[rank - 1], rel=0.0055)


def test_many_at_once_count_as_one_by_one() -> None:
    durations_s = np.random.default_rng(3).lognormal(-3, 2, size=500)
    together = Histogram()
    together.observe_all(durations_s)
    one_by_one = of(*durations_s.tolist())
    assert (together.counts == one_by_one.counts).all()
    assert together.sum_s == pytest.approx(one_by_one.sum_s)
    assert (together.least_s, together.greatest_s) == (one_by_one.least_s, one_by_one.greatest_s)


def test_what_never_ended_is_longer_than_all_that_did() -> None:
    made = of(*[0.1] * 90)
    made.endless = 10
    assert made.quantile(0.5) == pytest.approx(0.1, rel=0.01)
    assert made.quantile(0.95) == math.inf
    assert made.cumulated()[-1][1] == pytest.approx(0.9)


def test_nothing_has_no_quantile_and_no_mean() -> None:
    empty = Histogram()
    empty.observe_all(np.zeros(0))
    assert math.isnan(empty.quantile(0.5))
    assert math.isnan(empty.mean_s)
    assert empty.cumulated() == []


def test_zero_and_huge_durations_have_buckets() -> None:
    made = of(0.0, 1e9)
    assert made.quantile(0.5) == 0.0
    assert made.count == 2


def test_a_document_gives_the_histogram_back() -> None:
    made = of(0.1, 0.2, 0.2)
    made.endless = 2
    again = Histogram.from_json(made.to_json())
    assert again.to_json() == made.to_json()
    assert Histogram.from_json(Histogram().to_json()).least_s == math.inf


def test_merging_adds() -> None:
    made = of(0.1, 0.5)
    made.merge(of(0.05, 2.0))
    assert made.to_json() == of(0.1, 0.5, 0.05, 2.0).to_json()
