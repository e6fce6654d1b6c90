from __future__ import annotations

import math

import pytest

from loadtests.figures import figures, wilson
from loadtests.outcomes import Outcome
from tests.unit.loadtests.fakes import failed, figures_of, run_of, sample, scenario, stream


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [(0, 0, 0.0, 1.0), (0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (100, 1000, 0.0829, 0.1201), (10, 10, 0.7225, 1.0)],
)
def test_wilsons_interval_is_that_of_the_books(count: int, of: int, low: float, high: float) -> None:
    assert wilson(count, of) == pytest.approx((low, high), abs=1e-4)


def test_throughput_counts_what_ended_within_the_run() -> None:
    seen = figures_of([stream(1.0), stream(2.0), stream(9.8), failed(3.0, Outcome.SERVER_ERROR)])
    assert seen.throughput.offered == pytest.approx(0.4)
    assert seen.throughput.answered == pytest.approx(0.2)  # the one sent at 9.8 ended after the run
    assert seen.throughput.tokens == pytest.approx(0.6)
    assert (seen.total.requests, seen.total.ok, seen.total.error_rate) == (4, 3, 0.25)


def test_percentiles_are_of_all_that_waited() -> None:
    seen = figures_of([*(stream(0.1 * number) for number in range(9)), failed(2.0, Outcome.TIMEOUT)])
    assert seen.total.times["ttft"].p50_s == pytest.approx(0.5, rel=0.006)
    assert seen.total.times["ttft"].p95_s == math.inf
    assert seen.total.times["ttft"].endless == 1


def test_nothing_seen_gives_no_rate() -> None:
    seen = figures_of([])
    assert math.isnan(seen.total.error_rate)
    assert math.isnan(seen.total.times["ttft"].p95_s)
    assert [part.name for part in seen.entries] == ["chat"]


def test_shares_stand_beside_the_weights_that_were_reported() -> None:
    seen = [stream(0.01 * number, variant=("chat", "canary" if number % 10 == 0 else "stable")) for number in range(100)]
    looks = [sample(1, {"chat/canary": 5, "chat/stable": 90, "chat/third": 5}), sample(2, {"chat/canary": 15, "other/x": 100})]
    found = {share.variant: share for share in figures_of(seen, samples=looks).shares}
    assert {name: share.conversations for name, share in found.items()} == {"canary": 10, "stable": 90, "third": 0}
    # The canary's weight moved: its mean counts.
    assert {name: share.weight for name, share in found.items()} == {"canary": 0.10, "stable": 0.90, "third": 0.05}
    assert found["canary"].interval == pytest.approx(wilson(10, 100))


def test_looks_after_the_run_do_not_count() -> None:
    seen = figures_of([stream(0, variant=("chat", "stable"))], samples=[sample(-1), sample(5), sample(11, {"chat/stable": 1})])
    assert [each["at_s"] for each in seen.samples] == [5]
    assert seen.shares[0].weight is None


def test_the_knee_is_where_more_load_brings_mostly_longer_waits() -> None:
    asked = scenario(load={"mode": "open", "shape": {"kind": "ramp", "level": 1, "peak": 3, "steps": 3}}, duration=9)
    rates = {0: (3, 0.5), 1: (6, 0.6), 2: (7, 2.2)}  # stage -> (answers, seconds to the first token)
    seen = [stream(3 * stage + 0.01 * n, ttft_s=wait) for stage, (many, wait) in rates.items() for n in range(many)]
    found = figures(asked, run_of(asked, seen)).stages
    assert [each.is_knee for each in found] == [False, True, False]
    assert [each.requests_per_s for each in found] == pytest.approx([1.0, 2.0, 7 / 3])


def test_a_ramp_that_ended_early_has_the_stages_that_began() -> None:
    asked = scenario(load={"mode": "open", "shape": {"kind": "ramp", "level": 1, "peak": 3, "steps": 3}}, duration=9)
    assert len(figures(asked, run_of(asked, [stream(1.0)], measured_s=4.0)).stages) == 2
    assert not any(each.is_knee for each in figures(asked, run_of(asked, [], measured_s=9.0)).stages)
