from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from autoscaling import desk as module
from autoscaling.budget import LINGER_S, TURN_S
from autoscaling.desk import DRAIN_S, GRACE_S, HANDOVER_S, HELD_S, LLM, LOOK_S, ROUTER, Desk, Look, desk
from autoscaling.document import DECISIONS, HELD, SCALING, Held, ScaledApp, ScalingDocument
from autoscaling.feed import Feed
from autoscaling.observation import Decision, Observation
from autoscaling.reports import FORGET_S, FOUND_S, STALE_S, Raw
from autoscaling.scaler import Scaler
from autoscaling.signals import ARRIVED, RUNNING, SLOTS, WAITING
from serve_app.config_scaling import AutoscalingConfig

CHAT, DRAFT = "llm.chat.stable", "llm.draft.stable"
ONE_TO_EIGHT = AutoscalingConfig(min_replicas=1, max_replicas=8)
SLEEPY = AutoscalingConfig(min_replicas=0, max_replicas=8)


@dataclass(frozen=True)
class Sample:
    timestamp: float
    value: float


@dataclass
class Memory:
    values: dict[str, bytes] = field(default_factory=dict)

    def get(self, key: str) -> bytes | None:
        return self.values.get(key)

    def put(self, key: str, data: bytes) -> None:
        self.values[key] = data


class Platform:
    """A desk, and what is published to it; one clock for all that stands still unless it is moved."""

    def __init__(self, apps: dict[str, ScaledApp] | None = None, *, max_accelerators: int | None = None) -> None:
        self.now_s = 1000.0
        self.store = Memory()
        self.desk = Desk(self.store, clock=lambda: self.now_s, wall=lambda: 5e8 + self.now_s)
        self.raw: Raw | None = {}
        self.asked_raw = 0
        self._stamp = 0.0
        if apps:
            self.configure(ScalingDocument(max_accelerators=max_accelerators, apps=apps))

    def configure(self, document: ScalingDocument) -> None:
        self._publish(SCALING, document.model_dump_json())

    def hold(
        self,
        held: dict[str, int] | None = None,
        *,
        holding: dict[str, int] | None = None,
        draining: dict[str, int] | None = None,
    ) -> None:
        self._stamp += 1
        news = Held(stamp=self._stamp, held=held or {}, holding=holding or {}, draining=draining or {})
        self._publish(HELD, news.model_dump_json())

    def say(self, replicas: Sequence[str], **values: float) -> None:
        """Have every replica report these values now."""
        signals = {"waiting": WAITING, "running": RUNNING, "slots": SLOTS, "arrived": ARRIVED}
        self.raw = {signals[name]: {r: [Sample(self.now_s, value)] for r in replicas} for name, value in values.items()}

    def decide(
        self,
        app: str,
        target: int,
        *,
        ready: int | None = None,
        queued: float = 0.0,
        raw: Callable[[], Raw | None] | None = None,
    ) -> int:
        replicas = names(target if ready is None else ready)
        return self.desk.decide(Look(app, target, replicas, raw or self._raw, lambda: queued))

    def look(self, app: str, target: int, **more: Any) -> int:
        """Decide a second later."""
        self.now_s += LOOK_S
        return self.decide(app, target, **more)

    def _raw(self) -> Raw | None:
        self.asked_raw += 1
        return self.raw

    def _publish(self, key: str, value: str) -> None:
        self.store.values[key] = value.encode()
        self.desk.feed.look()


def names(count: int) -> list[str]:
    return [f"r{i}" for i in range(count)]


def broken() -> Raw:
    raise RuntimeError("no metrics")


def llm(settings: AutoscalingConfig = ONE_TO_EIGHT, **more: Any) -> ScaledApp:
    return ScaledApp(deployment=LLM, settings=settings, **more)


def busy(platform: Platform, seconds: int, *, target: int, running: float = 14.0) -> int:
    """Let a fleet that follows its desk be busy for so long; return its number of replicas."""
    for _ in range(seconds):
        platform.say(names(target), waiting=0, running=running, slots=16, arrived=5 * (platform.now_s - 1000))
        target = platform.look(CHAT, target)
    return target


def test_without_a_document_every_number_stays_and_nothing_is_asked_for() -> None:
    platform = Platform()
    assert [platform.look(CHAT, target) for target in (3, 0, 7)] == [3, 0, 7]
    assert platform.asked_raw == 0


