from __future__ import annotations

from collections import Counter

import pytest

from serve_app.rollout.histogram import Histogram
from serve_app.rollout.telemetry import FAILURES, Outcome, ShadowStats, VariantStats, Waiting


def histogram(*durations_s: float) -> Histogram:
    made = Histogram()
    for each in durations_s:
        made.observe(each)
    return made


def stats(number: int) -> VariantStats:
    return VariantStats(
        outcomes=Counter({Outcome.OK: number}),
        finish_reasons=Counter({"stop": number}),
        tokens=10 * number,
        ttft=histogram(*[0.1] * number),
        gaps=histogram(*[0.02] * number),
        itl=histogram(*[0.03] * number),
        e2e=histogram(*[4.0] * number),
    )


@pytest.mark.parametrize("outcome", sorted(FAILURES))
def test_a_failure_is_judged_and_held_against_the_variant(outcome: Outcome) -> None:
    made = VariantStats(outcomes=Counter({outcome: 2, Outcome.OK: 3}))
    assert (made.failures, made.judged) == (2, 5)


@pytest.mark.parametrize("outcome", [Outcome.REJECTED, Outcome.CANCELLED, Outcome.ABANDONED])
def test_what_is_no_fault_of_the_variant_is_not_judged(outcome: Outcome) -> None:
    made = VariantStats(outcomes=Counter({outcome: 2}))
    assert (made.failures, made.judged) == (0, 0)


def test_merged_stats_are_the_sum_of_all_that_was_counted() -> None:
    assert VariantStats.merged([stats(1), stats(2)]) == stats(3)


def test_merging_leaves_the_other_as_it_was() -> None:
    other = stats(2)
    stats(1).merge(other)
    assert other == stats(2)


def test_waiting_attempts_of_all_routers_add_up() -> None:
    made = Waiting(first=histogram(1.0), whole=histogram(1.0, 2.0))
    made.merge(Waiting(first=histogram(3.0), gap=histogram(0.5)))
    assert made == Waiting(first=histogram(1.0, 3.0), whole=histogram(1.0, 2.0), gap=histogram(0.5))


def test_shadows_of_all_routers_add_up() -> None:
    made = ShadowStats(3, Counter(busy=1), Counter(timeout=1), 2, 1, 1.5, histogram(0.1), histogram(0.2))
    made.merge(ShadowStats(1, Counter(busy=1, shed=1), Counter(), 1, 1, 1.0, histogram(0.1), Histogram()))
    assert made == ShadowStats(4, Counter(busy=2, shed=1), Counter(timeout=1), 3, 2, 2.5, histogram(0.1, 0.1), histogram(0.2))
