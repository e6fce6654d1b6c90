from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaling.observation import Decision, Observation
from autoscaling.scaler import GAP_S, LEAST_STEP, TELLING_CACHE, Need, Scaler
from autoscaling.simulation.baselines import QueueDepth
from autoscaling.simulation.latency import LatencyModel
from autoscaling.simulation.options import SimulationOptions
from autoscaling.simulation.run import Simulation
from autoscaling.simulation.trace import Trace
from autoscaling.window import FIRST_GUESS_S
from serve_app.config_scaling import AutoscalingConfig, StageScalingConfig

CONFIG = AutoscalingConfig(min_replicas=1, max_replicas=100)
SLEEPY = AutoscalingConfig(min_replicas=0, max_replicas=10, downscale_delay_s=60)
STEPS_S = st.just(0.0) | st.floats(0.01, 2) | st.floats(2, 400)
REQUESTS = st.just(0.0) | st.floats(0, 1e4)


@st.composite
def configs(draw: st.DrawFn) -> AutoscalingConfig:
    least = draw(st.integers(0, 5))
    return AutoscalingConfig(
        min_replicas=least,
        max_replicas=draw(st.integers(max(1, least), 60)),
        target_queue_depth=draw(st.floats(0.1, 100)),
        target_utilization=draw(st.floats(0.05, 1)),
        headroom=draw(st.floats(0, 10)),
        upscale_delay_s=draw(st.floats(0, 60)),
        downscale_delay_s=draw(st.floats(0, 600)),
        max_upscale_factor=draw(st.floats(1.01, 20)),
        downscale_to_zero_delay_s=draw(st.none() | st.floats(0, 600)),
        slots=draw(st.none() | st.integers(1, 256)),
        startup_s=draw(st.none() | st.floats(0, 600)),
    )


def looks(*, least_target: int = 0, least_slots: float = 0) -> st.SearchStrategy[list[Observation]]:
    """Return anything at all that may be seen, in the order of time; the counter may even fall."""
    one = st.builds(
        Observation,
        STEPS_S,
        target=st.integers(least_target, 60),
        ready=st.integers(0, 60),
        waiting=REQUESTS,
        held=REQUESTS,
        running=REQUESTS,
        arrived=st.floats(0, 1e6),
        slots=st.sampled_from([least_slots, 1, 8, 256.0]),
        kv_cache_usage=st.floats(0, 1),
    )
    return st.lists(one, min_size=1, max_size=30).map(one_after_the_other)


def one_after_the_other(steps: list[Observation]) -> list[Observation]:
    times_s = accumulate(each.now_s for each in steps)
    return [replace(each, now_s=now_s) for each, now_s in zip(steps, times_s, strict=True)]


def decisions(config: StageScalingConfig, seen: Iterable[Observation]) -> list[Decision]:
    scaler = Scaler(config)
    return [scaler.decide(each) for each in seen]


def numbers(config: StageScalingConfig, seen: Iterable[Observation]) -> list[int]:
    return [decision.replicas for decision in decisions(config, seen)]


def within(window_s: float, seen: list[Observation], values: list[int]) -> list[int]:
    """Return the values of the looks of the last seconds, up to the last one seen."""
    from_s = seen[-1].now_s - window_s
    return [value for then, value in zip(seen, values, strict=False) if then.now_s >= from_s]


def steady(seconds: int, *, rate: float = 4.0, service_s: float = 5.0, **more: Any) -> list[Observation]:
    """Return looks at two replicas of 16 slots under a load that never changes."""
    values: dict[str, Any] = {"target": 2, "ready": 2, "running": rate * service_s, "slots": 16.0, **more}
    return [Observation(float(now_s), arrived=rate * now_s, **values) for now_s in range(seconds)]


