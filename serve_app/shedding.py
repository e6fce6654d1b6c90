"""Shedding: who is refused at once, because a place would come too late for it.

A queue that is longer than its callers' patience answers nobody in time, however fast the replicas are. So it is kept as short
as what the replicas work off within ``max_expected_wait_s``, and the others hear so while they can still go elsewhere.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from serve_app.errors import RateLimited
from serve_app.lease import VariantKey
from serve_app.pace import Pace

FEW = 4  # waiters ahead that are no queue to speak of
SHORT_S = 1.0  # a wait that is never too long: what is measured is not that exact
SLACK = 1.25  # times the bound before one who waits already is refused: a pace that wavers turns nobody away again
MOST_RETRY_AFTER_S = 600.0


class Reason(StrEnum):
    """Why a request got no place."""

    QUEUE_FULL = "queue_full"
    EXPECTED_WAIT = "expected_wait"
    DISPLACED = "displaced"


class Standing(NamedTuple):
    """Where a request stands, or would stand, while it waits for a variant."""

    key: VariantKey
    priority: int
    ahead: int  # those who get a place before it
    places: int | None  # that are taken on its replicas; None: none of them is ready, so no place can be expected


class Shedding:
    """Expects how long requests wait for their variants, and counts those that were refused."""

    def __init__(self, *, max_expected_wait_s: float = 60.0, clock: Callable[[], float]) -> None:
        self.max_expected_wait_s = max_expected_wait_s  # 0: nobody is refused for a wait that is only expected
        self.refused: Counter[tuple[str, str, str, str]] = Counter()  # by model, variant, priority and reason
        self._clock = clock
        self._paces: dict[VariantKey, Pace] = {}

    def pace(self, key: VariantKey) -> Pace:
        """Return how fast a variant's places go round."""
        found = self._paces.get(key)
        if found is None:
            found = self._paces[key] = Pace(self._clock)
        return found

    def forget(self, key: VariantKey) -> None:
        """Forget what is known of a variant that has no replicas left."""
        if (pace := self._paces.get(key)) is None:
            return
        pace.restart()
        if pace.is_idle:
            del self._paces[key]

    def expected_s(self, standing: Standing) -> float | None:
        """Return how long a request will wait, or None while there is nothing to tell it by."""
        if standing.places is None:
            return None
        per_s = self.pace(standing.key).per_s(standing.priority, places=standing.places)
        return None if per_s is None else (standing.ahead + 1) / per_s

    def judge(self, standing: Standing, *, left_s: float, slack: float = 1.0) -> RateLimited | None:
        """Return the refusal of a request whose place would come too late, and count it; None lets it wait.

        Args:
            standing: where it is, or would be, in the queue.
            left_s: how long it may wait by its own deadline.
            slack: times that its wait may be over the bound.
        """
        if standing.places is None:
            self.pace(standing.key).restart()  # the time without a replica says nothing about those to come
        bound_s = min(self.max_expected_wait_s, left_s)
        if standing.ahead < FEW or bound_s <= 0:  # whose time is up hears so elsewhere
            return None
        wait_s = self.expected_s(standing)
        if wait_s is None or wait_s <= max(slack * bound_s, SHORT_S):
            return None
        self.count(standing.key, standing.priority, Reason.EXPECTED_WAIT)
        return _overloaded(standing, wait_s, bound_s)

    def count(self, key: VariantKey, priority: int, reason: Reason) -> None:
        """Count one that was refused."""
        self.refused[*key, str(priority), reason.value] += 1


def _overloaded(standing: Standing, wait_s: float, bound_s: float) -> RateLimited:
    retry_after_s = math.ceil(min(wait_s, MOST_RETRY_AFTER_S))
    message = (
        f"model {standing.key[0]!r} is overloaded: {standing.ahead} requests wait before this one, for about "
        f"{retry_after_s} s, and it may wait {bound_s:.3g} s; try again later"
    )
    return RateLimited(message, retry_after_s=retry_after_s)
