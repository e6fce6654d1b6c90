"""Deadline: until when a request may take, counted from its arrival; every stage gets what is left of it."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from serve_app.errors import BadRequest, DeadlineExceeded, quoted

T = TypeVar("T")

TIMEOUT_HEADER = "x-request-timeout-s"
_SECONDS = re.compile(r"\d{1,9}(\.\d{0,9})?|\.\d{1,9}")


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in time, by a monotonic clock of its own; without ``ends_s`` there is none."""

    ends_s: float = math.inf
    limit_s: float = math.inf  # what the request was given, as its client is told
    clock: Callable[[], float] = time.monotonic

    @property
    def is_set(self) -> bool:
        """Whether there is one."""
        return self.ends_s != math.inf

    @property
    def is_over(self) -> bool:
        """Whether it has passed."""
        return self.is_set and self.left_s() <= 0

    def left_s(self) -> float:
        """Return the seconds until it, never fewer than none; infinite where there is none."""
        return max(0.0, self.ends_s - self.clock()) if self.is_set else math.inf

    def left_or_none(self) -> float | None:
        """Return the seconds until it, or None where there is none."""
        return self.left_s() if self.is_set else None

    def bound(self, seconds: float, *, share: float = 1.0) -> float:
        """Return the seconds that a stage may take which is allowed so many, and that share of what is left."""
        return min(seconds, share * self.left_s())

    def check(self, stage: str) -> None:
        """Raise DeadlineExceeded if it has passed before ``stage`` has begun."""
        if self.is_over:
            raise self.exceeded(stage)

    def exceeded(self, stage: str) -> DeadlineExceeded:
        """Return the error that says where the request was."""
        return DeadlineExceeded(f"the request was not answered within its {self.limit_s:g} s; stage {stage!r} was running")


NO_DEADLINE = Deadline()


def deadline_from(began_s: float, *limits_s: float | None, clock: Callable[[], float]) -> Deadline:
    """Return the deadline of a request that arrived at ``began_s``: the shortest of the limits that are there."""
    limit_s = min((limit for limit in limits_s if limit is not None), default=None)
    return NO_DEADLINE if limit_s is None else Deadline(began_s + limit_s, limit_s, clock)


def wished_timeout(value: str | None) -> float | None:
    """Return the seconds that a client gives its request. Raises BadRequest naming the header."""
    if value is None:
        return None
    text = value.strip()
    seconds = float(text) if _SECONDS.fullmatch(text) else 0.0
    if seconds <= 0:
        message = f"{TIMEOUT_HEADER} must be a positive number of seconds, such as 2.5, got {quoted(value)}"
        raise BadRequest(message, param=TIMEOUT_HEADER)
    return seconds


class StageLog(Protocol):
    """What knows the stages of a request."""

    def cut_off(self) -> str:
        """Note that the stage which was cancelled had run out of time, and return its name."""
        ...


async def in_time(work: Coroutine[Any, Any, T], deadline: Deadline, *, stages: StageLog) -> T:
    """Return what the work returns.

    Raises:
        DeadlineExceeded: the deadline passed first; the error names the stage that was cut off.
        Exception: what the work raises.
    """
    if not deadline.is_set:
        return await work
    try:
        async with asyncio.timeout(deadline.left_s()) as limit:
            return await work
    except TimeoutError as err:
        if not limit.expired():
            raise
        raise deadline.exceeded(stages.cut_off()) from err
