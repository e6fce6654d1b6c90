"""Tries: a call to another deployment is sent again when Serve has lost it, within limits that keep a storm away.

What Ray 2.60 does by itself, and what it leaves to callers (paths below ``ray/serve/_private``, handle.py above it):

- A replica that dies before it has accepted a request costs nothing: the router sends the request to another one
  (router.py:1096, 1114) and goes on until one accepts (router.py:1148). With no replica left it waits without limit.
- Once a replica has accepted a request nobody repeats it. If the replica dies then, the caller hears ActorDiedError, or
  ActorUnavailableError while the cluster does not know yet (replica_result.py:218, 373, 389); the router only takes the
  replica out of its choice (router.py:935). So a RayActorError does not tell whether the method has run.
- DeploymentUnavailableError (router.py:1197) and ReplicaUnavailableError (router.py:1420) come before anything is sent.
- No option of a handle leaves a replica out (handle.py:1077). A frozen one is avoided all the same: the router compares
  what it has sent to two replicas, and a call that was given up still counts for the frozen one; when that count is too
  old (RAY_SERVE_QUEUE_LENGTH_CACHE_TIMEOUT_S, less than a try), the router asks, and takes one that answers
  (request_router.py:969).
- A call whose wait is cancelled goes on in its replica unless its response is cancelled as well (handle.py:554).
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from serve_app.config_router import RetryBudgetConfig
from serve_app.errors import DeadlineExceeded
from serve_app.retry_budget import RetryBudget

logger = logging.getLogger("ray.serve")

PAUSES_S = (0.05, 0.25)  # before the second and the third try, on average
TRY_S = 5.0  # after which another replica is tried
# Of a stage that is called by a stage: its own second try must come before its caller gives up on the first one.
INNER_TRY_S = TRY_S / 2
# With one a second besides, three questions a second used it up in five seconds where half of the replicas were lost.
BUDGET = RetryBudgetConfig(ratio=0.2, min_per_s=5.0)

Send = Callable[[float], Awaitable[Any]]  # starts a try; it is told the seconds that are left


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a call may take in all, and one try of it where another may follow."""

    total_s: float = 60.0
    try_s: float = TRY_S


@dataclass(frozen=True, slots=True)
class Lost:
    """Tells which errors mean that Serve has lost a call."""

    is_lost: Callable[[Exception], bool]  # it may have run
    was_never_sent: Callable[[Exception], bool]


@dataclass(slots=True)
class Tries:
    """The calls of one handle. ``spread`` returns what a pause is multiplied with, 1 on average."""

    app: str
    lost: Lost
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    spread: Callable[[], float] = lambda: random.uniform(0.5, 1.5)  # noqa: S311  (jitter, no secret)
    budget: RetryBudget = field(init=False)

    def __post_init__(self) -> None:
        self.budget = RetryBudget(clock=self.clock)

    async def write(self, send: Send) -> Any:
        """Return the call's result; it is sent again only if nobody can have got it. Raises what the last try raised."""
        self.budget.deposit()
        for pause_s in PAUSES_S:
            try:
                return await send(math.inf)
            except Exception as err:
                if not (self.lost.was_never_sent(err) and self.budget.take(BUDGET)):
                    raise
                await self._pause(pause_s, err)
        return await send(math.inf)

    async def read(self, send: Send, patience: Patience) -> Any:
        """Return the result of a call that does no harm when it runs twice.

        A try that Serve has lost, or that takes longer than ``try_s``, is followed by another one, two at most.

        Raises:
            DeadlineExceeded: there was no answer within ``total_s``.
            Exception: what the last try raised.
        """
        self.budget.deposit()
        ends_s = self.clock() + patience.total_s
        for pause_s in PAUSES_S:
            try:
                return await self._try(send, ends_s, patience)
            except _GaveUp as err:
                await self._pause(pause_s, err)
            except Exception as err:
                if not (self.lost.is_lost(err) and self.clock() + pause_s < ends_s and self.budget.take(BUDGET)):
                    raise
                await self._pause(pause_s, err)
        return await self._try(send, ends_s, patience, is_last=True)

    async def _try(self, send: Send, ends_s: float, patience: Patience, *, is_last: bool = False) -> Any:
        """Return a try's result. Raises _GaveUp when another one is to follow it."""
        left_s = ends_s - self.clock()
        if left_s <= 0:
            raise self._late(patience)
        task = asyncio.ensure_future(send(left_s))
        try:
            if not is_last and patience.try_s < left_s:
                await asyncio.wait([task], timeout=patience.try_s)
                # Without a retry to spend, the try that runs is the best that can be had.
                if not task.done() and self.budget.take(BUDGET):
                    message = f"no answer within {patience.try_s:g} s"
                    raise _GaveUp(message)
            await asyncio.wait([task], timeout=_wait_s(ends_s - self.clock()))
            if task.done():
                return task.result()
        finally:
            task.cancel()  # one that is done stays as it is
        raise self._late(patience)

    def _late(self, patience: Patience) -> DeadlineExceeded:
        return DeadlineExceeded(f"{self.app} gave no answer within {patience.total_s:.3g} s")

    async def _pause(self, pause_s: float, err: Exception) -> None:
        logger.warning("a call to %s is sent again: %s", self.app, err)
        await self.sleep(pause_s * self.spread())


class _GaveUp(Exception):
    """A try took too long, and another one is to follow."""


def _wait_s(left_s: float) -> float | None:
    return None if left_s == math.inf else max(0.0, left_s)
