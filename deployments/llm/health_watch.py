"""HealthWatch: whether a replica's engine still generates. A process that runs and a port that answers do not say so."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from deployments.llm.generation_probe import ProbeOutcome, ProbeResult
from serve_app.config import HealthConfig

logger = logging.getLogger("ray.serve")

LOOK_EVERY_S = 1.0
RETRY_S = 5.0  # between probes of an engine under suspicion
SUSPECT_AFTER = 3  # requests that failed one after the other


@dataclass(frozen=True, slots=True)
class Signs:
    """What a replica sees of its engine without asking it."""

    open_requests: int
    answered: int  # requests with a whole answer: a counter
    failed_in_row: int  # requests since then that failed
    steps: int  # of the engine: a counter

    @property
    def work(self) -> tuple[int, int]:
        """What changes while the engine works."""
        return self.answered, self.steps


class Probe(Protocol):
    """Asks the engine for one token."""

    async def ask(self, timeout_s: float) -> ProbeResult:
        """Return what became of it; never raises."""
        ...


class HealthWatch:
    """Probes an engine that is idle, stands still or fails, and gives it up after several failed probes in a row.

    Traffic that is answered costs no probe. A probe counts against an engine only after one has succeeded: what never
    worked is no engine that broke, and the replica that would replace it were no better.
    """

    def __init__(
        self, probe: Probe, config: HealthConfig, *, signs: Callable[[], Signs], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``signs``: the replica's signs right now."""
        self._probe = probe
        self._config = config
        self._signs = signs
        self._clock = clock
        self._work = signs().work
        self._worked_at_s = clock()
        self._probed_at_s: float | None = None
        self._can_be_probed = False
        self._is_noted = False
        self._failures = 0
        self.failure = ""  # why the engine was given up; empty while it was not

    async def keep(self) -> None:
        """Look after the engine, for ever or until it is given up."""
        while not self.failure:
            try:
                await self.look()
            except Exception:
                logger.exception("the engine could not be looked after; it is tried again")
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Probe the engine if there is a reason to."""
        now_s, signs = self._clock(), self._signs()
        if signs.work != self._work:
            if signs.answered != self._work[0]:
                self._failures = 0
            self._work, self._worked_at_s = signs.work, now_s
        if (reason := self._reason(signs, now_s)) is None:
            return
        result = await self._probe.ask(self._config.probe_timeout_s)
        self._probed_at_s = self._clock()
        self._judge(result, reason, before=signs)

    def _reason(self, signs: Signs, now_s: float) -> str | None:
        """Return why to probe now, None to leave the engine alone."""
        if self._probed_at_s is None:
            return "it has just started"
        since_probe_s = now_s - self._probed_at_s
        if self._failures or (signs.failed_in_row >= SUSPECT_AFTER and self._can_be_probed):
            return f"its last {signs.failed_in_row} requests failed" if since_probe_s >= RETRY_S else None
        quiet_s = now_s - max(self._worked_at_s, self._probed_at_s)
        if quiet_s < self._config.probe_interval_s:
            return None
        return f"{signs.open_requests} requests are open and nothing was done for {now_s - self._worked_at_s:.0f} s"

    def _judge(self, result: ProbeResult, reason: str, *, before: Signs) -> None:
        after = self._signs()
        if result.outcome is ProbeOutcome.ANSWERED:
            self._can_be_probed, self._failures = True, 0
        elif after.answered != before.answered or (result.outcome is ProbeOutcome.LATE and after.work != before.work):
            self._failures = 0
            logger.info("a probe of the engine had no answer, but other requests are served: %s", result.detail)
        elif result.outcome is ProbeOutcome.REFUSED or not self._can_be_probed:
            self._failures = 0
            self._note(result)
        else:
            self._count(result, reason)

    def _note(self, result: ProbeResult) -> None:
        if self._is_noted:
            return
        self._is_noted = True
        logger.warning("this engine's answers cannot be probed, so only its processes are watched: %s", result.detail)

    def _count(self, result: ProbeResult, reason: str) -> None:
        self._failures += 1
        most = self._config.failures
        logger.warning("probe %d of %d of the engine failed (%s): %s", self._failures, most, reason, result.detail)
        if self._failures >= most:
            self.failure = f"the engine generates nothing any more: {self._failures} probes in a row failed; {result.detail}"
