from __future__ import annotations

from typing import Any

import pytest

from loadtests.figures import figures
from loadtests.health import warnings
from loadtests.recorder import Recorder
from loadtests.scenario import Scenario
from tests.unit.loadtests.fakes import BEGIN_S, run_of, scenario, stream

CLOSED = {"mode": "closed", "shape": {"kind": "constant", "level": 2}}


def told(asked: Scenario, run: dict[str, Any]) -> list[str]:
    return list(warnings(asked, run, figures(asked, run)))


def test_a_run_that_can_be_trusted_has_no_warning() -> None:
    asked = scenario()
    assert told(asked, run_of(asked, [stream(1)])) == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"silent_workers": 1, "workers": 2}, "1 of 2 workers gave no last report"),
        ({"busy_s": {"0": 9.5}}, "used 95 % of a CPU"),
        ({"why_no_platform": "/admin/status: no"}, "no queue depth and replicas: /admin/status: no"),
    ],
)
def test_what_a_run_lacks_is_told(fields: dict[str, Any], said: str) -> None:
    asked = scenario()
    [warning] = told(asked, run_of(asked, [stream(1)], **fields))
    assert said in warning


def test_a_late_generator_is_told() -> None:
    asked = scenario()
    recorder = Recorder(asked, BEGIN_S, lambda _: None)
    recorder.lag(0.3)
    recorder.record(stream(1, sent_s=BEGIN_S + 1.2))
    run = run_of(asked, [], tally=recorder.take().to_json())
    late, sent = told(asked, run)
    assert "was late itself by up to 300 ms" in late
    assert "were sent up to 200 ms late" in sent


def test_pieces_that_came_together_are_told() -> None:
    asked = scenario()
    [warning] = told(asked, run_of(asked, [stream(1, coalesced=2)]))
    assert warning.startswith("67 % of the pieces came in one read")


def test_a_closed_loop_says_what_it_hides() -> None:
    asked = scenario(load=CLOSED)
    [warning] = told(asked, run_of(asked, [stream(1)]))
    assert warning.startswith("closed loop: users who wait send less")