@dataclass
class Town:
    """A deployment whose requests each keep a slot for a random time of ``service_s`` in the mean; one step per second."""

    rate_at: Callable[[int], float]
    ready: int
    seed: int = 0
    slots: int = 16
    service_s: float = 5.0
    startup_s: float = 40.0
    targets: list[int] = field(default_factory=list)
    looks: list[Observation] = field(default_factory=list)

    def live(self, config: AutoscalingConfig, seconds: int) -> list[int]:
        """Return the target of every second."""
        random, scaler = np.random.default_rng(self.seed), Scaler(config)
        target, running, queue, arrived = self.ready, 0, 0, 0
        starting: list[float] = []
        for now_s in range(seconds):
            come = int(random.poisson(self.rate_at(now_s)))
            arrived += come
            running = int(random.binomial(running, math.exp(-1 / self.service_s)))
            ready = target - sum(at_s > now_s for at_s in starting)
            begun = min(queue + come, max(0, ready * self.slots - running))
            running, queue = running + begun, queue + come - begun
            load = {"waiting": queue, "running": running, "arrived": arrived, "slots": self.slots}
            self.looks.append(Observation(now_s, target=target, ready=ready, **load))
            wanted = scaler.decide(self.looks[-1]).replicas
            starting += [now_s + self.startup_s] * (wanted - target)
            target = wanted
            self.targets.append(target)
        return self.targets


def changes(targets: list[int]) -> list[tuple[int, int]]:
    """Return (second, by how many) of every change."""
    return [(at, new - old) for at, (old, new) in enumerate(pairwise(targets), 1) if new != old]


@given(config=configs(), seen=looks())
def test_whatever_is_seen_the_number_is_whole_and_within_the_bounds(config: AutoscalingConfig, seen: list[Observation]) -> None:
    for decision in decisions(config, seen):
        assert type(decision.replicas) is int
        assert config.min_replicas <= decision.replicas <= config.max_replicas
        assert decision.reason


@given(config=configs(), seen=looks())
def test_one_decision_adds_no_more_than_the_factor_or_a_few(config: AutoscalingConfig, seen: list[Observation]) -> None:
    for each, wanted in zip(seen, numbers(config, seen), strict=True):
        most = max(each.target * config.max_upscale_factor, each.target + LEAST_STEP) if each.target else 1
        assert wanted <= max(most, config.min_replicas)


@given(config=configs(), seen=looks())
def test_what_sleeps_goes_on_sleeping_until_a_request_is_open(config: AutoscalingConfig, seen: list[Observation]) -> None:
    asleep = [replace(each, target=0) for each in seen]
    expected = [max(config.min_replicas, 1 if each.open > 0 else 0) for each in asleep]
    assert numbers(config, asleep) == expected


@given(config=configs(), seen=looks())
def test_where_no_replica_has_told_its_slots_the_number_stays(config: AutoscalingConfig, seen: list[Observation]) -> None:
    config = config.model_copy(update={"slots": None})
    unknown = [replace(each, slots=0.0, target=max(1, each.target)) for each in seen]
    expected = [min(max(each.target, config.min_replicas), config.max_replicas) for each in unknown]
    assert numbers(config, unknown) == expected


@given(config=configs(), seen=looks(least_target=1, least_slots=1))
def test_replicas_go_only_after_a_surplus_of_the_whole_window(config: AutoscalingConfig, seen: list[Observation]) -> None:
    config = config.model_copy(update={"min_replicas": 1})
    # What the need of each look alone would leave, or more.
    alone = numbers(config.model_copy(update={"downscale_delay_s": 0.0, "upscale_delay_s": 1e9}), seen)
    for number, (each, wanted) in enumerate(zip(seen, numbers(config, seen), strict=True)):
        if wanted < min(each.target, config.max_replicas):
            assert each.now_s - seen[0].now_s >= config.downscale_delay_s
            assert wanted >= max(within(config.downscale_delay_s, seen[: number + 1], alone))