def test_an_application_that_is_not_in_the_document_keeps_its_number() -> None:
    platform = Platform({DRAFT: llm()})
    assert [platform.look(CHAT, target) for target in (3, 0, 70)] == [3, 0, 70]


def test_it_looks_once_a_second_however_often_it_is_asked() -> None:
    platform = Platform({CHAT: llm()})
    answers = []
    for _ in range(30):
        answers.append(platform.decide(CHAT, 3))
        platform.now_s += LOOK_S / 10
    assert answers == [3] * 30
    assert platform.asked_raw == 3


def test_between_looks_the_last_answer_stands() -> None:
    platform = Platform({CHAT: llm(AutoscalingConfig(min_replicas=5, max_replicas=8))})
    assert [platform.decide(CHAT, target) for target in (3, 4, 5)] == [5, 5, 5]


def test_changed_settings_hold_from_the_next_look_on() -> None:
    platform = Platform({CHAT: llm()})
    answers = [platform.look(CHAT, 2)]
    platform.configure(ScalingDocument(apps={CHAT: llm(AutoscalingConfig(min_replicas=4, max_replicas=8))}))
    answers.append(platform.look(CHAT, 2))
    platform.configure(ScalingDocument(apps={CHAT: llm(AutoscalingConfig(min_replicas=1, max_replicas=3))}))
    answers.append(platform.look(CHAT, 4))
    assert answers == [2, 4, 3]


def test_an_application_that_leaves_the_document_and_comes_back_is_begun_anew() -> None:
    platform = Platform({CHAT: llm(), DRAFT: llm()})
    platform.look(CHAT, 2)
    platform.look(DRAFT, 2)
    platform.configure(ScalingDocument(apps={DRAFT: llm()}))
    platform.look(DRAFT, 2)
    assert platform.look(CHAT, 2) == 2
    platform.desk.feed.look()
    assert list(json.loads(platform.store.values[DECISIONS])) == [DRAFT]


def test_a_load_that_lasts_adds_replicas(caplog: pytest.LogCaptureFixture) -> None:
    platform = Platform({CHAT: llm()})
    with caplog.at_level(logging.INFO, logger="ray.serve"):
        assert busy(platform, 60, target=1, running=16.0) > 1
    assert caplog.records[0].getMessage().startswith(f"{CHAT}: 1 -> ")


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(lambda platform: setattr(platform, "raw", None), id="no-reports"),
        pytest.param(lambda platform: setattr(platform, "raw", {}), id="empty-reports"),
        pytest.param(lambda platform: platform.say(names(4), waiting=math.nan, running=math.nan), id="no-numbers"),
        pytest.param(lambda _: None, id="stale-reports"),
    ],
)
@pytest.mark.parametrize("seconds", [1, int(STALE_S) - 1, int(FORGET_S) - 2])
def test_while_reports_are_missing_the_number_stays(fault: Callable[[Platform], None], seconds: int) -> None:
    platform = Platform({CHAT: llm(AutoscalingConfig(min_replicas=0, max_replicas=8, downscale_delay_s=20, settle_s=0))})
    target = busy(platform, 60, target=4)
    answers = []
    for _ in range(seconds):
        fault(platform)
        answers.append(platform.look(CHAT, target))
    assert answers == [target] * seconds


SLOW = AutoscalingConfig(min_replicas=0, max_replicas=8, downscale_delay_s=20, settle_s=0)


def test_replicas_that_report_nothing_for_long_keep_their_number() -> None:
    platform = Platform({CHAT: llm(SLOW)})
    target = busy(platform, 60, target=4)
    platform.raw = {}
    assert {platform.look(CHAT, target) for _ in range(int(FORGET_S) + 200)} == {target}


@pytest.mark.parametrize("late_s", [1, 30], ids=["all-report-late", "one-reports-very-late"])
def test_after_a_restart_of_the_controller_a_steady_load_adds_nothing(late_s: int) -> None:
    platform, target = Platform({CHAT: llm(AutoscalingConfig(max_replicas=100))}), 4
    for second in range(120):
        heard = names(4) if second >= late_s else names(0 if late_s == 1 else 3)
        platform.say(heard, waiting=0, running=10, slots=16, arrived=1e6 + 2 * second)
        target = platform.look(CHAT, target, ready=4)
    assert target == 4


