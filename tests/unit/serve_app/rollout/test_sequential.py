from __future__ import annotations

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.rollout.sequential import (
    LATER_WEIGHT,
    NO_EVIDENCE,
    PLACES,
    START_WEIGHT,
    STEPS_WEIGHT,
    Acceptance,
    Evidence,
    Tally,
    fewest,
    increments,
    is_surprising,
    log_ratio,
    log_sum,
    upper_rank,
    upper_rate,
)

HEALTHY = Tally(5, 1000)


def binomial(bad: int, attempts: int, rate: float) -> float:
    return math.comb(attempts, bad) * rate**bad * (1 - rate) ** (attempts - bad)


def grow(evidence: Evidence, *, blocks: int, bad: int, attempts: int = 20) -> None:
    for _ in range(blocks):
        evidence.fold(increments(Tally(bad, attempts), HEALTHY, 0.02))


@pytest.mark.parametrize("attempts", [1, 10, 500])
def test_the_bound_after_no_failure_is_exact(attempts: int) -> None:
    assert upper_rate(Tally(0, attempts)) == pytest.approx(1 - 0.01 ** (1 / attempts), rel=1e-5)


@pytest.mark.parametrize("rate", [0.001, 0.02, 0.3, 0.9])
@pytest.mark.parametrize("attempts", [1, 7, 60, 300])
def test_the_bound_is_too_low_with_a_probability_of_at_most_one_percent(rate: float, attempts: int) -> None:
    too_low = [bad for bad in range(attempts + 1) if upper_rate(Tally(bad, attempts)) < rate]
    assert sum(binomial(bad, attempts, rate) for bad in too_low) <= 0.01


def test_nothing_observed_bounds_nothing() -> None:
    assert upper_rate(Tally()) == 1.0


def test_only_failures_bound_nothing() -> None:
    assert upper_rate(Tally(3, 3)) == pytest.approx(1.0)


@pytest.mark.parametrize("q", [0.5, 0.95])
def test_a_quantile_is_bounded_from_the_fewest_observations_on(q: float) -> None:
    ranks = [upper_rank(attempts, q) for attempts in (0, fewest(q) - 1, fewest(q))]
    assert ranks == [None, None, fewest(q)]


@pytest.mark.parametrize("q", [0.5, 0.95])
def test_the_value_at_the_bounds_rank_is_over_the_quantile_in_all_but_one_or_two_percent(q: float) -> None:
    rank = upper_rank(400, q)
    assert rank is not None
    assert sum(binomial(below, 400, q) for below in range(rank, 401)) < 0.015


def test_more_than_chance_explains_is_surprising() -> None:
    assert [is_surprising(Tally(bad, 100), 0.05) for bad in (5, 8, 9)] == [False, False, True]


def test_the_latest_part_of_a_window_may_hold_all_that_was_bad() -> None:
    assert [Tally(12, 100).latest(fraction) for fraction in (0.0, 0.1, 0.5)] == [(0, 0), (10, 10), (12, 50)]


@pytest.mark.parametrize("rates", [(0.02, 0.0), (0.02, 0.5), (0.7, 0.7)], ids=["allowed", "baseline-worse", "both-hit-alike"])
def test_a_blocks_e_value_is_at_most_one_on_average(rates: tuple[float, float]) -> None:
    mine, theirs = rates
    means = [
        sum(
            binomial(a, 6, mine) * binomial(b, 9, theirs) * math.exp(increments(Tally(a, 6), Tally(b, 9), 0.02)[place])
            for a in range(7)
            for b in range(10)
        )
        for place in range(len(PLACES))
    ]
    assert max(means) <= 1 + 1e-9


def test_a_margin_over_a_bad_baseline_is_no_evidence_either() -> None:
    means = [
        sum(
            binomial(a, 6, 0.6) * binomial(b, 9, 0.5) * math.exp(increments(Tally(a, 6), Tally(b, 9), 0.12, margin=0.1)[place])
            for a in range(7)
            for b in range(10)
        )
        for place in range(len(PLACES))
    ]
    assert max(means) <= 1 + 1e-9


@pytest.mark.parametrize(
    ("canary", "baseline", "allowed"),
    [(Tally(), HEALTHY, 0.1), (Tally(9, 9), HEALTHY, 1.0)],
    ids=["no-attempts", "everything-is-allowed"],
)
def test_what_says_nothing_is_no_evidence(canary: Tally, baseline: Tally, allowed: float) -> None:
    assert increments(canary, baseline, allowed) == NO_EVIDENCE


