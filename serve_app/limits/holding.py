"""Holding: what one Router holds of one key's limits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from serve_app.errors import Headers
from serve_app.limits.bucket import MINUTE_S, Bucket
from serve_app.limits.headers import limit_headers
from serve_app.limits.messages import KeyGrant, KeyReport, Quota, Tally

SYNC_S = 1.0  # grants that lay unused for so long go back
GRANT_S = 3.0  # a grant this old is used no more: it would count in another minute than it was made for
STALE_S = 3.0  # what was heard of tokens this long ago says nothing any more
LIVELY_S = 10.0  # a key that was used this recently stays in the exchange
MOST_AT_ONCE = 100
STANDBY_SLOTS = 4
STANDBY_SHARE = 16  # times the places at hand that a limit must have, so that these are few of all


@dataclass(slots=True)
class Holding:
    """Grants, places, and sums that the ledger has not confirmed yet."""

    quota: Quota
    requests: int = 0  # granted, not used
    granted_s: float = 0.0  # when the oldest of them came
    slots: int = 0  # places, in use or free
    told_slots: int = 0  # what the ledger believes of them
    in_use: int = 0
    tokens: int = 0
    alone: int = 0
    confirmed: tuple[int, int] = (0, 0)  # tokens, alone
    waiting: int = 0  # requests that wait for the next exchange
    last: KeyGrant | None = None
    heard_s: float = -math.inf
    used_s: float = -math.inf

    def can_admit(self, now_s: float) -> bool:
        """Whether a request may go on by what is held."""
        quota = self.quota
        if quota.requests_per_minute is not None and (self.requests < 1 or now_s - self.granted_s >= GRANT_S):
            return False
        if quota.concurrent_requests is not None and self.in_use >= self.slots:
            return False
        return quota.tokens_per_minute is None or (now_s - self.heard_s < STALE_S and self.tokens_left(now_s) > 0)

    def requests_left(self, now_s: float) -> float:
        """Return how many requests are left over all Routers, as far as is known here."""
        return self.requests + self._level(self.quota.requests_per_minute, now_s, lambda last: last.requests_left)

    def tokens_left(self, now_s: float) -> float:
        """Return how many tokens are left over all Routers, as far as is known here."""
        left = self._level(self.quota.tokens_per_minute, now_s, lambda last: last.tokens_left)
        return left - (self.tokens - (self.last.tokens if self.last else 0))

    def headers(self, now_s: float) -> Headers:
        """Return what a client may know of its limits."""
        requests, tokens, _ = self.quota
        made: Headers = () if requests is None else limit_headers("requests", requests, self.requests_left(now_s))
        return made if tokens is None else made + limit_headers("tokens", tokens, self.tokens_left(now_s))

    def use(self, now_s: float) -> None:
        """Use what one request needs."""
        if self.quota.requests_per_minute is not None:
            self.requests -= 1
        self.start(now_s)

    def start(self, now_s: float) -> None:
        """Count a request as open."""
        self.in_use += 1
        self.used_s = now_s

    def report(self, now_s: float) -> KeyReport | None:
        """Return what the ledger should hear now; what is returned by it is no longer held, whatever becomes of it."""
        is_old = now_s - self.granted_s >= SYNC_S
        returned = self.requests if is_old else 0
        self.requests -= returned
        free = max(0, self.slots - self.in_use)
        self.slots = self.in_use + (max(free // 2, min(free, self._standby_slots(now_s))) if is_old else free)
        if not (returned or self.waiting or self._has_news() or self._is_lively(now_s)):
            return None
        return KeyReport(
            quota=self.quota,
            returned=returned,
            slots=self.slots,
            tokens=Tally(self.tokens, self.confirmed[0]),
            alone=Tally(self.alone, self.confirmed[1]),
            want_requests=self._wanted_requests(now_s),
            want_slots=self._wanted_slots(now_s),
        )

    def take(self, grant: KeyGrant, told_slots: int, now_s: float) -> None:
        """Take what the ledger grants."""
        if grant.requests or grant.slots:
            self.granted_s = now_s if not self.requests else self.granted_s
        self.requests += grant.requests
        self.slots += grant.slots
        self.told_slots = told_slots + grant.slots
        self.confirmed = (grant.tokens, grant.alone)
        self.last, self.heard_s = grant, now_s

    def _has_news(self) -> bool:
        return self.slots > 0 or self.told_slots > 0 or self.confirmed != (self.tokens, self.alone)

    def _wanted_requests(self, now_s: float) -> int:
        limit = self.quota.requests_per_minute
        if limit is None:
            return 0
        batch = min(MOST_AT_ONCE, math.ceil(limit * SYNC_S / MINUTE_S))
        if self.waiting > self.requests:
            return max(self.waiting, batch)
        # A key in use has a second's worth at hand, so that its next request need not ask; one that is allowed less than a
        # few requests a second has not, as that would keep them from other Routers.
        is_rich = limit * SYNC_S / MINUTE_S >= STANDBY_SLOTS
        return max(0, batch - self.requests) if is_rich and self._is_lively(now_s) else 0

    def _wanted_slots(self, now_s: float) -> int:
        if self.quota.concurrent_requests is None:
            return 0
        return max(0, max(self.waiting, self._standby_slots(now_s)) - (self.slots - self.in_use))

    def _standby_slots(self, now_s: float) -> int:
        """Return how many free places are kept at hand: few, and none of a limit that is small."""
        places = self.quota.concurrent_requests or 0
        return STANDBY_SLOTS if places >= STANDBY_SHARE * STANDBY_SLOTS and self._is_lively(now_s) else 0

    def _is_lively(self, now_s: float) -> bool:
        return now_s - self.used_s < LIVELY_S

    def _level(self, limit: int | None, now_s: float, of: Callable[[KeyGrant], float]) -> float:
        if limit is None or self.last is None:
            return 0.0
        return min(limit, of(self.last) + (now_s - self.heard_s) * limit / MINUTE_S)


@dataclass(slots=True)
class OwnShare:
    """What one Router may do with a key while no ledger answers: an equal share of what flows in, nothing of what was there."""

    requests: Bucket | None
    tokens: Bucket | None

    @classmethod
    def of(cls, quota: Quota, routers: int, since_s: float) -> OwnShare:
        """Return the share of one of so many Routers."""
        requests, tokens, _ = quota
        return cls(
            None if requests is None else Bucket(requests / routers, 0.0, since_s),
            None if tokens is None else Bucket(tokens / routers, 0.0, since_s),
        )