def test_after_a_restart_of_the_controller_replicas_that_report_nothing_keep_their_number() -> None:
    platform = Platform({CHAT: llm(SLOW.model_copy(update={"slots": 16}))})
    assert {platform.look(CHAT, 4) for _ in range(200)} == {4}


def test_after_a_silence_too_one_sample_adds_nothing() -> None:
    platform = Platform({CHAT: llm(AutoscalingConfig(min_replicas=1, max_replicas=100, upscale_delay_s=5))})
    for second in range(160):
        if second < 100:
            platform.say(names(2), waiting=0, running=8, slots=16, arrived=2 * second)
        assert platform.look(CHAT, 2) == 2
    platform.say(names(2), waiting=3000, running=16, slots=16, arrived=320)
    assert platform.look(CHAT, 2) == 2


def test_replicas_that_are_silent_are_logged_once_each_time(caplog: pytest.LogCaptureFixture) -> None:
    platform = Platform({CHAT: llm()})
    with caplog.at_level(logging.WARNING, logger="ray.serve"):
        for _ in range(2):
            busy(platform, 5, target=2)
            for _ in range(int(STALE_S) + 20):
                platform.look(CHAT, 2)
    assert [record.getMessage() for record in caplog.records] == [f"{CHAT}: 2 of 2 replicas report no load"] * 2


@pytest.mark.parametrize(("target", "expected"), [(1, 2), (3, 3), (9, 8)])
def test_bounds_hold_even_where_nobody_reports(target: int, expected: int) -> None:
    platform = Platform({CHAT: llm(AutoscalingConfig(min_replicas=2, max_replicas=8))})
    platform.say(names(3), waiting=1, running=1, slots=16, arrived=1)
    platform.look(CHAT, 3)
    platform.now_s += STALE_S + 1
    assert platform.look(CHAT, target, ready=3) == expected


def test_what_fails_leaves_the_number_and_is_logged_once_per_application_until_a_look_succeeds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    five = AutoscalingConfig(min_replicas=5, max_replicas=8)
    platform, answers = Platform({CHAT: llm(five), DRAFT: llm(five)}), []
    with caplog.at_level(logging.ERROR, logger="ray.serve"):
        for raw in (broken, broken, None, broken):
            platform.look(DRAFT, 3, raw=broken)
            answers.append(platform.decide(CHAT, 3, raw=raw))
            platform.now_s += 0.5 * LOOK_S
            answers.append(platform.decide(CHAT, 3, raw=raw))
    assert answers == [3, 3, 3, 3, 5, 5, 3, 3]
    logged = f"no decision on {DRAFT}", f"no decision on {CHAT}", f"no decision on {CHAT}"
    assert [record.getMessage() for record in caplog.records] == [f"{each}; it stays at 3 replicas" for each in logged]


class Recording(Scaler):
    """A scaler that keeps what it has seen."""

    seen: ClassVar[list[Observation]] = []

    def decide(self, seen: Observation) -> Decision:
        self.seen.append(seen)
        return super().decide(seen)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Observation]:
    """Return what the scalers of all applications see from now on."""
    monkeypatch.setattr(module, "Scaler", Recording)
    monkeypatch.setattr(Recording, "seen", [])
    return Recording.seen


def arrivals(platform: Platform, seen: list[Observation], *looks: tuple[int, float]) -> list[float]:
    """Return the arrivals since the first of these looks, at each of them: (requests held, all that came to its replica)."""
    for held, arrived in looks:
        platform.hold({CHAT: held})
        platform.now_s += LOOK_S
        platform.say(names(1), waiting=0, running=0, slots=16, arrived=arrived)
        platform.decide(CHAT, 1)
    return [each.arrived - seen[0].arrived for each in seen]


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        pytest.param([(0, 7), (0, 9), (0, 12)], [0, 2, 5], id="to-the-replica"),
        pytest.param([(0, 7), (3, 7), (0, 10)], [0, 3, 3], id="from-a-router-at-once"),
        pytest.param([(0, 7), (3, 7), (0, 7), (0, 7), (0, 10)], [0, 3, 3, 3, 3], id="from-a-router-a-while-after"),
        pytest.param([(0, 7), (3, 7), (3, 10), (0, 10)], [0, 3, 6, 6], id="counted-by-both-meanwhile"),
        pytest.param([(0, 7), (3, 7), (0, 7), (0, 11)], [0, 3, 3, 4], id="with-new-ones-among-them"),
    ],
)
def test_a_request_that_goes_from_a_router_to_a_replica_is_one_arrival(
    seen: list[Observation], looks: list[tuple[int, float]], expected: list[float]
) -> None:
    assert arrivals(Platform({CHAT: llm()}), seen, *looks) == expected


