from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import pytest
from ray.serve._private.common import DeploymentID, ReplicaID, TimeStampedValue
from ray.serve.autoscaling_policy import _apply_autoscaling_config
from ray.serve.config import AutoscalingConfig as RayConfig
from ray.serve.config import AutoscalingContext

from autoscaling import policy as module
from autoscaling.desk import LLM, LOOK_S, Desk
from autoscaling.document import HELD, SCALING, Held, ScaledApp, ScalingDocument
from autoscaling.policy import QueueDepthPolicy
from autoscaling.signals import ARRIVED, RUNNING, SLOTS, WAITING
from serve_app.config_scaling import AutoscalingConfig
from tests.unit.autoscaling.ray_serve import RAY, Deployment, Memory, Serve

APP = "llm.chat.stable"
Load = dict[str, float]
Call = Callable[[AutoscalingContext], tuple[int, dict[str, Any]]]


def never() -> Any:
    raise AssertionError("nobody needs this")


class Controller:
    """Serve's controller as far as it deals with policies: it builds contexts, and calls through its own wrapper."""

    def __init__(self, settings: AutoscalingConfig) -> None:
        self.now_s = 0.0
        self.store = Memory()
        self.desk = Desk(self.store, clock=lambda: self.now_s, wall=lambda: self.now_s)
        self.state: dict[str, Any] = {}
        self.policy: Call = _apply_autoscaling_config(QueueDepthPolicy(at=self.desk))
        self.publish(SCALING, ScalingDocument(apps={APP: ScaledApp(deployment=LLM, settings=settings)}))

    def publish(self, key: str, value: Held | ScalingDocument) -> None:
        self.store.put(key, value.model_dump_json().encode())
        self.desk.feed.look()

    def ask(self, target: int, *, ready: int, **more: Any) -> int:
        """Let a second pass, and return the number that Serve would apply."""
        self.now_s += LOOK_S
        wanted, self.state = self.policy(self.context(target, ready=ready, **more))
        return wanted

    def context(
        self, target: int, *, ready: int, load: Load | None = None, requests: float = 0.0, raw: Any = None, queued: Any = 0.0
    ) -> AutoscalingContext:
        deployment = DeploymentID(name="LLM", app_name=APP)
        replicas = [ReplicaID(f"r{i}", deployment) for i in range(ready)]
        series = {name: {r: [TimeStampedValue(self.now_s, value)] for r in replicas} for name, value in (load or {}).items()}
        return AutoscalingContext(
            deployment_id=deployment,
            deployment_name=deployment.name,
            app_name=deployment.app_name,
            current_num_replicas=ready,
            target_num_replicas=target,
            running_replicas=replicas,
            total_num_requests=lambda: requests,
            total_queued_requests=queued,
            aggregated_metrics=never,
            raw_metrics=raw or (lambda: series),
            capacity_adjusted_min_replicas=0,
            capacity_adjusted_max_replicas=8,
            policy_state=dict(self.state),
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=self.now_s,
            config=RAY,
        )


def load(waiting: float = 0.0, running: float = 0.0, arrived: float = 0.0) -> Load:
    return {WAITING: waiting, RUNNING: running, SLOTS: 16.0, ARRIVED: arrived}


def sleepy(**more: Any) -> AutoscalingConfig:
    return AutoscalingConfig(min_replicas=0, max_replicas=8, downscale_delay_s=20.0, settle_s=0.0, **more)


def test_through_serves_wrapper_a_load_that_lasts_adds_replicas_at_once_and_as_many_as_are_wanted() -> None:
    controller = Controller(sleepy())
    for _ in range(10):
        wanted = controller.ask(1, ready=1, load=load(waiting=500.0, running=16.0))
    direct, _ = QueueDepthPolicy(at=controller.desk)(controller.context(1, ready=1))
    assert wanted == direct > 1


def test_replicas_that_start_are_not_asked_for_again_nor_taken_back() -> None:
    controller = Controller(sleepy())
    target, seen = 1, []
    for _ in range(15):
        target = controller.ask(target, ready=1, load=load(waiting=500.0, running=16.0))
        seen.append(target)
    assert seen == sorted(seen)
    assert seen[-1] == 8


def test_through_serves_wrapper_an_idle_deployment_goes_to_sleep_and_stays_asleep() -> None:
    controller = Controller(sleepy())
    target, seen = 3, []
    for _ in range(60):
        target = controller.ask(target, ready=target, load=load())
        seen.append(target)
    assert sorted(set(seen), reverse=True) == [3, 1, 0]
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize("more", [{"requests": 1.0}, {"queued": 1.0}, {"queued": lambda: 1.0}])
def test_a_call_wakes_what_sleeps(more: dict[str, Any]) -> None:
    controller = Controller(sleepy())
    assert [controller.ask(0, ready=0), controller.ask(0, ready=0, **more)] == [0, 1]


def test_a_request_that_routers_hold_wakes_what_sleeps() -> None:
    controller = Controller(sleepy())
    controller.publish(HELD, Held(stamp=1.0, held={APP: 1}))
    assert controller.ask(0, ready=0) == 1


