from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from serve_app.errors import RolloutConflict
from serve_app.rollout.load_tests import MOST_SCENARIOS, KeptResult, KeptResults, LoadTestResult
from tests.unit.serve_app.load_testing import document, result


def kept(received_s: float = 1.0, **changes: Any) -> KeptResult:
    return KeptResult(received_s=received_s, by="ci", result=result(**changes))


def test_the_last_result_of_each_scenario_is_kept() -> None:
    found = KeptResults().with_one(kept(1.0)).with_one(kept(2.0, scenario="rag")).with_one(kept(3.0, ended_s=1050.0))
    assert [(each.received_s, each.result.scenario) for each in found.results] == [(3.0, "smoke"), (2.0, "rag")]
    assert found.by_scenario()["smoke"].ended_s == 1050.0


def test_the_same_result_may_come_again() -> None:
    assert KeptResults().with_one(kept(1.0)).with_one(kept(2.0)) == KeptResults(results=(kept(2.0),))


def test_an_earlier_run_does_not_replace_a_later_one() -> None:
    with pytest.raises(RolloutConflict, match="a later run of load test 'smoke'"):
        KeptResults().with_one(kept(1.0, ended_s=1050.0)).with_one(kept(2.0))


def test_of_too_many_scenarios_the_oldest_goes() -> None:
    found = KeptResults()
    for number in range(MOST_SCENARIOS + 2):
        found = found.with_one(kept(float(number), scenario=f"s{number}"))
    assert len(found.results) == MOST_SCENARIOS
    assert {"s0", "s1"} & set(found.by_scenario()) == set()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"ended_s": 1.0}, "ended_s: the run ended at 1.0, before it began", id="times"),
        pytest.param({"verdict": "failed"}, "verdict: 'failed', but 0 of the gates have failed", id="verdict"),
        pytest.param({"verdict": "none"}, "Input should be 'passed' or 'failed'", id="no-verdict"),
        pytest.param({"gates": []}, "at least 1 item", id="no-gates"),
        pytest.param({"begun_s": float("nan")}, "finite number", id="no-number"),
        pytest.param({"figures": {}}, "Extra inputs", id="unknown"),
        pytest.param({"format": 2}, "Input should be 1", id="format"),
    ],
)
def test_a_result_that_contradicts_itself_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        LoadTestResult.model_validate(document(**changes))
    assert said in str(caught.value)