def test_after_callers_have_given_up_arrivals_count_again(seen: list[Observation]) -> None:
    platform = Platform({CHAT: llm()})
    given_up = [(0, 7.0)] * (int(HANDOVER_S / LOOK_S) + 1)
    made = arrivals(platform, seen, (0, 7.0), (40, 7.0), *given_up, (0, 9.0))
    assert made == [0, *[40] * (len(given_up) + 1), 42]


def test_a_replica_that_is_gone_counts_no_longer() -> None:
    platform = Platform({CHAT: llm()})
    for _ in range(5):
        platform.say(names(3), waiting=2, running=4, slots=16, arrived=9)
        platform.look(CHAT, 3, ready=2)
    platform.desk.feed.look()
    shown = json.loads(platform.store.values[DECISIONS])[CHAT]
    assert (shown["ready"], shown["waiting"], shown["running"]) == (2, 4.0, 8.0)


def test_a_request_that_routers_hold_wakes_what_sleeps_while_the_news_of_it_is_fresh() -> None:
    platform = Platform({CHAT: llm(SLEEPY)})
    answers = [platform.look(CHAT, 0)]
    platform.hold({CHAT: 1, DRAFT: 7})
    answers += [platform.look(CHAT, 0), platform.look(CHAT, 0)]
    platform.now_s += HELD_S
    answers.append(platform.look(CHAT, 0))
    platform.hold({CHAT: 1})
    answers.append(platform.look(CHAT, 0))
    platform.hold()
    answers.append(platform.look(CHAT, 0))
    assert answers == [0, 1, 1, 0, 1, 0]


def test_held_requests_of_others_wake_nobody() -> None:
    platform = Platform({CHAT: llm(SLEEPY)})
    platform.hold({DRAFT: 7})
    assert platform.look(CHAT, 0) == 0


def test_a_call_that_waits_at_a_handle_wakes_what_sleeps() -> None:
    platform = Platform({CHAT: llm(SLEEPY)})
    assert [platform.look(CHAT, 0, queued=queued) for queued in (0.0, 1.0)] == [0, 1]


@pytest.mark.parametrize(
    ("deployment", "ready", "held"),
    [
        pytest.param(LLM, 0, 7.0, id="a-model-without-replicas-is-held-for-in-both"),
        pytest.param(LLM, 2, 3.0, id="calls-of-a-model-are-held-requests"),
        pytest.param("Embedder", 0, 10.0, id="a-stage-that-starts"),
        pytest.param("Embedder", 2, 10.0, id="a-stage"),
        pytest.param("Retriever", 2, 10.0, id="another-stage"),
        pytest.param(ROUTER, 2, 3.0, id="calls-of-a-router-are-none-of-its-units"),
        pytest.param(ROUTER, 0, 3.0, id="nor-while-it-starts"),
    ],
)
def test_what_waits_at_handles_counts_where_nothing_else_counts_it(deployment: str, ready: int, held: float) -> None:
    app = ScaledApp(deployment=deployment, settings=ONE_TO_EIGHT)
    platform = Platform({"app": app})
    platform.hold({"app": 3})
    platform.look("app", 2, ready=ready, queued=7.0)
    platform.desk.feed.look()
    assert json.loads(platform.store.values[DECISIONS])["app"]["held"] == held


def test_a_fixed_application_has_its_number_whatever_its_load() -> None:
    fixed = llm(AutoscalingConfig(min_replicas=3, max_replicas=3), is_fixed=True)
    platform = Platform({CHAT: fixed})
    platform.hold({CHAT: 1000})
    assert [platform.look(CHAT, target) for target in (0, 3, 5)] == [3, 3, 3]


def growing(platform: Platform, seconds: int, **targets: int) -> dict[str, int]:
    """Let applications follow their desk while each has far more requests than it can hold."""
    for _ in range(seconds):
        platform.now_s += LOOK_S
        for app, target in targets.items():
            platform.say(names(target), waiting=500, running=16, slots=16, arrived=0)
            targets[app] = platform.decide(app, target)
    return targets


