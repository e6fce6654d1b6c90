from __future__ import annotations

import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.rollout.histogram import GROWTH, LOWEST_S, Histogram, bucket_end_s, bucket_index

durations = st.floats(2 * LOWEST_S, 1e4)


def histogram(*durations_s: float) -> Histogram:
    made = Histogram()
    for each in durations_s:
        made.observe(each)
    return made


@given(durations)
def test_a_bucket_ends_less_than_five_percent_over_what_it_holds(duration_s: float) -> None:
    end_s = bucket_end_s(bucket_index(duration_s))
    assert duration_s * (1 - 1e-6) <= end_s <= duration_s * GROWTH * (1 + 1e-6)


@given(st.integers(0, 400))
def test_the_end_of_a_bucket_lies_in_it(index: int) -> None:
    assert bucket_index(bucket_end_s(index)) == index


@pytest.mark.parametrize("duration_s", [-1.0, 0.0, 1e-9], ids=["negative", "none", "tiny"])
def test_what_is_below_the_first_bucket_counts_there(duration_s: float) -> None:
    assert histogram(duration_s).pairs() == [(0, 1)]


def test_days_and_years_share_the_last_bucket() -> None:
    assert bucket_index(1e6) == bucket_index(1e9)


@given(st.lists(durations, min_size=1, max_size=50), st.floats(0.01, 1))
def test_a_quantile_is_that_of_the_values_rounded_up(values: list[float], q: float) -> None:
    exact = sorted(values)[max(1, math.ceil(q * len(values))) - 1]
    assert histogram(*values).quantile(q) == bucket_end_s(bucket_index(exact))


@pytest.mark.parametrize("rank", [0, 3], ids=["before-the-first", "after-the-last"])
def test_there_is_no_value_at_a_rank_that_was_not_observed(rank: int) -> None:
    assert histogram(1.0, 2.0).value_at(rank) is None


def test_nothing_has_no_quantile() -> None:
    assert Histogram().quantile(0.5) is None


def test_over_counts_what_is_in_later_buckets_than_the_threshold() -> None:
    assert [histogram(1.0, 1.01, 2.0, 4.0).over(threshold_s) for threshold_s in (0.5, 1.01, 2.0, 5.0)] == [4, 2, 1, 0]


@given(st.lists(durations, max_size=20), st.lists(durations, max_size=20))
def test_merged_histograms_are_the_histogram_of_both(left: list[float], right: list[float]) -> None:
    merged = Histogram.merged([histogram(*left), histogram(*right)])
    assert (merged, merged.total) == (histogram(*left, *right), len(left) + len(right))


def test_pairs_make_the_same_histogram_again() -> None:
    made = histogram(0.1, 0.1, 7.0)
    assert Histogram(made.pairs()) == made


def test_a_histogram_survives_being_pickled() -> None:
    made = histogram(0.1, 0.1, 7.0)
    again = pickle.loads(pickle.dumps(made))  # noqa: S301 - our own
    assert (again, again.total) == (made, 3)


def test_a_histogram_equals_only_histograms() -> None:
    assert Histogram() != {}
