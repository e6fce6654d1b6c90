from __future__ import annotations

from typing import Any

import pytest

from serve_app.config_rollouts import LoadTestGateConfig
from serve_app.rollout.gates import Verdict
from serve_app.rollout.load_test_gate import Step, read
from serve_app.rollout.load_tests import LoadTestResult
from tests.unit.serve_app.load_testing import FAILED, document, failed, traffic

GATE = LoadTestGateConfig(scenario="smoke", max_age=600)
STEP = Step("chat", "canary", 1000.0, {"canary": 10, "stable": 90}, {"canary": "c1", "stable": "s1"})


def verdict(found: dict[str, Any] | None, *, now_s: float = 1030.0) -> tuple[Verdict, str]:
    result = None if found is None else LoadTestResult.model_validate(found)
    reading = read(GATE, result, STEP, now_s=now_s)
    return reading.verdict, reading.reason


def test_a_run_of_this_step_that_passed_lets_it_go_on() -> None:
    assert verdict(document()) == (Verdict.PROMOTE, "load test smoke passed: 1 gates")


def test_a_run_of_this_step_that_failed_names_its_gates_and_figures() -> None:
    said = "load test smoke failed: error_rate (30 of 100 requests failed); ttft_p95 (TTFT p95 is 3 s (most 1.5 s))"
    assert verdict(failed()) == (Verdict.ROLL_BACK, said)


def test_of_many_failed_gates_the_first_are_named() -> None:
    many = [{"name": f"g{number}", "state": "failed"} for number in range(5)]
    assert verdict(document(verdict="failed", gates=many))[1] == "load test smoke failed: g0; g1; g2; 2 more"


def test_what_the_canary_did_in_the_run_are_the_figures() -> None:
    answered = [{"model": "chat", "variant": "canary", "requests": 10, "failures": 4}]
    reading = read(GATE, LoadTestResult.model_validate(failed(answered=answered)), STEP, now_s=1030.0)
    assert (reading.gate, reading.attempts, reading.bad, reading.observed_rate) == ("load_test", 10, 4, 0.4)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        pytest.param({"begun_s": 990.0}, "it began 10 s before this step", id="an-earlier-step"),
        pytest.param({"begin": traffic(revision="c0")}, "something else when it began: c0, now c1", id="another-canary"),
        pytest.param({"end": traffic(revision="c2")}, "something else when it ended: c2, now c1", id="replaced-meanwhile"),
        pytest.param({"begin": traffic(canary=5)}, "chat/canary had 5 % when it began, now 10 %", id="another-weight"),
        pytest.param({"end": traffic(canary=0)}, "chat/canary had 0 % when it ended, now 10 %", id="withdrawn-meanwhile"),
        pytest.param({"end": {**traffic(), "variants": []}}, "chat/canary was not there when it ended", id="not-there"),
        pytest.param({"answered": []}, "chat/canary answered nothing in it", id="unseen"),
    ],
)
@pytest.mark.parametrize("made", [document, failed], ids=["passed", "failed"])
def test_a_run_of_anything_else_counts_neither_way(made: Any, changes: dict[str, Any], why: str) -> None:
    found, reason = verdict(made(**changes))
    assert (found, reason.startswith("waits for load test smoke: the last run does not count"), why in reason) == (
        Verdict.WAIT,
        True,
        True,
    ), reason


def test_the_version_of_the_table_may_have_grown_by_another_models_weights() -> None:
    assert verdict(document(begin=traffic(version=2), end=traffic(version=9)))[0] is Verdict.PROMOTE


def test_without_a_result_it_waits() -> None:
    assert verdict(None) == (Verdict.WAIT, "waits for load test smoke: no result has been published")


@pytest.mark.parametrize(("now_s", "wanted"), [(1620.0, Verdict.PROMOTE), (1620.5, Verdict.WAIT)], ids=["just", "over"])
def test_a_result_counts_until_it_is_too_old(now_s: float, wanted: Verdict) -> None:
    assert verdict(document(), now_s=now_s)[0] is wanted


def test_reasons_of_gates_are_optional() -> None:
    assert verdict(document(verdict="failed", gates=[{**FAILED[0], "reason": ""}]))[1] == "load test smoke failed: error_rate"
