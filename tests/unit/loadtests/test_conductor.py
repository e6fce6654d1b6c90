from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from loadtests.figures import figures
from loadtests.scenario import Scenario
from loadtests.tally import Cell
from loadtests.users import conductor
from loadtests.users.conductor import MasterSide, WorkerSide
from loadtests.users.dispatch import dispatch
from loadtests.users.session import CURRENT, Session
from tests.unit.loadtests.fakes import scenario
from tests.unit.loadtests.servers import DONE, Script, content, sending, serving, streamed

EVEN = {"mode": "open", "shape": {"kind": "constant", "level": 20, "cv": 0}}
CHAT = {"kind": "chat", "model": "chat", "lengths": {"prompt": {"tokens": 5}, "output": {"tokens": 2}}}
ANSWER = streamed(content("a"), content("b"), DONE)


class Event:
    """One of Locust's events."""

    def __init__(self) -> None:
        self.listeners: list[Callable[..., None]] = []

    def add_listener(self, listener: Callable[..., None]) -> None:
        self.listeners.append(listener)

    def fire(self, **fields: Any) -> None:
        for listener in self.listeners:
            listener(**fields)


class Runner:
    """Locust's runner of one process, which hears its own messages."""

    worker_index = 0
    user_count = 1

    def __init__(self) -> None:
        self.handlers: dict[str, Callable[..., None]] = {}

    def register_message(self, name: str, handler: Callable[..., None]) -> None:
        self.handlers[name] = handler

    def send_message(self, name: str, data: dict[str, Any]) -> None:
        self.handlers[name](environment=None, msg=SimpleNamespace(data=data))


@dataclass
class Stage:
    """Both sides of a run, and what Locust was told."""

    environment: Any
    master: MasterSide
    told: list[dict[str, Any]]


def staged(asked: Scenario, out: Path | None = None) -> Stage:
    events = SimpleNamespace(test_start=Event(), test_stop=Event(), request=Event())
    environment = SimpleNamespace(runner=Runner(), events=events)
    told: list[dict[str, Any]] = []
    events.request.add_listener(lambda **fields: told.append(fields))
    WorkerSide(environment, asked, None)
    return Stage(environment, MasterSide(environment, asked, api_key=None, out=out), told)


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(conductor, "LEAD_S", 0.05)
    monkeypatch.setattr(conductor, "REPORT_S", 0.05)
    yield
    CURRENT.session = None


def played(script: Script, out: Path, **fields: Any) -> tuple[Stage, Scenario]:
    """Run a scenario as Locust would."""
    with serving(script) as url:
        asked = scenario(target={"url": url}, mix=[CHAT], load=EVEN, drain=0.3, **fields)
        stage = staged(asked, out)
        stage.environment.events.test_start.fire()
        session = CURRENT.session
        assert isinstance(session, Session)
        gevent.spawn(dispatch, session, Path())
        while stage.master.elapsed_s < asked.duration:
            gevent.sleep(0.02)
        stage.master.end()
        stage.master.end()  # a second one changes nothing
        while not stage.master.is_gathered:
            gevent.sleep(0.02)
        stage.environment.events.test_stop.fire()
        gevent.sleep(0.1)  # the last look goes home
    return stage, asked


def test_a_run_is_gathered_and_written(tmp_path: Path) -> None:
    stage, asked = played(sending(*ANSWER), tmp_path, duration=0.5)
    document = json.loads((tmp_path / "run.json").read_text())
    seen = figures(asked, document)
    assert seen.total.ok == seen.total.requests > 0
    assert (document["silent_workers"], document["workers"]) == (0, 1)
    assert seen.lag.count > 0
    assert {event["request_type"] for event in stage.told} == {"POST", "TTFT", "ITL"}
    progress = json.loads((tmp_path / "progress.json").read_text())
    assert set(progress) == {"elapsed_s", "is_ending", "open", "outcomes", "tokens", "warmup"}
    assert (len(document["samples"]) > 0, document["why_no_platform"]) == (True, "/admin/status: the answer is not JSON")


def test_what_does_not_end_in_time_is_unfinished(tmp_path: Path) -> None:
    stage, _ = played(sending(*streamed(content("a"), is_whole=False)), tmp_path, duration=0.5)
    assert set(stage.master.tally.entries["chat"].outcomes) == {"unfinished"}


def test_before_a_run_there_is_nothing_to_gather() -> None:
    master = staged(scenario(warmup=3)).master
    assert (master.is_gathered, master.is_ending, master.elapsed_s) == (False, False, -3.05)


def test_a_worker_that_never_reports_is_not_waited_for_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    master = staged(scenario(drain=0.01)).master
    monkeypatch.setattr(conductor, "PATIENCE_S", -100.0)
    master._begin_unix_s = 1.0
    monkeypatch.setattr(master._environment.runner, "send_message", lambda *_: None)
    master.end()
    assert master.is_gathered
    assert master.document()["silent_workers"] == 1


RAMP = {"mode": "open", "shape": {"kind": "ramp", "level": 1, "peak": 2, "steps": 2, "stop_above": 0.5}}


@pytest.mark.parametrize(("good", "bad", "is_over"), [(1, 2, True), (2, 1, False), (0, 0, False)])
def test_a_ramp_ends_after_a_step_in_which_too_much_failed(good: int, bad: int, is_over: bool) -> None:
    master = staged(scenario(load=RAMP, duration=10)).master
    assert not master.has_failed_a_step()
    master._begin_unix_s = time.time() - 6  # the first step is over
    cell = master.tally.stages.setdefault(0, Cell())
    cell.outcomes.update(ok=good, timeout=bad)
    cell.totals.update(requests=good + bad)
    assert master.has_failed_a_step() is is_over


def test_whoever_was_left_alone_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    conductor._leave_with(os.getppid())
    assert sent == []
    conductor._leave_with(os.getppid() + 1)
    assert sent == [(os.getpid(), signal.SIGTERM)]
