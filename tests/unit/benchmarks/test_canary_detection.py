from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.canary_detection import __main__ as command
from benchmarks.canary_detection.study import GATES, Run, baselines, simulate, study, summary
from benchmarks.canary_detection.traffic import CanaryTrace, Events, Service, baseline_trace, draw
from serve_app.rollout.histogram import Histogram
from serve_app.rollout.telemetry import Outcome, VariantStats
from serve_app.rollout.verdict import Verdict


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def trace(service: Service, seconds: int = 40) -> CanaryTrace:
    return CanaryTrace(service, 10.0, seconds=seconds, rng=rng())


def total(made: CanaryTrace, seconds: int = 40) -> VariantStats:
    return VariantStats.merged(made.second(number)[0] for number in range(seconds))


def test_a_fault_changes_what_it_says_and_nothing_else() -> None:
    usual, slow = (draw(Service(ttft_ratio=ratio), 1000, rng()) for ratio in (1.0, 2.0))
    assert np.allclose(slow.first, 2 * usual.first)
    assert np.array_equal(slow.itl, usual.itl)


def test_events_come_in_their_seconds() -> None:
    events = Events(np.array([0.2, 2.5, 2.6, 9.0]), np.array([7, 8, 8, 9]), 3)
    assert [events.second(number).pairs() for number in range(3)] == [[(7, 1)], [], [(8, 2)]]


def test_a_canary_gets_its_requests_and_fails_its_share() -> None:
    made = total(trace(Service(error_rate=0.5)))
    assert 300 < made.judged < 460
    assert made.failures / made.judged == pytest.approx(0.5, abs=0.1)


def test_what_hangs_is_open_and_grows_older() -> None:
    made = trace(Service(hang_rate=1.0))
    ages = [made.second(number)[1].first.value_at(made.second(number)[1].first.total) or 0.0 for number in (4, 19, 39)]
    assert ages == pytest.approx([5, 20, 40], rel=0.06)


def test_what_hangs_times_out_at_last() -> None:
    assert total(trace(Service(hang_rate=1.0), 90), 90).outcomes[Outcome.TIMEOUT] > 200


def test_a_baselines_windows_cover_a_minute_and_five_seconds() -> None:
    seen = baseline_trace(Service(), 100.0, seconds=20, rng=rng()).second(10)
    assert seen.long.judged == pytest.approx(6000, rel=0.1)
    assert seen.short.judged == pytest.approx(500, rel=0.2)


def test_canary_and_baseline_have_the_same_distribution() -> None:
    canary = total(CanaryTrace(Service(), 200.0, seconds=40, rng=rng()))
    long = baseline_trace(Service(), 200.0, seconds=2, rng=rng()).second(0).long
    for mine, theirs in ((canary.ttft, long.ttft), (canary.itl, long.itl), (canary.e2e, long.e2e)):
        assert mine.quantile(0.5) == pytest.approx(theirs.quantile(0.5), rel=0.06)
        assert mine.quantile(0.95) == pytest.approx(theirs.quantile(0.95), rel=0.11)


def test_open_requests_of_both_are_as_many() -> None:
    waiting = CanaryTrace(Service(), 200.0, seconds=40, rng=rng()).second(30)[1]
    theirs = baseline_trace(Service(), 200.0, seconds=2, rng=rng()).second(0).waiting
    assert theirs is not None
    assert waiting.whole.total == pytest.approx(theirs.whole.total, rel=0.15)


def test_a_run_ends_with_the_roll_back() -> None:
    baseline = baselines(50.0, 0.5, seconds=40, seed=1)[0]
    run = simulate(trace(Service(error_rate=1.0)), baseline, seconds=40)
    assert (run.verdict, run.gate) == (Verdict.ROLL_BACK, "error_rate")
    assert run.detected_s is not None
    assert run.detected_s < 10


def test_a_cell_counts_every_run_once() -> None:
    runs = [
        Run(Verdict.ROLL_BACK, "hang", 10, None),
        Run(Verdict.ROLL_BACK, "hang", 20, 5),
        Run(Verdict.PROMOTE, None, None, 7),
        Run(Verdict.WAIT, None, None, None),
    ]
    cell = summary("none", (50.0, 0.5), runs)
    assert (cell.rolled_back, cell.promoted, cell.waiting, cell.blamed) == (0.5, 0.25, 0.25, {"hang": 2})
    assert (cell.p50_s, cell.first_promoted_s) == (15.0, 6.0)


def test_the_same_seed_makes_the_same_study() -> None:
    first, again = (study(1, 5, rates=(10.0,), seconds=12, tell=lambda _: None) for _ in range(2))
    assert first == again


def test_the_command_prints_a_table_and_writes_its_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "canary.json"
    cells = study(1, 1, rates=(10.0,), seconds=5, tell=lambda _: None)
    monkeypatch.setattr(command, "study", lambda *_, **__: cells)
    monkeypatch.setattr(sys, "argv", ["canary_detection", "--runs", "1", "--out", str(out)])
    command.main()
    written = json.loads(out.read_text())
    assert capsys.readouterr().out.startswith("1 runs of each cell, seed 1, 5 % of the traffic, 600 s\n\n| fault |")
    assert (len(written["cells"]), written["gates"]) == (14, GATES.model_dump(mode="json"))


def test_a_row_has_a_dash_where_nothing_was_found() -> None:
    cell = summary("none", (50.0, 0.5), [Run(Verdict.WAIT, None, None, None)])
    assert command.row(cell) == "| none | 50 | 0.5 | 0.0 % | - / - / - | - | 0.0 % | 100.0 % | - |\n"


def test_histograms_of_an_empty_second_are_empty() -> None:
    assert Events(np.array([]), np.array([], dtype=np.int64), 2).second(1) == Histogram()
