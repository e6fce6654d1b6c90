from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from autoscaling.observation import Observation
from autoscaling.simulation.trace import Draw, Trace, poisson
from benchmarks.autoscaling import __main__ as command
from benchmarks.autoscaling import compare, study
from benchmarks.autoscaling.compare import Run, Score, cheapest, cheapest_for_all, saving, scores
from benchmarks.autoscaling.contestants import HPA_USE, MANTA, OURS, RAY, Contestant, contestants
from benchmarks.autoscaling.instant import Instant
from benchmarks.autoscaling.scenarios import MODEL, SCENARIOS, Scenario
from benchmarks.autoscaling.tables import report
from serve_app.config_scaling import AutoscalingConfig


def run(label: str, attainment: float, replica_s: float, *, trace: str = "poisson", seed: int = 1) -> Run:
    family = label.split()[0]
    return Run(trace, seed, family, label, (), attainment, replica_s, reversals=seed, ttft_p99_s=1.0)


def tiny() -> Scenario:
    return replace(
        SCENARIOS["poisson"], duration_s=21.0, warm_up_s=0.0, draw=lambda of, draw: poisson(20.0, of.duration_s, draw=draw)
    )


def of_trace(*runs: Run) -> dict[str, Score]:
    return scores(runs)["poisson"]


def test_a_score_has_the_mean_and_the_worst_of_its_seeds() -> None:
    score = of_trace(run("ray a", 1.0, 10.0), run("ray a", 0.9, 30.0, seed=2))["ray a"]
    assert (score.attainment, score.worst_attainment, score.replica_s) == (0.95, 0.9, 20.0)
    assert (score.reversals, score.most_reversals, score.most_reversals_after_change) == (1.5, 2, None)


@pytest.mark.parametrize(
    ("least", "label"),
    [
        pytest.param(0.98, "ray b", id="the-cheapest-of-two"),
        pytest.param(0.995, "ray a", id="only-one-reaches-it"),
        pytest.param(0.9999, None, id="none-reaches-it"),
    ],
)
def test_the_cheapest_that_reaches_an_attainment(least: float, label: str | None) -> None:
    found = of_trace(run("ray a", 0.999, 20.0), run("ray b", 0.99, 10.0), run("hpa c", 1.0, 1.0))
    chosen = cheapest(found, "ray", attainment=least)
    assert (chosen and chosen.label) == label


def test_the_best_of_equals_is_the_cheapest() -> None:
    found = of_trace(run("ray a", 0.9, 20.0), run("ray b", 0.9, 10.0), run("ray c", 0.8, 1.0))
    best = compare.best(found, "ray")
    assert best is not None
    assert best.label == "ray b"
    assert compare.best(found, "hpa") is None


def two_traces(*, frugal_attainment: float) -> list[Run]:
    return [
        *(run("oracle", 1.0, 10.0, trace=trace) for trace in ("poisson", "step")),
        *(run("manta", 0.99, 11.0, trace=trace) for trace in ("poisson", "step")),
        *(run("ray lavish", 1.0, 20.0, trace=trace) for trace in ("poisson", "step")),
        run("ray frugal", 1.0, 12.0),
        run("ray frugal", frugal_attainment, 12.0, trace="step"),
    ]


@pytest.mark.parametrize(
    ("attainment", "label"),
    [
        pytest.param(0.985, "ray frugal", id="within-a-point-on-every-trace"),
        pytest.param(0.97, "ray lavish", id="too-bad-on-one-trace"),
    ],
)
def test_one_setting_for_all_is_no_worse_on_any_trace(attainment: float, label: str) -> None:
    found = scores(two_traces(frugal_attainment=attainment))
    assert cheapest_for_all(found, "ray", "manta", oracle="oracle") == label


def test_there_may_be_no_setting_for_all() -> None:
    runs = [each for each in two_traces(frugal_attainment=0.5) if each.label != "ray lavish"]
    assert cheapest_for_all(scores(runs), "ray", "manta", oracle="oracle") is None


def test_a_saving_is_taken_seed_by_seed() -> None:
    runs = [run("manta", 0.99, 8.0), run("ray", 0.99, 10.0), run("manta", 0.99, 12.0, seed=2), run("ray", 0.99, 10.0, seed=2)]
    saved = saving(runs, "poisson", "ray", ours="manta")
    assert [saved.mean, saved.worst] == pytest.approx([0.0, -0.2])


def test_ours_comes_with_its_defaults_and_once() -> None:
    ours = [each for each in contestants(with_frontier=True) if each.family == MANTA]
    defaults = AutoscalingConfig()
    assert ours[0] == OURS
    assert dict(OURS.settings) == {name: getattr(defaults, name) for name, _ in OURS.settings}
    assert len(set(ours)) == len(ours)