def test_without_a_baseline_a_block_never_speaks_against_the_canary() -> None:
    assert max(increments(Tally(50, 50), Tally(), 0.02)) == pytest.approx(0)


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)), max_size=20), st.floats(0, 1))
def test_evidence_stays_a_number_whatever_comes(blocks: list[tuple[int, int]], allowed: float) -> None:
    evidence = Evidence()
    for bad, good in blocks:
        evidence.fold(increments(Tally(bad, bad + good), HEALTHY, allowed))
    assert math.isfinite(evidence.level(NO_EVIDENCE))
    assert "Infinity" not in json.dumps(evidence.state())


def test_all_weights_together_are_at_most_one() -> None:
    evidence, total = Evidence(), 0.0
    for number in range(3000):
        total += evidence.state()["due"]
        evidence.fold(NO_EVIDENCE)
        if number % 100 == 0:
            evidence.begin_step()
    assert 0.9 < total <= START_WEIGHT + STEPS_WEIGHT + LATER_WEIGHT


def test_a_good_canary_seldom_reaches_the_bound_however_often_it_is_looked_at() -> None:
    rng, wrong = random.Random(1), 0  # noqa: S311 - chance, no secret
    for _ in range(200):
        evidence = Evidence()
        for _ in range(60):
            canary, baseline = (Tally(sum(rng.random() < 0.05 for _ in range(n)), n) for n in (8, 20))
            evidence.fold(increments(canary, baseline, 0.05))
            if evidence.level(NO_EVIDENCE) > math.log(1 / 0.05):
                wrong += 1
                break
    assert wrong <= 10


def test_a_fault_that_begins_late_is_found_as_if_the_good_past_were_not_there() -> None:
    evidence = Evidence()
    grow(evidence, blocks=500, bad=0)
    grow(evidence, blocks=2, bad=10)
    assert evidence.level(NO_EVIDENCE) > math.log(500)


def test_looking_at_a_block_keeps_nothing() -> None:
    evidence = Evidence()
    before = evidence.state()
    evidence.level(increments(Tally(9, 9), HEALTHY, 0.02))
    assert evidence.state() == before


def test_a_block_that_is_bad_goes_on_with_the_blame_and_a_good_one_ends_it() -> None:
    evidence = Evidence()
    said = [evidence.fold(increments(Tally(bad, 200), HEALTHY, 0.02)) for bad in (0, 20, 0, 0, 0, 0, 0)]
    assert (said[:3], said[-1]) == ([False, True, True], False)


def test_restored_evidence_goes_on_as_if_nothing_had_been() -> None:
    kept, again = Evidence(), Evidence()
    grow(kept, blocks=3, bad=2)
    kept.begin_step()
    again.restore(json.loads(json.dumps(kept.state())))
    for each in (kept, again):
        grow(each, blocks=2, bad=1)
    assert again.state() == kept.state()


def test_evidence_at_other_places_is_refused() -> None:
    with pytest.raises(ValueError, match="1 places"):
        Evidence().restore({"logs": [0.0], "blocks": 0, "steps": 0, "due": 0.5})


def test_a_ratio_of_likelihoods_is_over_one_for_what_fits_better() -> None:
    assert log_ratio(Tally(1, 2), 0.5, 0.25) == pytest.approx(math.log(0.25 / (0.25 * 0.75)))


def test_a_sum_of_logarithms_does_not_overflow() -> None:
    assert log_sum([1000.0, 1000.0]) == pytest.approx(1000 + math.log(2))


def test_a_canary_worth_catching_passes_seldom() -> None:
    rng, passed = random.Random(2), 0  # noqa: S311 - chance, no secret
    for _ in range(300):
        acceptance = Acceptance(power=0.9)
        for _ in range(100):
            acceptance.fold(log_ratio(Tally(sum(rng.random() < 0.1 for _ in range(5)), 5), 0.05, 0.1))
            if acceptance.value >= acceptance.needed:
                passed += 1
                break
    assert passed <= 30


def test_a_good_past_is_worth_no_more_than_twice_what_is_needed() -> None:
    acceptance = Acceptance(power=0.9)
    acceptance.fold(1e6)
    assert acceptance.value == 2 * acceptance.needed
