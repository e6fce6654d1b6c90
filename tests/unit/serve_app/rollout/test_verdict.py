from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.canary_detection.study import simulate
from benchmarks.canary_detection.traffic import CanaryTrace, Service, baseline_trace
from serve_app.config_rollouts import GatesConfig
from serve_app.rollout.histogram import Histogram
from serve_app.rollout.telemetry import Outcome, VariantStats, Waiting
from serve_app.rollout.verdict import Analysis, Assessment, Baselines, Verdict, assess

GATES = GatesConfig(ttft_p50_ratio=1.5, ttft_p95_ratio=1.5, itl_p95_ratio=1.5)
ALL_GATES = GatesConfig(ttft_p50_ratio=1.5, ttft_p95_ratio=1.5, itl_p50_ratio=1.5, itl_p95_ratio=1.5, e2e_p95_ratio=1.5)


@dataclass(frozen=True)
class Weather:
    """How a variant does in one second."""

    slow: float = 1.0
    errors: float = 0.002
    hangs: float = 0.0


FINE = Weather()


@dataclass
class World:
    """Two variants, a canary's share of so many requests a second, and what the gates are shown of them each second."""

    per_s: float
    share: float
    gates: GatesConfig = GATES
    seed: int = 1
    now_s: float = 0.0
    ticks: deque[VariantStats] = field(default_factory=lambda: deque(maxlen=60))

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)  # noqa: S311 - chance, no secret
        self.analysis = Analysis(self.gates)
        self.hung: tuple[list[float], list[float]] = ([], [])
        for _ in range(60):
            self.ticks.append(self.requests(1 - self.share, FINE, []))

    def requests(self, share: float, weather: Weather, hung: list[float]) -> VariantStats:
        made = VariantStats()
        for _ in range(sum(self.rng.random() < share for _ in range(round(self.per_s)))):
            if self.rng.random() < weather.hangs:
                hung.append(self.now_s)
            elif self.rng.random() < weather.errors:
                made.outcomes[Outcome.SERVER_ERROR] += 1
            else:
                made.outcomes[Outcome.OK] += 1
                for histogram, mean_s in ((made.ttft, 0.3), (made.itl, 0.03), (made.e2e, 3.0)):
                    histogram.observe(mean_s * weather.slow * self.rng.lognormvariate(0, 0.5))
        return made

    def second(self, canary: Weather, baseline: Weather = FINE) -> Assessment:
        mine, theirs = self.hung
        made = self.requests(self.share, canary, mine)
        self.ticks.append(self.requests(1 - self.share, baseline, theirs))
        self.now_s += 1
        return self.analysis.observe(made, self.waiting(mine), self.baselines(theirs), now_s=self.now_s)

    def baselines(self, hung: list[float]) -> Baselines:
        ticks = list(self.ticks)
        return Baselines(VariantStats.merged(ticks), VariantStats.merged(ticks[-5:]), self.waiting(hung))

    def waiting(self, hung: list[float]) -> Waiting:
        ages = Histogram()
        for since_s in hung:
            ages.observe(self.now_s - since_s)
        return Waiting(first=ages, whole=ages)

    def run(self, seconds: int, canary: Weather = FINE, baseline: Weather = FINE) -> list[Verdict]:
        return [self.second(canary, baseline).verdict for _ in range(seconds)]


def stats(ok: int, failed: int = 0) -> VariantStats:
    made = VariantStats()
    made.outcomes.update({Outcome.OK: ok, Outcome.SERVER_ERROR: failed})
    for i in range(ok):
        for histogram in (made.ttft, made.itl, made.e2e):
            histogram.observe(0.1 + 0.3 * i / ok)
    return made