@given(config=configs(), seen=looks(least_target=1, least_slots=1))
def test_replicas_come_only_for_a_need_of_the_whole_window(config: AutoscalingConfig, seen: list[Observation]) -> None:
    config = config.model_copy(update={"min_replicas": 1, "max_upscale_factor": 1e9})
    alone = numbers(config.model_copy(update={"downscale_delay_s": 1e9, "upscale_delay_s": 0.0}), seen)
    for number, (each, wanted) in enumerate(zip(seen, numbers(config, seen), strict=True)):
        if wanted > each.target:
            assert each.now_s - seen[0].now_s >= config.upscale_delay_s
            assert wanted <= min(within(config.upscale_delay_s, seen[: number + 1], alone))


@pytest.mark.parametrize("more", [{"waiting": 5000.0}, {"held": 5000.0}], ids=["waiting", "held"])
def test_one_sample_adds_nothing_and_one_that_lasts_does(more: dict[str, Any]) -> None:
    seen = steady(120)
    spike = [replace(each, **more, arrived=each.arrived + 5000) for each in steady(130)[120:]]
    assert numbers(CONFIG, [*seen, spike[0]])[-1] == 2
    assert numbers(CONFIG, [*seen, *spike])[-1] > 2


def test_a_need_that_lasts_adds_no_replica_before_its_delay() -> None:
    seen = [replace(each, waiting=1000.0) for each in steady(60)]
    first = next(at for at, wanted in enumerate(numbers(CONFIG, seen)) if wanted > 2)
    assert first >= CONFIG.upscale_delay_s


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("rate", [0.5, 2.0, 4.0])
def test_a_queue_within_its_target_adds_nothing(rate: float, share: float) -> None:
    queue = share * CONFIG.target_queue_depth * 2
    with_queue = steady(600, rate=rate, waiting=queue / 2, held=queue / 2)
    assert numbers(CONFIG, with_queue) == numbers(CONFIG, steady(600, rate=rate))


def test_a_queue_beyond_its_target_adds_replicas() -> None:
    queue = 100 * CONFIG.target_queue_depth
    assert numbers(CONFIG, steady(60, waiting=queue))[-1] > numbers(CONFIG, steady(60))[-1]
    assert "for the queue" in decisions(CONFIG, steady(60, waiting=queue))[-1].reason


def test_a_higher_rate_or_longer_requests_never_need_fewer() -> None:
    def wanted(rate: float, service_s: float) -> int:
        return numbers(CONFIG, steady(400, rate=rate, service_s=service_s))[-1]

    assert [wanted(rate, 5.0) for rate in (1, 4, 16, 64)] == sorted(wanted(rate, 5.0) for rate in (1, 4, 16, 64))
    assert wanted(4.0, 40.0) > wanted(4.0, 5.0)


@pytest.mark.parametrize(("slots", "is_more"), [(4, True), (16, False)])
def test_configured_slots_count_instead_of_those_of_the_engine(slots: int, *, is_more: bool) -> None:
    config = CONFIG.model_copy(update={"slots": slots})
    assert (numbers(config, steady(60))[-1] > 2) == is_more


def test_slots_are_remembered_while_nobody_tells_them() -> None:
    silent = [replace(each, slots=0.0, waiting=1000.0) for each in steady(70)[60:]]
    assert numbers(CONFIG, [*steady(60), *silent])[-1] > 2


def cached(usage: float, *, running: float = 20.0, seconds: int = 400, **more: Any) -> list[Observation]:
    """Return looks at two replicas of 64 slots that run ten requests each, in so much of their cache."""
    load = {"rate": running / 5, "slots": 64.0, "kv_cache_usage": usage, **more}
    return steady(seconds, **load)


def test_a_replica_counts_for_the_requests_that_its_cache_holds() -> None:
    assert set(numbers(CONFIG, cached(TELLING_CACHE - 0.01))) == {2, 1}  # 64 slots each: one would do
    assert numbers(CONFIG, cached(0.5))[-1] == 2  # 20 requests each
    assert numbers(CONFIG, cached(0.9))[-1] > 2  # 11 each


@pytest.mark.parametrize("slots", [4.0, 16.0])
def test_where_slots_are_fewer_than_the_cache_holds_they_count(slots: float) -> None:
    assert numbers(CONFIG, cached(0.5, slots=slots)) == numbers(CONFIG, cached(0.0, slots=slots))