def test_every_setting_of_rays_is_tried() -> None:
    assert sum(each.family == RAY for each in contestants(with_frontier=False)) == 36


def test_kubernetes_autoscaler_takes_what_it_finds_for_its_first_recommendation() -> None:
    scenario = tiny()
    hpa = Contestant(HPA_USE, (("target", 0.6),)).policy(scenario, scenario.trace(1))
    idle = Observation(now_s=0.0, target=5, ready=5, slots=64)
    assert [hpa.wanted(replace(idle, now_s=at_s)) for at_s in (1.0, 299.0)] == [5, 5]
    assert hpa.wanted(replace(idle, now_s=400.0)) < 5


def instant(name: str) -> tuple[Instant, Scenario, Trace]:
    scenario = SCENARIOS[name]
    trace = poisson(1.0, 10.0, draw=Draw(1))
    return Instant(scenario, trace, drain_s=60.0), scenario, trace


def test_the_instant_policy_follows_the_rate_and_foresees_nothing() -> None:
    policy, scenario, _ = instant("step")
    at_s = scenario.change_s
    assert at_s is not None
    seen = Observation(now_s=at_s - 1, target=2, ready=2, slots=64)
    before, after = (policy.wanted(replace(seen, now_s=now_s)) for now_s in (at_s - 1, at_s))
    assert before <= 2
    assert after > 4 * before


def test_the_instant_policy_works_off_what_waits() -> None:
    policy, *_ = instant("poisson")
    seen = Observation(now_s=10.0, target=5, ready=5, slots=64)
    assert policy.wanted(replace(seen, waiting=1000.0)) > policy.wanted(seen)


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_a_trace_comes_as_often_as_its_scenario_says(name: str) -> None:
    scenario = SCENARIOS[name].quick()
    expected = sum(scenario.rate_at((second + 0.5) / scenario.duration_s) for second in range(int(scenario.duration_s)))
    counts = [len(scenario.trace(seed)) for seed in range(1, 6)]
    assert sum(counts) / len(counts) == pytest.approx(expected, rel=0.1)


def test_the_traces_are_those_that_the_page_names() -> None:
    jumps = {name: each.change_s for name, each in SCENARIOS.items() if each.change_s is not None}
    assert jumps == {"step": pytest.approx(1200.0), "spike": 1800.0}
    assert {each.options.warm_up_s for each in SCENARIOS.values()} == {600.0}


def test_a_run_counts_reversals_after_a_jump_only_where_there_is_one() -> None:
    runs = [study.play(each, each.trace(1), OURS, seed=1)[0] for each in (tiny(), replace(tiny(), change=0.5))]
    assert [each.reversals_after_change for each in runs] == [None, 0]


def test_runs_are_saved_and_found_again(tmp_path: Path) -> None:
    runs = [replace(run("ray a", 0.9, 1.0), settings=(("target_ongoing_requests", 16.0),))]
    study.save(runs, tmp_path / "runs.json")
    assert study.load(tmp_path / "runs.json") == runs
    assert study.load(tmp_path / "none.json") == []


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "SCENARIOS", {"poisson": replace(tiny(), duration_s=tiny().duration_s * 20)})
    monkeypatch.setattr(study, "WINDOWS_S", (0.0,))


@pytest.mark.usefixtures("small")
def test_the_command_plays_writes_and_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, html = tmp_path / "runs.json", tmp_path / "runs.html"
    asked = ["--quick", "--trace", "poisson", "--seeds", "1", "--json", str(runs), "--html", str(html)]
    command.main(asked)
    first = capsys.readouterr()
    command.main(asked[:-2])
    again = capsys.readouterr()
    assert first.out.startswith("Seeds 1; ")
    assert (again.out, again.err) == (first.out, "")
    assert {each["family"] for each in json.loads(runs.read_text())["runs"]} >= {"oracle", MANTA, RAY, "instant"}
    assert OURS.label in html.read_text()


def test_the_report_says_where_ray_does_not_reach_ours() -> None:
    runs = [replace(run(OURS.label, 0.99, 8.0), family=MANTA), run("oracle", 1.0, 5.0), run("ray a", 0.9, 9.0)]
    said = report(runs)
    assert "| poisson | 99.00 | none reaches it | - | - | - |" in said
    assert "None of its settings is within a point of Manta's attainment on every trace." in said
    assert report([]) == ""


def test_the_presets_slots_and_start_are_those_that_the_page_names() -> None:
    assert (MODEL.slots, MODEL.startup_s) == (64, 90.0)