def test_two_applications_share_a_budget_by_priority() -> None:
    platform = Platform(dict(low=llm(priority=1, units=1), high=llm(priority=9, units=1)), max_accelerators=6)
    assert growing(platform, 60, low=1, high=1) == {"low": 1, "high": 5}


def test_a_higher_priority_takes_replicas_from_a_lower_one_once_they_are_gone() -> None:
    platform = Platform(dict(low=llm(priority=1, units=1), high=llm(SLEEPY, priority=9, units=1)), max_accelerators=6)
    targets, sums = {"low": 6, "high": 0}, []
    for _ in range(int(GRACE_S)):
        platform.look("low", 6)
        platform.decide("high", 0)
    for second in range(90):
        platform.now_s += LOOK_S
        platform.hold({"high": 1})
        for app in targets:
            platform.say(names(targets[app]), waiting=500, running=16, slots=16, arrived=0)
            targets[app] = platform.decide(app, targets[app])
        sums.append(sum(targets.values()))
        if second < LINGER_S:
            assert targets["high"] == 0
    assert max(sums) <= 6
    assert targets == {"low": 1, "high": 5}


def test_without_a_budget_both_get_what_they_want() -> None:
    platform = Platform(dict(low=llm(priority=1, units=1), high=llm(priority=9, units=1)))
    assert growing(platform, 30, low=1, high=1) == {"low": 8, "high": 8}


def test_nobody_grows_after_a_start_before_all_that_hold_accelerators_were_asked_about() -> None:
    apps = {"a": llm(units=1), "b": llm(units=1), "router": ScaledApp(deployment="Router", settings=ONE_TO_EIGHT)}
    eager = AutoscalingConfig(min_replicas=1, max_replicas=8, upscale_delay_s=0)
    apps["a"] = llm(eager, units=1)
    early, late = Platform(apps, max_accelerators=6), Platform(apps, max_accelerators=6)
    assert growing(early, int(GRACE_S), a=1) == {"a": 1}
    assert growing(early, 5, a=1) == {"a": 6}
    late.look("b", 4)
    assert growing(late, 2, a=1) == {"a": 2}


def test_replicas_that_drain_hold_their_accelerators_until_the_directory_names_them_no_longer() -> None:
    platform = Platform(dict(a=llm(units=1), b=llm(units=1)), max_accelerators=6)
    platform.hold(draining={"b": 4})
    assert growing(platform, 120, a=1, b=1) == {"a": 1, "b": 1}
    platform.hold()
    assert growing(platform, 120, a=1, b=1) == {"a": 3, "b": 3}


def test_replicas_that_drain_of_an_application_that_left_the_document_hold_their_accelerators() -> None:
    platform = Platform(dict(a=llm(units=1), b=llm(units=1)), max_accelerators=6)
    platform.look("b", 4)
    platform.decide("a", 1)
    platform.configure(ScalingDocument(max_accelerators=6, apps={"a": llm(units=1)}))
    platform.hold(draining={"b": 3})
    assert growing(platform, 60, a=1) == {"a": 3}
    platform.hold()
    assert growing(platform, 60, a=3) == {"a": 6}


@pytest.mark.parametrize(("target", "others"), [(2, 2), (0, 2)], ids=["runs", "is-to-start"])
def test_a_fixed_application_holds_its_accelerators(target: int, others: int) -> None:
    fixed = llm(AutoscalingConfig(min_replicas=2, max_replicas=2), is_fixed=True, units=2)
    platform = Platform(dict(fixed=fixed, a=llm(units=1)), max_accelerators=6)
    assert growing(platform, 30, fixed=target, a=1) == {"fixed": 2, "a": others}


def test_an_application_whose_looks_fail_holds_its_accelerators() -> None:
    platform = Platform(dict(a=llm(units=1), b=llm(units=1)), max_accelerators=6)
    target = 1
    for _ in range(30):
        platform.look("b", 4, raw=broken)
        target = growing(platform, 1, a=target)["a"]
    assert target == 2


NONE = AutoscalingConfig(min_replicas=0, max_replicas=1)


