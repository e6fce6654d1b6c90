"""Conductor: begins and ends a run in all of Locust's processes, and gathers what they count.

Locust's own stop would cut what is open, or wait without telling anyone; its statistics keep neither gaps nor variants. So
three messages of our own go over its connection: begin (to workers, with the wall clock's time), report (from each, once a
second) and end (to workers, which let open requests end and then report for the last time). Without workers, Locust's one
process hears its own messages, and is both sides.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gevent

from loadtests.recorder import Event, Recorder
from loadtests.scenario import Scenario
from loadtests.shapes import stages
from loadtests.tally import Tally
from loadtests.users.sampler import Sample, Sampler
from loadtests.users.session import CURRENT, Place, Session
from loadtests.wire.client import HttpClient

BEGIN, REPORT, END = "manta_begin", "manta_report", "manta_end"
LEAD_S = 1.0  # from the message to the first request
REPORT_S = 1.0
LAG_S = 0.05
MOST_SAMPLES = 240
PATIENCE_S = 10.0  # for last reports, over the drain


class WorkerSide:
    """Sends requests, and reports."""

    def __init__(self, environment: Any, scenario: Scenario, api_key: str | None) -> None:
        self._environment = environment
        self._scenario = scenario
        self._api_key = api_key
        environment.runner.register_message(BEGIN, self._on_begin)
        environment.runner.register_message(END, self._on_end)

    def _on_begin(self, msg: Any, **_: Any) -> None:
        begin_s = time.perf_counter() + (msg.data["begin_unix_s"] - time.time())
        recorder = Recorder(self._scenario, begin_s, self._tell)
        place = Place(max(0, self._environment.runner.worker_index) % msg.data["workers"], msg.data["workers"])
        CURRENT.session = Session(self._scenario, recorder, begin_s=begin_s, place=place, api_key=self._api_key)
        gevent.spawn(self._report_on, CURRENT.session)
        gevent.spawn(_watch_lag, CURRENT.session)

    def _on_end(self, **_: Any) -> None:
        session = CURRENT.session
        if session is not None and not session.is_over:
            session.is_over = True
            gevent.spawn(self._wind_up, session)

    def _wind_up(self, session: Session) -> None:
        session.drain(self._scenario.drain)
        self._report(session, is_last=True)

    def _report_on(self, session: Session) -> None:
        while not session.is_over:
            gevent.sleep(REPORT_S)
            self._report(session)

    def _report(self, session: Session, *, is_last: bool = False) -> None:
        tally = json.dumps(session.recorder.take().to_json())
        busy_s = time.process_time()
        data = {
            "tally": tally,
            "open": session.open_requests,
            "busy_s": busy_s,
            "place": session.place.number,
            "is_last": is_last,
        }
        self._environment.runner.send_message(REPORT, data)

    def _tell(self, event: Event) -> None:
        self._environment.events.request.fire(
            request_type=event.request_type,
            name=event.name,
            response_time=event.response_time,
            response_length=event.response_length,
            exception=event.exception,
        )


def _watch_lag(session: Session) -> None:
    """Measure how late this process' own event loop is: every time here may be so much too long."""
    while not session.is_over:
        due_s = time.perf_counter() + LAG_S
        gevent.sleep(LAG_S)
        session.recorder.lag(max(0.0, time.perf_counter() - due_s))


