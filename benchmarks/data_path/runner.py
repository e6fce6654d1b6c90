"""Runs the plan: every system, started anew in every round, under every load; what fails is recorded and the run goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from benchmarks.data_path.accounting import Account
from benchmarks.data_path.contracts import Endpoint, Engine, FakeSpec, Load, Measurement, System
from benchmarks.data_path.plan import Group, Planned, Timing, order
from benchmarks.data_path.records import Begin, Done, Failure, RawFile, Row, Run, finished

FAILURE_CHARACTERS = 4000  # of a failure's text, from its end: that is where programs say why
Stage = Literal["start", "load", "end"]


class RunLoad(Protocol):
    """The load generator."""

    def __call__(self, endpoint: Endpoint, load: Load, *, hold: bool) -> Measurement:
        """Put the load on the endpoint; return what the client saw."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure."""

    engine: Literal["fake", "vllm"]
    systems: Sequence[str]
    groups: Sequence[Group]
    timing: Timing
    rounds: int
    seed: int

    def settings(self) -> dict[str, object]:
        """Return what has to be equal for results to belong together. More rounds or systems may be added to some."""
        return {
            "loads": [planned.load.name for group in self.groups for planned in group.planned],
            "paces": [f"{group.spec.ttft_ms:g} ms then every {group.spec.itl_ms:g} ms" for group in self.groups],
            "duration_s": self.timing.duration_s,
            "warmup_s": self.timing.warmup_s,
            "tokens": self.timing.tokens,
            "seed": self.seed,
        }


@dataclass(frozen=True, slots=True)
class Rig:
    """What it is measured with. Tests put fakes here."""

    system: Callable[[str], System]
    engine: Callable[[FakeSpec], AbstractContextManager[Engine]]
    run_load: RunLoad
    facts: Callable[[], Mapping[str, object]]


class Runner:
    """One run of a plan into a raw file."""

    def __init__(self, plan: Plan, rig: Rig, raw: RawFile, *, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._rig = rig
        self._raw = raw
        self._say = say

    def run(self) -> None:
        """Measure every pair of round and system that the raw file does not hold yet. Raises ValueError on other settings."""
        records = self._raw.read()
        settings = self._plan.settings()
        if any(record.settings != settings for record in records if isinstance(record, Run)):
            raise ValueError(f"{self._raw.path} holds results of other loads or settings; give another folder with --out")
        self._raw.append(Run(engine=self._plan.engine, settings=settings, machine=self._rig.facts()))
        done = finished(records)
        for number in range(1, self._plan.rounds + 1):
            for system in order(self._plan.systems, round_number=number, seed=self._plan.seed):
                if (number, system) not in done:
                    self._turn(number, system)

    def _turn(self, number: int, system: str) -> None:
        self._say(f"round {number}/{self._plan.rounds}: {system}")
        self._raw.append(Begin(round=number, system=system))
        failures = [failure for group in self._plan.groups for failure in self._group(group, number, system)]
        self._raw.append(Done(round=number, system=system, is_clean=not failures))

    def _group(self, group: Group, number: int, system: str) -> list[Failure]:
        failures: list[Failure] = []
        stage: Stage = "start"
        try:
            with self._rig.engine(group.spec) as engine, self._rig.system(system).running(engine) as endpoint:
                stage = "load"
                endpoint = replace(endpoint, pids=with_engine(endpoint.pids, engine.endpoint.pids))
                turn = _Turn(number, system, engine.spec)
                failures += self._loads(group, endpoint, turn)
                stage = "end"
        except Exception as err:
            failures.append(self._failed(err, Failure(number, system, stage, None, "")))
        return failures

    def _loads(self, group: Group, endpoint: Endpoint, turn: _Turn) -> list[Failure]:
        failures = []
        for planned in (Planned(group.warm_up), *group.planned):
            try:
                self._load(planned, endpoint, turn, is_kept=planned.load is not group.warm_up)
            except Exception as err:
                failures.append(self._failed(err, Failure(turn.round, turn.system, "load", planned.load.name, "")))
        return failures

    def _load(self, planned: Planned, endpoint: Endpoint, turn: _Turn, *, is_kept: bool) -> None:
        # Each round has arrivals of its own; all systems of a round meet the same.
        load = replace(planned.load, seed=self._plan.seed + turn.round)
        before = os.getloadavg()
        with Account(endpoint.pids, detail_after_s=load.duration_s / 2 if planned.hold else None) as account:
            started = time.monotonic()
            measurement = self._rig.run_load(endpoint, load, hold=planned.hold)
            ended = time.monotonic()
        if not is_kept:
            return
        # Held streams count while all are open: streams start one by one and end so, the window lies in the middle.
        idle = max(0.0, ended - started - measurement.seconds)
        window = started + (idle / 2 if planned.hold else load.warmup_s)
        costs = account.costs(window, window + measurement.seconds)
        self._raw.append(Row(turn.round, turn.system, load, turn.spec, measurement, costs, before))
        self._say(f"  {load.name}: {measurement.tokens_per_s:.0f} tokens/s, {sum(measurement.errors.values())} errors")

    def _failed(self, err: Exception, failure: Failure) -> Failure:
        text = f"{type(err).__name__}: {err}"[-FAILURE_CHARACTERS:]
        failure = replace(failure, text=text)
        self._raw.append(failure)
        self._say(f"  {failure.stage} failed ({failure.load or 'no load'}): {text.splitlines()[0]}")
        return failure


def with_engine(system: Mapping[str, Sequence[int]], engine: Mapping[str, Sequence[int]]) -> dict[str, Sequence[int]]:
    """Return the system's roles and the engine's; a system that runs an engine of its own names that one itself.

    The engine's come last and so own their processes, even where a system counts all that it found running as its own.
    """
    return {role: pids for role, pids in system.items() if role not in engine} | {
        role: system.get(role, pids) for role, pids in engine.items()
    }


@dataclass(frozen=True, slots=True)
class _Turn:
    """Whose measurements these are."""

    round: int
    system: str
    spec: FakeSpec | None
