"""Session: what the requests of one worker process share during one run."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import gevent

from loadtests.exchange import Exchange
from loadtests.outcomes import Outcome, RequestFailed
from loadtests.recorder import Recorder
from loadtests.scenario import Entry, Scenario
from loadtests.wire.client import HttpClient

IDLE_S = 0.05


@dataclass(frozen=True, slots=True)
class Place:
    """Which of the run's workers a process is."""

    number: int
    workers: int


@dataclass(slots=True)
class Task:
    """One thing to do: when it is to begin, its own chance, and the lengths that a trace gives."""

    intended_s: float
    chance: random.Random
    prompt_tokens: int | None = None
    output_tokens: int | None = None


class Session:
    """A run, as one worker process sees it.

    Attributes:
        begin_s: when the measured run begins, of `time.perf_counter`.
        is_over: whether no new request may begin.
    """

    def __init__(self, scenario: Scenario, recorder: Recorder, *, begin_s: float, place: Place, api_key: str | None) -> None:
        self.scenario = scenario
        self.recorder = recorder
        self.begin_s = begin_s
        self.place = place
        self.api_key = api_key
        self.http = HttpClient(scenario.target, api_key)
        self.is_over = False
        self.at_end: list[Callable[[], None]] = []  # what cleans up
        self._open: set[gevent.Greenlet] = set()
        self._is_dispatching = False

    @property
    def open_requests(self) -> int:
        """Return how many requests are under way."""
        return len(self._open)

    def claim_dispatch(self) -> bool:
        """Return whether the caller is the one to send this process' part of the schedule."""
        if self._is_dispatching:
            return False
        self._is_dispatching = True
        return True

    def exchange(self, seen: Exchange, attempt: Callable[[Exchange, float], None]) -> bool:
        """Run a request to its end and record it. Returns whether it went well.

        ``attempt`` takes the exchange and its deadline, and raises RequestFailed. A 429 or 503 is tried again where the
        scenario honours Retry-After; the clock runs on. A request that is still open when the run is over is recorded as
        unfinished.
        """
        me = gevent.getcurrent()
        self._open.add(me)
        try:
            self._attempts(seen, attempt)
        finally:
            self._open.discard(me)
            if seen.outcome is Outcome.UNFINISHED:
                seen.message = "still open when the run was over"
            seen.ended_s = seen.ended_s or time.perf_counter()
            self.recorder.record(seen)
        return seen.outcome is Outcome.OK

    def _attempts(self, seen: Exchange, attempt: Callable[[Exchange, float], None]) -> None:
        retry = self.scenario.retry
        for number in range(1, retry.attempts + 1):
            try:
                attempt(seen, time.perf_counter() + self.scenario.target.timeout)
                seen.outcome, seen.message = Outcome.OK, ""
            except RequestFailed as err:
                wait_s = err.retry_after_s
                may_ask = retry.honour == "retry-after" and number < retry.attempts and not self.is_over
                if may_ask and wait_s is not None and wait_s <= retry.longest:
                    seen.limited += int(err.outcome is Outcome.RATE_LIMITED)
                    gevent.sleep(wait_s)
                    continue
                seen.outcome, seen.message, seen.status = err.outcome, str(err), err.status
            return

    def drain(self, limit_s: float) -> int:
        """Let open requests end, and end the others after ``limit_s`` seconds. Returns how many those were."""
        until_s = time.perf_counter() + limit_s
        while self._open and time.perf_counter() < until_s:
            gevent.sleep(IDLE_S)
        left = list(self._open)
        gevent.killall(left, timeout=5)
        for clean_up in self.at_end:
            clean_up()
        self.http.close()
        return len(left)


@dataclass(slots=True)
class Current:
    """The run that is on, if there is one; users find it here, as Locust makes them."""

    session: Session | None = field(default=None)


CURRENT = Current()
Perform = Callable[[Session, Entry, Task], None]
