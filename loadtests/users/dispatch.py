"""Dispatch: one worker's part of an open loop's schedule, sent on time whatever the platform does."""

from __future__ import annotations

import random
import time
from pathlib import Path

import gevent
from gevent.pool import Group

from loadtests.scenario import Entry
from loadtests.schedule import Schedule, schedule
from loadtests.users.kinds import perform
from loadtests.users.session import Session, Task


def dispatch(session: Session, folder: Path) -> None:
    """Send every n-th request at its time, and return when all have ended or the run is over."""
    plan = schedule(session.scenario, folder=folder)
    running = Group()
    place, seed = session.place, session.scenario.seed
    for number in range(place.number, len(plan), place.workers):
        due_s = session.begin_s + float(plan.at_s[number])
        if (ahead_s := due_s - time.perf_counter()) > 0:
            gevent.sleep(ahead_s)
        if session.is_over:
            break
        # The number, not the worker, decides what is asked: more workers ask for the same.
        chance = random.Random(f"{seed}:{number}")
        running.start(gevent.Greenlet(perform, session, _pick(session, chance), _task(plan, number, due_s, chance=chance)))
    running.join()


def _pick(session: Session, chance: random.Random) -> Entry:
    mix = session.scenario.mix
    return chance.choices(mix, [entry.weight for entry in mix])[0]


def _task(plan: Schedule, number: int, due_s: float, *, chance: random.Random) -> Task:
    if plan.prompt_tokens is None or plan.output_tokens is None:
        return Task(due_s, chance)
    return Task(due_s, chance, int(plan.prompt_tokens[number]), int(plan.output_tokens[number]))
