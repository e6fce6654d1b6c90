"""Ledger: the one place that knows how much of every key's limits is left.

It grants Routers a few requests at a time (an escrow). What is granted counts as spent, so that the sum over all Routers
never exceeds a limit, whatever becomes of messages and Routers; what is granted and not used comes back with the next
exchange, or is lost with its Router.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from serve_app.limits.bucket import Bucket
from serve_app.limits.messages import KeyGrant, KeyReport, Limit, Message, Quota, Reply, Tally

SILENT_S = 5.0  # a Router that was not heard of for so long is gone, and its concurrent requests with it
SLOT_RETRY_S = 1.0  # nobody knows when a running request ends


@dataclass(slots=True)
class _Router:
    """What a Router has said."""

    number: int
    heard_s: float
    slots: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    alone: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Account:
    """What is left of a key's limits per minute."""

    requests: Bucket | None
    tokens: Bucket | None

    def fill(self) -> None:
        """Make them as full as they are at the first start of a platform."""
        for bucket in (self.requests, self.tokens):
            if bucket is not None:
                bucket.put(bucket.capacity)


class Ledger:
    """Accounts of all keys. In memory: a restart forgets them, and what it cannot know it takes as used up."""

    def __init__(self, *, epoch: str, clock: Callable[[], float]) -> None:
        self._epoch = epoch
        self._clock = clock
        self._started_s = clock()
        self._is_restart = False
        self._is_settled = False
        self._routers: dict[str, _Router] = {}
        self._accounts: dict[str, _Account] = {}

    def exchange(self, message: Message) -> Reply:
        """Take a Router's reports and return what it may do from now on. What arrives late changes nothing."""
        now_s = self._clock()
        self._forget_silent(now_s)
        router = self._routers.get(message.router)
        if router is None:
            router = self._routers[message.router] = _Router(message.number, now_s)
        elif message.number <= router.number:
            return Reply(self._epoch, len(self._routers), is_settled=False)
        router.number, router.heard_s = message.number, now_s
        self._is_restart |= message.epoch not in ("", self._epoch)
        for key, report in message.keys.items():
            self._take(router, key, report)
        if not self._settle(now_s):
            return Reply(self._epoch, len(self._routers), is_settled=False)
        grants = {key: self._grant(router, key, report) for key, report in message.keys.items()}
        return Reply(self._epoch, len(self._routers), is_settled=True, keys=grants)

    def _settle(self, now_s: float) -> bool:
        """Return whether every Router that lives must have spoken by now."""
        if not self._is_settled and now_s - self._started_s >= SILENT_S:
            self._is_settled = True
            if not self._is_restart:
                for account in self._accounts.values():
                    account.fill()
        return self._is_settled

    def _forget_silent(self, now_s: float) -> None:
        for name in [name for name, router in self._routers.items() if now_s - router.heard_s >= SILENT_S]:
            del self._routers[name]

    def _take(self, router: _Router, key: str, report: KeyReport) -> None:
        router.slots[key] = report.slots
        account = self._account(key, report.quota)
        tokens = _news(router.tokens, key, report.tokens)
        alone = _news(router.alone, key, report.alone)
        if account.tokens is not None:
            account.tokens.take(tokens)
        if account.requests is not None:
            account.requests.put(report.returned)
            account.requests.take(alone)

    def _account(self, key: str, quota: Quota) -> _Account:
        account = self._accounts.setdefault(key, _Account(None, None))
        account.requests = self._bucket(account.requests, quota.requests_per_minute)
        account.tokens = self._bucket(account.tokens, quota.tokens_per_minute)
        return account

    def _bucket(self, bucket: Bucket | None, limit: int | None) -> Bucket | None:
        if limit is None:
            return None
        now_s = self._clock()
        if bucket is None:
            # What a ledger before this one granted is not known: as if all had been used when it ended.
            is_used = self._is_restart or not self._is_settled
            bucket = Bucket(limit, 0.0, self._started_s) if is_used else Bucket(limit, limit, now_s)
        elif bucket.capacity != limit:
            bucket.resize(limit)
        bucket.refill(now_s)
        return bucket

    def _grant(self, router: _Router, key: str, report: KeyReport) -> KeyGrant:
        account, quota = self._accounts[key], report.quota
        free = _free(quota, sum(each.slots.get(key, 0) for each in self._routers.values()))
        refused, retry_after_s = self._refusal(account, report, free)
        requests = slots = 0
        if refused is None:
            requests = self._share(report.want_requests, account.requests.level if account.requests else 0)
            slots = self._share(report.want_slots, free)
        if account.requests is not None:
            account.requests.take(requests)
        router.slots[key] += slots
        return KeyGrant(
            requests=requests,
            slots=slots,
            requests_left=account.requests.level if account.requests else 0.0,
            tokens_left=account.tokens.level if account.tokens else 0.0,
            slots_left=free - slots,
            tokens=router.tokens.get(key, 0),
            alone=router.alone.get(key, 0),
            refused=refused,
            retry_after_s=retry_after_s,
        )

    def _share(self, want: int, left: float) -> int:
        """Return how much of what is left one Router gets: the others shall find something too."""
        return min(want, int(left), max(1, int(left / len(self._routers))))

    @staticmethod
    def _refusal(account: _Account, report: KeyReport, free: int) -> tuple[Limit | None, float]:
        if account.tokens is not None and account.tokens.level <= 0:
            return Limit.TOKENS, account.tokens.wait_s(1)
        if report.want_slots and free < 1:
            return Limit.CONCURRENCY, SLOT_RETRY_S
        if account.requests is not None and report.want_requests and account.requests.level < 1:
            return Limit.REQUESTS, account.requests.wait_s(1)
        return None, 0.0


def _news(known: dict[str, int], key: str, tally: Tally) -> int:
    """Return how much of a sum is new here, and remember it."""
    before = max(known.get(key, 0), tally.confirmed)
    known[key] = max(before, tally.total)
    return known[key] - before


def _free(quota: Quota, held: int) -> int:
    return 0 if quota.concurrent_requests is None else max(0, quota.concurrent_requests - held)