def test_a_cache_that_holds_less_than_a_request_counts_for_one() -> None:
    seen = cached(1.0, running=0.5, seconds=100)
    assert "1 slots each" in decisions(CONFIG, seen)[-1].reason


def test_one_odd_look_at_the_cache_changes_nothing() -> None:
    seen = cached(0.5)
    odd = [replace(each, kv_cache_usage=1.0, running=2.0) if at == 390 else each for at, each in enumerate(seen)]
    assert numbers(CONFIG, odd) == numbers(CONFIG, seen)


def test_what_a_cache_holds_is_believed_while_it_is_nearly_empty() -> None:
    seen = cached(0.9, seconds=60)
    later = [replace(each, kv_cache_usage=0.1) for each in cached(0.9, seconds=120)[60:]]
    assert numbers(CONFIG, [*seen, *later])[-1] > 2


def test_a_full_cache_where_nothing_serves_is_no_division_by_zero() -> None:
    seen = [replace(each, ready=0, kv_cache_usage=1.0, waiting=9.0) for each in steady(5)]
    assert min(numbers(CONFIG, seen)) >= 2


@pytest.mark.parametrize("to_zero_s", [None, 20.0, 200.0])
def test_the_last_replica_goes_when_no_request_came_for_its_delay(to_zero_s: float | None) -> None:
    config = SLEEPY.model_copy(update={"downscale_to_zero_delay_s": to_zero_s})
    delay_s = config.downscale_delay_s if to_zero_s is None else to_zero_s
    busy = [Observation(float(s), target=1, ready=1, running=1.0, arrived=s, slots=8.0) for s in range(30)]
    idle = [Observation(29 + s, target=1, ready=1, arrived=29, slots=8.0) for s in range(1, 300)]
    wanted = numbers(config, [*busy, *idle])
    assert [at for at, each in enumerate(wanted) if each == 0] == list(range(29 + int(delay_s), 329))


def test_with_no_delay_the_last_replica_stays_while_it_works() -> None:
    config = SLEEPY.model_copy(update={"downscale_to_zero_delay_s": 0.0})
    busy = [Observation(float(s), target=1, ready=1, running=1.0, arrived=s, slots=8.0) for s in range(30)]
    idle = Observation(30.0, target=1, ready=1, arrived=29, slots=8.0)
    assert numbers(config, [*busy, idle]) == [1] * 30 + [0]