class MasterSide:
    """Says when a run begins and ends, and gathers it.

    Attributes:
        tally: what was counted so far.
        samples: looks at the platform, oldest first.
    """

    def __init__(self, environment: Any, scenario: Scenario, *, api_key: str | None, out: Path | None) -> None:
        self._environment = environment
        self._scenario = scenario
        self._api_key = api_key
        self._out = out
        self._parent = os.getppid()
        self._stages = stages(scenario.load.shape, scenario.duration)
        environment.runner.register_message(REPORT, self._on_report)
        environment.events.test_start.add_listener(self._on_start)
        environment.events.test_stop.add_listener(self._on_stop)
        self._reset()

    def _reset(self) -> None:
        self.tally = Tally()
        self.samples: list[Sample] = []
        self._begin_unix_s = 0.0
        self._workers = 1
        self._open: dict[int, int] = {}
        self._busy_s: dict[int, tuple[float, float]] = {}  # by worker: CPU time at its first and its last report
        self._last: set[int] = set()
        self._ended_s: float | None = None
        self._sampler: Sampler | None = None

    @property
    def elapsed_s(self) -> float:
        """Return the time since the measured run began; negative before it."""
        return time.time() - self._begin_unix_s if self._begin_unix_s else -self._scenario.warmup - LEAD_S

    @property
    def is_ending(self) -> bool:
        """Return whether workers were told to end."""
        return self._ended_s is not None

    @property
    def is_gathered(self) -> bool:
        """Return whether every worker has reported for the last time, or will not any more."""
        if self._ended_s is None:
            return False
        return len(self._last) >= self._workers or self.elapsed_s > self._ended_s + self._scenario.drain + PATIENCE_S

    def end(self) -> None:
        """Tell workers to begin nothing more."""
        if self._ended_s is None:
            self._ended_s = self.elapsed_s
            self._environment.runner.send_message(END, {})

    def has_failed_a_step(self) -> bool:
        """Return whether a ramp is to end here: its last whole step had too large a share of failures."""
        limit = self._scenario.load.shape.stop_above
        done = [number for number, stage in enumerate(self._stages) if stage.end_s <= self.elapsed_s]
        cell = self.tally.stages.get(done[-1]) if done else None
        if limit is None or cell is None or not cell.totals["requests"]:
            return False
        return 1 - cell.outcomes["ok"] / cell.totals["requests"] > limit

    def _on_start(self, **_: Any) -> None:
        self._reset()
        self._workers = max(1, getattr(self._environment.runner, "worker_count", 1))
        self._begin_unix_s = time.time() + LEAD_S + self._scenario.warmup
        self._environment.runner.send_message(BEGIN, {"begin_unix_s": self._begin_unix_s, "workers": self._workers})
        gevent.spawn(self._sample)

    def _on_report(self, msg: Any, **_: Any) -> None:
        data = msg.data
        self.tally.merge(Tally.from_json(json.loads(data["tally"])))
        place = int(data["place"])
        self._open[place] = int(data["open"])
        first_s, _last_s = self._busy_s.get(place, (float(data["busy_s"]), 0.0))
        self._busy_s[place] = (first_s, float(data["busy_s"]))
        if data["is_last"]:
            self._last.add(place)

    def _on_stop(self, **_: Any) -> None:
        if self._out is not None:
            _write(self._out / "run.json", self.document())

    def document(self) -> dict[str, Any]:
        """Return the run as ``loadtests.figures`` takes it."""
        measured_s = self._scenario.duration if self._ended_s is None else min(self._scenario.duration, self._ended_s)
        return {
            "begin_unix_s": self._begin_unix_s,
            "measured_s": measured_s,
            "workers": self._workers,
            "silent_workers": self._workers - len(self._last),
            "busy_s": {str(place): last - first for place, (first, last) in self._busy_s.items()},
            "samples": [sample.to_json() for sample in self.samples],
            "why_no_platform": self._sampler.why_not if self._sampler is not None else "",
            "tally": self.tally.to_json(),
        }

    def _sample(self) -> None:
        """Look at the platform and tell how far the run is, until it is over."""
        http = HttpClient(self._scenario.target, self._api_key)
        sampler = self._sampler = Sampler(http)
        every_s = max(REPORT_S, (self._scenario.duration + self._scenario.warmup) / MOST_SAMPLES)
        due_s = -self._scenario.warmup
        while not self.is_gathered:
            if self.elapsed_s >= due_s and not self.is_ending:
                due_s += every_s
                sample = Sample(self.elapsed_s, sum(self._open.values()), self._environment.runner.user_count)
                self.samples.append(sampler.look(sample))
            if self._out is not None:
                self._tell_progress(self._out)
                _leave_with(self._parent)
            gevent.sleep(REPORT_S / 2)
        http.close()

    def _tell_progress(self, out: Path) -> None:
        cells = self.tally.entries.values()
        outcomes: dict[str, int] = {}
        for cell in cells:
            for outcome, count in cell.outcomes.items():
                outcomes[outcome] = outcomes.get(outcome, 0) + count
        slots = [slot for number, slot in self.tally.slots.items() if number >= 0]
        _write(
            out / "progress.json",
            {
                "elapsed_s": self.elapsed_s,
                "is_ending": self.is_ending,
                "open": sum(self._open.values()),
                "outcomes": outcomes,
                "tokens": sum(slot.tokens for slot in slots),
                "warmup": self.tally.warmup,
            },
        )


def _leave_with(parent: int) -> None:
    """End when whoever started the run was killed: nobody is left to end the load."""
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def _write(path: Path, document: Mapping[str, Any]) -> None:
    """Write a file at once, since another process reads it meanwhile."""
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(document), encoding="utf-8")
    unfinished.replace(path)