def test_a_canary_like_the_baseline_is_rolled_back_in_less_than_one_of_a_hundred_rollouts() -> None:
    rng = np.random.default_rng(7)
    traces = [baseline_trace(Service(), 47.5, seconds=45, rng=rng) for _ in range(20)]
    runs = [
        simulate(CanaryTrace(Service(), 2.5, seconds=45, rng=rng), traces[i % 20], seconds=45, gates=ALL_GATES)
        for i in range(1000)
    ]
    assert sum(run.verdict is Verdict.ROLL_BACK for run in runs) < 10


def test_long_answers_that_fail_at_once_and_succeed_late_are_no_reason_to_roll_back() -> None:
    rng, long_answers = np.random.default_rng(8), Service(itl_ratio=12.0)
    trace = baseline_trace(long_answers, 475.0, seconds=40, rng=rng)
    runs = [simulate(CanaryTrace(long_answers, 25.0, seconds=40, rng=rng), trace, seconds=40) for _ in range(20)]
    assert {run.verdict for run in runs} == {Verdict.WAIT}


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9], ids=["small-canary", "half", "large-canary"])
@pytest.mark.parametrize(
    "weather",
    [Weather(errors=0.5), Weather(errors=1.0), Weather(slow=3.0), Weather(slow=20.0), Weather(hangs=0.3), Weather(hangs=1.0)],
    ids=["errors", "outage", "slow", "very-slow", "hangs", "everything-hangs"],
)
def test_what_hits_both_alike_is_not_held_against_the_canary(share: float, weather: Weather) -> None:
    for seed, seconds in enumerate((1, 3, 12)):
        world = World(100, share, seed=seed)
        world.run(6)
        assert Verdict.ROLL_BACK not in world.run(seconds, weather, weather) + world.run(12)


@pytest.mark.parametrize(
    "weather", [Weather(errors=0.5), Weather(slow=5.0), Weather(hangs=1.0)], ids=["errors", "slow", "hangs"]
)
def test_a_fault_of_the_canarys_is_found_in_seconds(weather: Weather) -> None:
    world = World(50, 0.05)
    world.run(10)
    assert Verdict.ROLL_BACK in world.run(20, weather)


def test_a_fault_that_begins_after_a_long_good_time_is_found_as_well() -> None:
    world = World(50, 0.05)
    assert world.run(180)[-1] is Verdict.PROMOTE
    assert Verdict.ROLL_BACK in world.run(30, Weather(errors=0.3))


def test_a_fault_under_an_outage_of_both_is_found_when_the_outage_is_over() -> None:
    world = World(50, 0.05)
    world.run(10, Weather(errors=0.5), Weather(errors=0.5))
    assert Verdict.ROLL_BACK in world.run(30, Weather(errors=0.5))


def test_hangs_are_noticed_in_half_a_minute_without_any_gate_on_latency() -> None:
    world = World(50, 0.05, GatesConfig(error_rate=None))
    assert Verdict.ROLL_BACK in world.run(30, Weather(hangs=1.0))


def test_what_rolls_back_says_so_and_the_others_do_not() -> None:
    world = World(50, 0.05)
    made = next(a for a in iter(lambda: world.second(Weather(errors=0.6)), None) if a.verdict is Verdict.ROLL_BACK)
    assert [reading.gate for reading in made.readings if reading.verdict is Verdict.ROLL_BACK] == ["error_rate"]


def test_little_traffic_waits_and_does_not_guess() -> None:
    assert set(World(1, 0.05).run(120)) == {Verdict.WAIT}


def test_a_good_canary_goes_on_when_it_had_enough_requests() -> None:
    said = World(50, 0.2, GatesConfig()).run(60)
    assert (said[0], said[-1]) == (Verdict.WAIT, Verdict.PROMOTE)


def test_a_new_step_waits_for_requests_of_its_own() -> None:
    world = World(50, 0.2, GatesConfig())
    world.run(60)
    world.analysis.begin_step()
    assert world.second(FINE).verdict is Verdict.WAIT