def test_requests_too_short_to_be_seen_keep_the_last_replica() -> None:
    seen = [Observation(float(s), target=1, ready=1, arrived=s // 20, slots=8.0) for s in range(600)]
    assert set(numbers(SLEEPY.model_copy(update={"downscale_to_zero_delay_s": 30.0}), seen)) == {1}


def test_several_replicas_go_to_one_before_none() -> None:
    seen = [Observation(float(s), target=3, ready=3, slots=8.0) for s in range(200)]
    assert set(numbers(SLEEPY, seen)) == {3, 1}


def test_where_a_replica_must_stay_the_last_one_does() -> None:
    seen = [Observation(float(s), target=1, ready=1, slots=8.0) for s in range(2000)]
    assert set(numbers(CONFIG, seen)) == {1}
    assert set(numbers(StageScalingConfig(max_replicas=3), seen)) == {1}


def test_a_held_request_wakes_what_sleeps() -> None:
    asleep = Observation(0.0, target=0, ready=0)
    assert decisions(SLEEPY, [asleep, replace(asleep, now_s=1.0, held=1.0)]) == [
        Decision(0, "asleep"),
        Decision(1, "a request waits"),
    ]


def test_what_is_bounded_says_by_what() -> None:
    seen = [Observation(float(s), target=3, ready=3, waiting=1000.0, slots=8.0) for s in range(10)]
    assert decisions(StageScalingConfig(max_replicas=4), seen)[-1].reason.endswith("; max_replicas")
    assert decisions(StageScalingConfig(min_replicas=5, max_replicas=9), seen)[0] == Decision(
        5, decisions(StageScalingConfig(max_replicas=9), seen)[0].reason + "; min_replicas"
    )


def test_a_configuration_may_be_replaced_at_any_time() -> None:
    scaler = Scaler(CONFIG)
    seen = steady(20)
    before = [scaler.decide(each).replicas for each in seen[:10]]
    scaler.config = AutoscalingConfig(min_replicas=4, max_replicas=8)
    assert [*before, *(scaler.decide(each).replicas for each in seen[10:])] == [2] * 10 + [4] * 10


def test_a_start_time_is_measured_unless_it_is_configured() -> None:
    seen = [Observation(0.0, target=1, ready=1), Observation(1.0, target=2, ready=1), Observation(21.0, target=2, ready=2)]
    own, stage, told = Scaler(CONFIG), Scaler(StageScalingConfig()), Scaler(CONFIG.model_copy(update={"startup_s": 5.0}))
    assert (own.startup_s, told.startup_s) == (FIRST_GUESS_S, 5.0)
    for each in seen:
        for scaler in (own, stage, told):
            scaler.decide(each)
    assert (own.startup_s, stage.startup_s, told.startup_s) == (20.0, 20.0, 5.0)


@given(load=st.floats(0, 1e5), spread=st.floats(0, 1e3), queued=st.floats(0, 1e4), slots=st.floats(1, 256))
def test_the_load_fits_with_what_is_kept_free(load: float, spread: float, queued: float, slots: float) -> None:
    need = Need(load, spread, queued, slots, utilization=0.8)
    room = need.replicas(2.0) * slots - queued + 1e-3
    assert room >= load + 2 * spread
    assert room * 0.8 >= load
    assert need.replicas(2.0) <= need.replicas(3.0)


def test_many_replicas_keep_a_smaller_share_free_than_few() -> None:
    config = CONFIG.model_copy(update={"max_upscale_factor": 1000.0})
    free = [numbers(config, steady(400, rate=rate))[-1] * 16 / (rate * 5) for rate in (13.0, 130.0)]
    assert free[1] < free[0]


@pytest.mark.parametrize("seed", range(5))
def test_a_step_of_ten_times_is_followed_and_never_turns_round_twice(seed: int) -> None:
    town = Town(lambda now_s: 40.0 if now_s >= 300 else 4.0, ready=3, seed=seed)
    targets = town.live(CONFIG, 1500)
    made = [(at, by) for at, by in changes(targets) if at >= 300]
    last_up, downs = max(at for at, by in made if by > 0), [at for at, by in made if by < 0]
    assert 300 < made[0][0] <= 310
    assert all(at >= last_up + CONFIG.downscale_delay_s for at in downs)
    assert town.looks[-1].queue == 0
    assert town.looks[-1].running <= targets[-1] * 16


SETTLING = AutoscalingConfig(max_replicas=100, downscale_delay_s=30, settle_s=200)


@pytest.mark.parametrize(
    ("rate", "is_kept"),
    [pytest.param(4.0, True, id="load-stays"), pytest.param(0.5, False, id="load-has-fallen")],
)
def test_what_was_added_for_a_queue_settles_before_it_goes(rate: float, *, is_kept: bool) -> None:
    seen = steady(100, waiting=400.0)
    added = numbers(SETTLING, seen)[-1]
    assert added > 3
    later = []
    for second in range(320):  # the queue falls by 4 requests a second
        worked_off = 4 if second < 100 else 0
        load = {"waiting": max(0.0, 396.0 - 4 * second), "running": (rate + worked_off) * 5, "arrived": 400 + rate * second}
        later.append(Observation(100.0 + second, target=added, ready=added, slots=16.0, **load))
    wanted = numbers(SETTLING, [*seen, *later])[100:]
    assert (set(wanted[: int(SETTLING.settle_s) - 5]) == {added}) == is_kept
    assert wanted[-1] < added


def test_a_step_of_ten_times_makes_no_reversal_within_ten_minutes() -> None:
    reversals = 0
    for seed in range(5):
        made = changes(Town(lambda now_s: 40.0 if now_s >= 300 else 4.0, ready=3, seed=seed).live(CONFIG, 1500))
        after = [(at, by) for at, by in made if at >= 300]
        pairs = pairwise(after)
        reversals += sum(old[1] * new[1] < 0 and new[0] - old[0] < 600 for old, new in pairs)
    assert reversals == 0


def test_a_steady_load_changes_nothing_after_the_first_window() -> None:
    restless = 0
    for seed in range(10):
        made = changes(Town(lambda _: 6.0, ready=3, seed=seed).live(CONFIG, 1500))
        restless += any(at > CONFIG.downscale_delay_s + 60 for at, _ in made)
    assert restless <= 2


@pytest.mark.parametrize("rate", [0.5, 4.0, 5.5])
def test_a_look_that_brings_nothing_new_changes_nothing(rate: float) -> None:
    seen = steady(400, rate=rate)
    stale = [replace(seen[at - 1], now_s=each.now_s) if at % 50 == 49 else each for at, each in enumerate(seen)]
    assert numbers(CONFIG, stale) == numbers(CONFIG, seen)


def test_after_a_sleep_too_one_sample_adds_nothing() -> None:
    asleep = [Observation(60.0 + s, target=0, ready=0) for s in range(600)]
    awake = Observation(660.0, target=1, ready=0, held=500.0, arrived=500, slots=16.0)
    assert numbers(SLEEPY, [*steady(60), *asleep, awake])[-1] == 1


def test_after_a_sleep_too_replicas_go_only_after_their_delay() -> None:
    asleep = [Observation(60.0 + s, target=0, ready=0) for s in range(600)]
    awake = Observation(660.0, target=5, ready=1, arrived=240, slots=16.0)
    assert numbers(SLEEPY, [*steady(60), *asleep, awake])[-1] == 5


def streams(seconds: int, *, target: int, length_s: int = 1200, count: int = 40) -> list[Observation]:
    """Return looks at requests that begin within the first minute, keep their slots for ``length_s``, and get no successors."""
    seen = []
    for now_s in range(seconds):
        begun, ended = (min(count, max(0, at_s) * count // 60) for at_s in (now_s, now_s - length_s))
        seen.append(Observation(now_s, target=target, ready=target, running=begun - ended, arrived=begun, slots=16.0))
    return seen


def test_long_streams_keep_their_replicas_when_no_more_arrive() -> None:
    config = AutoscalingConfig(max_replicas=10, downscale_delay_s=60, settle_s=0)
    wanted = numbers(config, streams(1500, target=4))
    assert min(wanted[:1200]) >= math.ceil(40 / 16)
    assert wanted[-1] == 1


def town(rate: Callable[[int], float], *, seed: int) -> Town:
    return Town(rate, ready=2, seed=seed, slots=16, service_s=600.0)


def test_of_long_requests_replicas_come_as_they_fill_up() -> None:
    rise = town(lambda now_s: 0.2 if now_s >= 3600 else 0.03, seed=1)
    targets = rise.live(CONFIG, 3 * 3600)
    before, soon, full = targets[3599], targets[3660], max(targets[3600:])
    assert full >= 8  # 120 requests
    assert before <= soon <= before + (full - before) / 2
    assert max(each.waiting for each in rise.looks) <= 4


def test_a_queue_of_long_requests_needs_a_slot_for_each_and_no_more() -> None:
    long = steady(600, rate=0.02, service_s=500.0, waiting=40.0)
    assert "and 40.0 for the queue" in decisions(CONFIG, long)[-1].reason
    short = steady(600, rate=2.0, service_s=6.0, waiting=40.0)
    as_busy = CONFIG.model_copy(update={"target_utilization": 2 * 6 / 32})  # a slot works off ten of them in the minute
    assert "and 4.0 for the queue" in decisions(as_busy, short)[-1].reason


def test_what_was_asked_for_and_not_given_need_not_settle() -> None:
    seen = steady(100, waiting=1000.0, target=5, ready=5)
    denied = [replace(each, waiting=0.0) for each in steady(100 + 60, target=5, ready=5)[100:]]
    assert numbers(SETTLING, seen)[-1] > 5
    assert numbers(SETTLING, [*seen, *denied])[-1] < 5


SLEEPS_SOON = AutoscalingConfig(min_replicas=0, max_replicas=4, downscale_to_zero_delay_s=5.0, slots=8)


def life(*stretches: tuple[int, dict[str, Any]]) -> list[Observation]:
    """Return a look per second, for so many seconds each, of a deployment without requests unless it has some."""
    values = [stretch for seconds, stretch in stretches for _ in range(seconds)]
    return [Observation(float(at), **{"target": 0, "ready": 0, **each}) for at, each in enumerate(values)]


SERVES = {"target": 1, "ready": 1}


def test_a_start_longer_than_the_sleep_delay_is_not_cut_though_its_caller_has_left() -> None:
    seen = life((60, SERVES), (60, {}), (2, {"held": 1.0}), (120, {"target": 1}), (6, SERVES))
    assert numbers(SLEEPS_SOON, seen)[122:] == [1] * (120 + 4) + [0] * 2


def test_what_serve_woke_unseen_does_not_sleep_at_its_first_look() -> None:
    asleep = life((60, SERVES), (60, {}))
    woken_s = asleep[-1].now_s + GAP_S + 30  # meanwhile Serve asked nothing: it woke by itself
    awake = [Observation(woken_s + at, arrived=1, **SERVES) for at in range(8)]
    wanted = numbers(SLEEPS_SOON, [*asleep, *awake])[120:]
    assert wanted == [1] * 5 + [0] * 3


def test_after_a_gap_the_idle_clock_begins_anew() -> None:
    before, after = life((4, SERVES)), [Observation(3 + GAP_S + 1 + at, **SERVES) for at in range(7)]
    assert numbers(SLEEPS_SOON, [*before, *after])[4:] == [1] * 5 + [0] * 2


def test_a_replica_that_serves_when_it_is_first_seen_tells_no_start_time() -> None:
    scaler = Scaler(CONFIG)
    for each in life((3, {}), (3, SERVES)):
        scaler.decide(each)
    assert scaler.startup_s == FIRST_GUESS_S


def trace(rate: float, duration_s: float, *, tokens: int, seed: int) -> Trace:
    """Return Poisson arrivals of equal requests."""
    random = np.random.default_rng(seed)
    arrivals_s = np.sort(random.uniform(0.0, duration_s, size=random.poisson(rate * duration_s)))
    count = len(arrivals_s)
    return Trace("poisson", arrivals_s, np.full(count, 8), np.full(count, tokens), duration_s)


def turns(made: Trace, model: LatencyModel, *, initial: int) -> int:
    """Return how often the number of replicas changes against the change before it."""
    options = SimulationOptions(max_replicas=100, initial_replicas=initial, finish_s=1.0, sample_s=600.0)
    run = Simulation(made, model, options)
    run.play(QueueDepth(CONFIG))
    return sum(old.is_up != new.is_up for old, new in pairwise(run.recorder.changes))


EVEN = LatencyModel(step_s=1.0, step_s_per_sequence=0.0, prefill_s_per_token=0.0, startup_s=60.0)  # a token per second


@pytest.mark.parametrize(("load", "seed"), [(60, 0), (80, 1)])
def test_a_steady_load_of_ten_minute_requests_seldom_changes_direction(load: int, seed: int) -> None:
    assert turns(trace(load / 600, 4 * 3600.0, tokens=600, seed=seed), EVEN, initial=1) <= 3


@pytest.mark.parametrize("seed", range(2))
def test_replicas_whose_cache_is_full_before_their_slots_do_not_flap(seed: int) -> None:
    holds_ten = LatencyModel(step_s=0.1, step_s_per_sequence=0.0, prefill_s_per_token=0.0, kv_tokens=1080, startup_s=60.0)
    assert turns(trace(3.0, 1800.0, tokens=100, seed=seed), holds_ten, initial=5) <= 1
