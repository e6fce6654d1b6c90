"""Needs: the variants that a Router's requests wait for, or would have had rather than the one that answered them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from serve_app.pool import ReplicaPool, VariantKey

MISSED_S = 5.0  # a variant that answered nobody is missed this long after the last request that it should have had


class Needs:
    """What policies are to hear of requests that no replica has. One per Router, on its event loop.

    ``news`` is set when something should be told before the next report is due.
    """

    def __init__(self, pool: ReplicaPool, *, clock: Callable[[], float]) -> None:
        self.news = asyncio.Event()
        self._pool = pool
        self._clock = clock
        self._missed: dict[VariantKey, float] = {}
        self._told: frozenset[VariantKey] = frozenset()

    def wait(self, key: VariantKey) -> None:
        """Hear that a request begins to wait for a variant."""
        # How many more they are may wait for the next report: one is enough to start a replica.
        if key not in self._told and not self._pool.has_ready(*key):
            self.news.set()

    def miss(self, key: VariantKey) -> None:
        """Hear that a variant without a ready replica should have had a request, which another may answer meanwhile."""
        self._missed[key] = self._clock()
        self.wait(key)

    def tell(self) -> dict[VariantKey, int]:
        """Return the requests by variant; one that is only missed counts as one request."""
        self.news.clear()
        now_s = self._clock()
        self._missed = {key: at_s for key, at_s in self._missed.items() if self._is_missed(key, now_s - at_s)}
        told = dict.fromkeys(self._missed, 1) | self._pool.held()
        self._told = frozenset(told)
        return told

    def _is_missed(self, key: VariantKey, age_s: float) -> bool:
        return age_s <= MISSED_S and not self._pool.has_ready(*key)