def test_what_is_set_to_no_replicas_frees_its_budget_once_they_are_gone() -> None:
    platform = Platform(dict(a=llm(units=1), b=llm(units=1)), max_accelerators=6)
    growing(platform, 30, a=1, b=1)
    platform.configure(ScalingDocument(max_accelerators=6, apps={"a": llm(units=1), "b": llm(NONE, is_fixed=True, units=1)}))
    platform.hold(draining={"b": 2})
    assert growing(platform, 40, a=3) == {"a": 4}
    platform.hold()
    assert growing(platform, 10, a=4) == {"a": 6}


def test_what_has_no_replicas_from_the_start_is_not_waited_for() -> None:
    eager = AutoscalingConfig(min_replicas=1, max_replicas=8, upscale_delay_s=0)
    apps = {"a": llm(eager, units=1), "b": llm(NONE, is_fixed=True, units=1)}
    assert growing(Platform(apps, max_accelerators=6), 2, a=1) == {"a": 6}


@pytest.mark.parametrize("news", [{"draining": {"b": 4}}, {"holding": {"b": 5}}], ids=["drain", "live"])
def test_rollouts_that_fall_silent_after_a_drain_do_not_block_growth_for_ever(news: dict[str, dict[str, int]]) -> None:
    platform = Platform(dict(a=llm(units=1), b=llm(units=1)), max_accelerators=6)
    platform.hold(**news)
    assert growing(platform, int(DRAIN_S) - 1, a=1, b=1) == {"a": 1, "b": 1}
    assert growing(platform, 60, a=1, b=1) == {"a": 3, "b": 3}


def test_silent_rollouts_do_not_keep_the_accelerators_of_what_left_the_document() -> None:
    platform = Platform(dict(a=llm(units=1), b=llm(units=1)), max_accelerators=6)
    platform.look("b", 4)
    platform.decide("a", 1)
    platform.configure(ScalingDocument(max_accelerators=6, apps={"a": llm(units=1)}))
    platform.hold(draining={"b": 3})
    assert growing(platform, int(DRAIN_S) + 30, a=1) == {"a": 6}


def test_replicas_that_live_hold_their_accelerators_though_nobody_asked_for_them() -> None:
    platform = Platform(dict(a=llm(units=1), b=llm(units=1)), max_accelerators=6)
    platform.hold(holding={"a": 1, "b": 4})
    assert growing(platform, 60, a=1, b=1) == {"a": 2, "b": 1}


def test_two_equals_that_sleep_take_turns_on_one_accelerator() -> None:
    platform = Platform(dict(a=llm(SLEEPY, units=1), b=llm(SLEEPY, units=1)), max_accelerators=1)
    targets, owners = {"a": 0, "b": 0}, []
    for _ in range(4 * int(TURN_S + LINGER_S)):
        platform.now_s += LOOK_S
        platform.hold({"a": 1, "b": 1})  # somebody waits for either
        for app, target in targets.items():
            platform.say(names(target), waiting=0, running=1, slots=16, arrived=0)
            targets[app] = platform.decide(app, target)
        owners.append("".join(app for app, target in targets.items() if target))
    assert set(owners) == {"a", "b", ""}
    order = [owner for old, owner in zip(["", *owners], owners, strict=False) if owner and owner != old]
    assert order in (["a", "b", "a", "b"], ["b", "a", "b", "a"])
    assert min(owners.count("a"), owners.count("b")) >= TURN_S


@pytest.mark.parametrize("max_accelerators", [None, 1])
def test_a_start_longer_than_the_sleep_delay_is_not_cut(max_accelerators: int | None) -> None:
    soon = AutoscalingConfig(min_replicas=0, max_replicas=2, downscale_to_zero_delay_s=5.0, slots=16)
    platform = Platform({CHAT: llm(soon, units=1)}, max_accelerators=max_accelerators)
    platform.hold({CHAT: 1})
    target = platform.look(CHAT, 0)
    platform.hold()  # the caller gives up
    starting = []
    for _ in range(120):
        target = platform.look(CHAT, target, ready=0)
        starting.append(target)
    serving = []
    for _ in range(8):
        platform.say(names(target), waiting=0, running=0, slots=16, arrived=0)
        target = platform.look(CHAT, target)
        serving.append(target)
    assert starting == [1] * 120
    assert serving == [1] * 4 + [0] * 4