def test_metrics_are_asked_for_once_a_second_only() -> None:
    controller, asked_s = Controller(sleepy()), []

    def raw() -> dict[str, Any]:
        asked_s.append(controller.now_s)
        return {}

    for _ in range(20):
        controller.policy(controller.context(2, ready=2, raw=raw, queued=never))
        controller.now_s += LOOK_S / 8
    assert asked_s == [0.0, LOOK_S, 2 * LOOK_S]


def broken() -> Any:
    raise RuntimeError("no metrics")


def test_what_fails_is_logged_once_each_time_and_the_number_stays(caplog: pytest.LogCaptureFixture) -> None:
    controller, seen = Controller(sleepy()), []
    with caplog.at_level(logging.ERROR, logger="ray.serve"):
        for raw in (broken, broken, None, broken):
            seen.append(controller.ask(3, ready=3, raw=raw))
    assert seen == [3, 3, 3, 3]
    assert [record.getMessage() for record in caplog.records] == [f"no decision on {APP}; it stays at 3 replicas"] * 2


def test_what_fails_is_logged_once_though_serve_asks_between_looks(caplog: pytest.LogCaptureFixture) -> None:
    controller = Controller(sleepy())
    with caplog.at_level(logging.ERROR, logger="ray.serve"):
        for _ in range(100):
            controller.now_s -= 0.9 * LOOK_S
            controller.ask(3, ready=3, raw=broken)
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "values", [load(math.nan, math.nan, math.nan), load(-1.0), load(math.inf)], ids=["nan", "negative", "inf"]
)
def test_reports_that_are_no_numbers_change_nothing(values: Load) -> None:
    controller = Controller(AutoscalingConfig(min_replicas=0, max_replicas=8))
    for _ in range(10):
        controller.ask(3, ready=3, load=load(running=8.0, arrived=controller.now_s))
    assert [controller.ask(3, ready=3, load=values) for _ in range(100)] == [3] * 100


@pytest.mark.parametrize("service_s", [0.5, 30.0], ids=["short-calls", "long-calls"])
def test_in_serves_loop_a_call_wakes_what_sleeps_is_served_and_it_sleeps_again(service_s: float) -> None:
    settings = AutoscalingConfig(min_replicas=0, max_replicas=4, downscale_to_zero_delay_s=10.0)
    chat = Deployment(APP, startup_s=60.0, service_s=service_s)
    serve = Serve({APP: ScaledApp(deployment=LLM, settings=settings)}, chat)
    for _ in range(3):  # what is known from one life does not spoil the next
        chat.waits_s.clear()
        assert serve.run(120.0) == []
        chat.queue.append(serve.now_s)
        (woken_s, _, one), *later = serve.run(300.0)
        assert (woken_s, one) == (0.1, 1)
        assert chat.waits_s == [pytest.approx(60.1, abs=0.25)]
        ((asleep_s, _, none),) = later
        assert (none, len(chat.replicas)) == (0, 0)
        assert 60.0 + service_s + 10.0 <= asleep_s <= 60.0 + service_s + 10.0 + 3.0


def test_in_serves_loop_a_start_goes_on_though_the_call_that_woke_it_is_given_up() -> None:
    settings = AutoscalingConfig(min_replicas=0, max_replicas=4, downscale_to_zero_delay_s=10.0)
    chat = Deployment(APP, startup_s=60.0)
    serve = Serve({APP: ScaledApp(deployment=LLM, settings=settings)}, chat)
    serve.run(30.0)
    chat.queue.append(serve.now_s)
    serve.run(20.0)
    chat.queue.clear()
    ((asleep_s, _, none),) = serve.run(200.0)
    assert none == 0
    assert 50.0 <= asleep_s <= 53.0


def test_in_serves_loop_the_policy_is_not_asked_while_serve_wakes_by_itself() -> None:
    chat = Deployment(APP, startup_s=60.0)
    serve = Serve({APP: ScaledApp(deployment=LLM, settings=sleepy())}, chat)
    serve.run(10.0)
    asked = len(chat.asked_s)
    chat.queue.append(serve.now_s)
    serve.run(59.0)
    assert (chat.target, len(chat.asked_s)) == (1, asked)


def test_in_serves_loop_a_request_that_routers_hold_wakes_by_the_policy() -> None:
    chat = Deployment(APP, startup_s=60.0)
    serve = Serve({APP: ScaledApp(deployment=LLM, settings=sleepy())}, chat)
    serve.run(10.0)
    serve.hold(**{APP: 1})
    assert serve.run(2.0)[0][1:] == (APP, 1)
    assert chat.asked_s[-1] > 1010.0


def test_without_a_document_the_number_stays() -> None:
    wanted, state = QueueDepthPolicy(at=Desk(Memory()))(Controller(sleepy()).context(5, ready=2))
    assert (wanted, state) == (5, {})


def test_it_takes_no_argument_that_matters_and_uses_the_desk_of_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Desk(Memory())
    monkeypatch.setattr(module, "desk", lambda: own)
    assert QueueDepthPolicy(target_queue_depth=4)(Controller(sleepy()).context(5, ready=2)) == (5, {})


def test_serve_finds_it_by_its_name() -> None:
    policy = {"policy_function": "autoscaling.policy:QueueDepthPolicy", "policy_kwargs": {}}
    config = RayConfig.model_validate({"min_replicas": 0, "max_replicas": 8, "policy": policy})
    assert config.policy.get_policy().__name__ == QueueDepthPolicy.__name__
