"""The users that Locust starts: one class for each part of a closed loop's mix, one that sends an open loop's schedule."""

from __future__ import annotations

import itertools
import random
import time
from pathlib import Path
from typing import Any

import gevent
from locust import User, constant, task
from locust.exception import StopUser

from loadtests.scenario import Entry, Mode, Scenario
from loadtests.users.dispatch import dispatch
from loadtests.users.kinds import perform
from loadtests.users.session import CURRENT, Session, Task

_NUMBERS = itertools.count()


def user_classes(scenario: Scenario, folder: Path) -> dict[str, type[User]]:
    """Return the classes of a scenario, by their names."""
    if scenario.load.mode is Mode.OPEN:
        return {"Schedule": type("Schedule", (_Schedule,), {"folder": folder, "abstract": False})}
    named = {f"{''.join(part.capitalize() for part in entry.label.split('-'))}User": entry for entry in scenario.mix}
    wait = constant(scenario.load.think)
    return {
        name: type(name, (_Waiting,), {"entry": entry, "weight": entry.weight, "wait_time": wait, "abstract": False})
        for name, entry in named.items()
    }


class _Waiting(User):
    """A user who asks, waits for the answer, thinks, and asks again."""

    abstract = True
    entry: Entry

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        session = _session()
        number = next(_NUMBERS)
        self._chance = random.Random(f"{session.scenario.seed}:{session.place.number}:{number}")
        self.host = session.scenario.target.url

    @task
    def ask(self) -> None:
        """Do what its part of the mix says, once."""
        session = _session()
        if session.is_over:
            raise StopUser
        perform(session, self.entry, Task(time.perf_counter(), self._chance))


class _Schedule(User):
    """Nobody: sends what is due. There is one in each worker process."""

    abstract = True
    folder: Path

    @task
    def send(self) -> None:
        """Send this process' part of the schedule."""
        session = _session()
        if session.claim_dispatch():
            dispatch(session, self.folder)
        while not session.is_over:  # Locust would take a user that leaves for one that failed
            gevent.sleep(0.1)
        raise StopUser


def _session() -> Session:
    if CURRENT.session is None:
        raise StopUser("there is no run")
    return CURRENT.session
