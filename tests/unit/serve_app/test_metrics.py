from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

import pytest

from serve_app import metrics
from serve_app.metrics import Metric
from serve_app.registry import Registry
from serve_app.rollout.histogram import GROWTH, bucket_end_s, bucket_index

EVERY = [each for each in vars(metrics).values() if isinstance(each, Metric)]
GROUPS = [each for each in vars(metrics).values() if isinstance(each, tuple) and all(isinstance(one, Metric) for one in each)]
HISTOGRAMS = [each for each in EVERY if each.kind == "histogram"]
UNITS = {"seconds", "bytes", "count", "ratio", "percent", "index", "info", "value", "hour"}
# Each has values from a closed set: what is deployed, or words of our own. Never an id of a request, a user or a tenant.
LABELS = set(
    "action deployment direction front gate limit model of outcome phase".split()  # noqa: SIM905
    + "pipeline priority reason signal stage state variant".split()  # noqa: SIM905
)
FOUR_DIGITS = 5e-4


def name(metric: Metric) -> str:
    return metric.name


@pytest.mark.parametrize("metric", EVERY, ids=name)
def test_a_name_says_what_and_in_which_unit(metric: Metric) -> None:
    assert re.fullmatch(r"manta_[a-z]+(_[a-z]+)+", metric.name)
    unit = metric.name.rpartition("_")[2]
    assert unit == "total" if metric.kind == "counter" else unit in UNITS


@pytest.mark.parametrize("metric", EVERY, ids=name)
def test_labels_are_from_a_closed_set(metric: Metric) -> None:
    assert set(metric.labels) <= LABELS
    assert len(set(metric.labels)) == len(metric.labels)


@pytest.mark.parametrize("metric", EVERY, ids=name)
def test_a_metric_says_what_it_means_in_a_sentence(metric: Metric) -> None:
    assert re.fullmatch(r"[A-Z1].*\.", metric.help)


def test_every_metric_belongs_to_the_one_part_that_has_it() -> None:
    assert Counter(metric for group in GROUPS for metric in group) == Counter(EVERY)
    assert len({metric.name for metric in EVERY}) == len(EVERY)


@pytest.mark.parametrize("metric", HISTOGRAMS, ids=name)
def test_ends_of_buckets_lie_on_the_grid_that_routers_count_on(metric: Metric) -> None:
    ends = metric.buckets
    assert ends == tuple(sorted(set(ends))) != ()
    if metric.name.endswith("_seconds"):
        # Half a step below an end is inside its bucket, however the end was rounded.
        assert ends == pytest.approx([bucket_end_s(bucket_index(end / GROWTH**0.5)) for end in ends], rel=FOUR_DIGITS)


def test_only_histograms_have_buckets() -> None:
    assert [metric.name for metric in EVERY if (metric.kind == "histogram") != bool(metric.buckets)] == []


def test_a_process_may_have_every_metric_at_once() -> None:
    registry = Registry()
    make = {"counter": registry.counter, "gauge": registry.gauge, "histogram": registry.histogram}
    for metric in EVERY:
        make[metric.kind](metric)
    assert len(list(registry.collect())) == len(EVERY)


@pytest.mark.parametrize(
    ("low_s", "high_s", "every"), [(1e-5, 1e-4, 1), (0.005, 130.0, 4), (0.0005, 130.0, 8)], ids=["all", "fourth", "eighth"]
)
def test_a_grid_lies_between_its_bounds(low_s: float, high_s: float, every: int) -> None:
    ends = metrics.grid(low_s, high_s, every=every)
    step = GROWTH**every
    assert ends[0] >= low_s > ends[0] / step * (1 - FOUR_DIGITS)
    assert ends[-1] <= high_s < ends[-1] * step * (1 + FOUR_DIGITS)
    assert [after / before for before, after in pairwise(ends)] == pytest.approx([step] * (len(ends) - 1), rel=2 * FOUR_DIGITS)