def test_a_restart_keeps_the_evidence() -> None:
    world = World(50, 0.05)
    world.run(15, Weather(errors=0.1))
    again = Analysis(GATES)
    again.restore(json.loads(json.dumps(world.analysis.state())))
    assert again.state() == world.analysis.state()


def test_a_restored_analysis_rolls_back_sooner_than_a_new_one() -> None:
    def found_after_s(*, is_restored: bool) -> int:
        world = World(50, 0.05)
        world.run(15, Weather(errors=0.12))
        kept, world.analysis = world.analysis.state(), Analysis(GATES)
        if is_restored:
            world.analysis.restore(json.loads(json.dumps(kept)))
        return world.run(120, Weather(errors=0.12)).index(Verdict.ROLL_BACK)

    assert found_after_s(is_restored=True) < found_after_s(is_restored=False)


@pytest.mark.parametrize(
    "change",
    [
        lambda _: {},
        lambda state: state | {"config": GatesConfig().model_dump(mode="json")},
        lambda state: state | {"gates": {}},
        lambda state: state | {"gates": state["gates"] | {"hang": {"evidence": None}}},
        lambda state: state | {"gates": state["gates"] | {"hang": state["gates"]["hang"] | {"step": [1, 2, 3]}}},
    ],
    ids=["empty", "other-gates", "no-gates", "half-a-gate", "other-numbers"],
)
def test_a_state_that_is_not_of_these_gates_changes_nothing(
    change: Callable[[dict[str, object]], dict[str, object]],
) -> None:
    world = World(50, 0.05)
    world.run(12, Weather(errors=0.1))
    analysis = Analysis(GATES)
    analysis.restore(change(world.analysis.state()))
    assert analysis.state() == Analysis(GATES).state()


def test_a_clock_that_goes_back_begins_a_block_anew() -> None:
    analysis, baselines = Analysis(GATES), Baselines(stats(300), stats(30))
    said = [analysis.observe(stats(5), Waiting(), baselines, now_s=now_s).readings[0].attempts for now_s in (100.0, 3.0, 4.0)]
    assert said == [5, 10, 15]


counts = st.integers(0, 10**6)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(counts, counts, counts, counts, st.floats(0, 1e5)), min_size=1, max_size=6))
def test_no_numbers_make_it_fail_or_say_what_is_no_number(ticks: list[tuple[int, int, int, int, float]]) -> None:
    analysis = Analysis(ALL_GATES)
    for ok, failed, slow, open_now, now_s in ticks:
        seen = VariantStats()
        seen.outcomes.update({Outcome.OK: ok, Outcome.BROKEN: failed})
        many = Histogram([(300, slow), (100, ok)])
        seen.ttft, seen.itl, seen.e2e = many, many, Histogram([(400, slow)])
        ages = Histogram([(350, open_now)])
        baselines = Baselines(seen, VariantStats() if slow % 2 else seen)
        made = analysis.observe(seen, Waiting(ages, ages, ages), baselines, now_s=now_s)
        json.dumps([asdict(reading) for reading in made.readings], allow_nan=False)
    json.dumps(analysis.state(), allow_nan=False)


def test_nothing_at_all_waits() -> None:
    nothing = VariantStats()
    said = Analysis(ALL_GATES).observe(nothing, Waiting(), Baselines(nothing, nothing), now_s=0.0)
    assert {reading.verdict for reading in said.readings} == {Verdict.WAIT}


@pytest.mark.parametrize(
    ("canary", "verdict"),
    [(stats(400), Verdict.PROMOTE), (stats(200, failed=40), Verdict.ROLL_BACK), (stats(20), Verdict.WAIT)],
    ids=["good", "bad", "few"],
)
def test_whole_windows_are_assessed_at_once(canary: VariantStats, verdict: Verdict) -> None:
    assert assess(GATES, canary, stats(2000)).verdict is verdict


def test_nothing_is_assessed_without_a_baseline() -> None:
    assert assess(GATES, stats(200, failed=40), VariantStats()).verdict is Verdict.WAIT