def test_after_a_restart_of_the_controller_replicas_found_one_by_one_bring_no_burst(seen: list[Observation]) -> None:
    platform = Platform({CHAT: llm(AutoscalingConfig(max_replicas=100))})
    answers = []
    for second in range(120):
        found = min(4, 1 + second // 8)
        platform.say(names(found), waiting=0, running=10, slots=16, arrived=1e6 + 2 * second)
        answers.append(platform.look(CHAT, 4, ready=found))
    assert set(answers) == {4}
    assert FOUND_S > 24
    assert seen[-1].arrived - seen[0].arrived <= 4 * 2 * 120


def test_a_lowered_budget_is_in_force_at_the_next_look() -> None:
    platform = Platform(dict(a=llm(units=1)), max_accelerators=8)
    assert growing(platform, 30, a=1) == {"a": 8}
    platform.configure(ScalingDocument(max_accelerators=3, apps={"a": llm(units=1)}))
    assert growing(platform, 1, a=8) == {"a": 3}


def test_decisions_are_published_when_there_is_a_new_one() -> None:
    platform = Platform({CHAT: llm(), DRAFT: llm()})
    platform.desk.feed.look()
    assert platform.store.values.pop(DECISIONS) == b"{}"
    platform.say(names(2), waiting=1, running=2.005, slots=16, arrived=3)
    platform.decide(CHAT, 2)
    platform.desk.feed.look()
    ((app, shown),) = json.loads(platform.store.values.pop(DECISIONS)).items()
    assert (app, shown.pop("reason").split(";")[0]) == (CHAT, "enough")
    assert shown == {
        "target": 2, "wanted": 2, "granted": None, "ready": 2, "waiting": 2.0, "held": 0.0, "running": 4.01, "slots": 16.0,
        "startup_s": 60.0, "decided": {"hold": 1}, "at": 500001000.0,
    }  # fmt: skip
    platform.decide(CHAT, 2)
    platform.desk.feed.look()
    assert DECISIONS not in platform.store.values
    platform.look(CHAT, 2)
    platform.desk.feed.look()
    assert DECISIONS in platform.store.values


def test_decisions_are_counted_by_direction() -> None:
    platform = Platform({"a": llm(AutoscalingConfig(min_replicas=2, max_replicas=4))})
    for target in (1, 2, 2, 5):
        platform.look("a", target)
    platform.desk.feed.look()
    assert json.loads(platform.store.values[DECISIONS])["a"]["decided"] == {"up": 1, "hold": 2, "down": 1}


def test_a_wake_that_serve_makes_by_itself_counts_as_up() -> None:
    platform = Platform({"a": llm(SLEEPY)})
    assert [platform.look("a", target) for target in (0, 0)] == [0, 0]
    assert [platform.look("a", target) for target in (1, 1)] == [1, 1]  # as Serve answers the first request
    platform.desk.feed.look()
    assert json.loads(platform.store.values[DECISIONS])["a"]["decided"] == {"hold": 4, "up": 1}


def test_what_a_budget_grants_is_published_where_it_is_fewer_than_wanted() -> None:
    platform = Platform({"a": llm(AutoscalingConfig(min_replicas=5, max_replicas=8), units=1)}, max_accelerators=3)
    assert growing(platform, 2, a=1) == {"a": 3}
    platform.desk.feed.look()
    shown = json.loads(platform.store.values[DECISIONS])["a"]
    assert (shown["wanted"], shown["granted"]) == (5, 3)


@pytest.mark.parametrize("max_accelerators", [None, 9], ids=["no-budget", "enough"])
@pytest.mark.parametrize("target", [2, 5, 9])
def test_where_the_budget_takes_nothing_no_grant_is_published(target: int, max_accelerators: int | None) -> None:
    app = llm(AutoscalingConfig(min_replicas=5, max_replicas=8), units=1)
    platform = Platform({"a": app}, max_accelerators=max_accelerators)
    growing(platform, 1, a=target)
    platform.desk.feed.look()
    shown = json.loads(platform.store.values[DECISIONS])["a"]
    assert (shown["wanted"] != target or target == 5, shown["granted"]) == (True, None)


def test_a_process_has_one_desk_whose_feed_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Feed] = []
    monkeypatch.setattr(Feed, "start", lambda feed: started.append(feed))
    desk.cache_clear()
    try:
        assert desk() is desk()
        assert started == [desk().feed]
    finally:
        desk.cache_clear()
