"""Book: all that one Router holds of the keys' limits, and what it says to the ledger. No I/O, no awaits."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from serve_app.config_auth import ApiKeyConfig
from serve_app.errors import Headers, PlatformError, RateLimited, Unavailable
from serve_app.limits.holding import Holding, OwnShare
from serve_app.limits.messages import Limit, Message, Reply, quota_of
from serve_app.limits.permit import Permit

logger = logging.getLogger("ray.serve")

RETRY_S = 1.0


class Book:
    """A Router's side of the escrow."""

    def __init__(self, router: str, *, clock: Callable[[], float]) -> None:
        self._router = router
        self._clock = clock
        self._holdings: dict[str, Holding] = {}
        self._shares: dict[str, OwnShare] = {}
        self._number = 0
        self._epoch = ""
        self._routers = 0  # heard of by the ledger; 0: it was never reached
        self._alone_since_s: float | None = None

    @property
    def is_alone(self) -> bool:
        """Whether the ledger was not to be reached at the last exchange."""
        return self._alone_since_s is not None

    def holding(self, caller: ApiKeyConfig) -> Holding:
        """Return what is held for a key, with its limits of now."""
        quota = quota_of(caller)
        held = self._holdings.get(caller.name)
        if held is None:
            held = self._holdings[caller.name] = Holding(quota)
        if held.quota != quota:
            held.quota = quota
            self._shares.pop(caller.name, None)
        return held

    def try_admit(self, caller: ApiKeyConfig) -> Permit | None:
        """Return a permit if what is held here allows one more request."""
        held, now_s = self.holding(caller), self._clock()
        if held.can_admit(now_s):
            held.use(now_s)
        elif self.is_alone and self._refused_alone(caller.name, held, now_s) is None:
            if (bucket := self._share(caller.name, held).requests) is not None:
                bucket.take(1)
                held.alone += 1
            held.start(now_s)
        else:
            return None
        charge = None if held.quota.tokens_per_minute is None else partial(self._charge, caller.name)
        return Permit(headers=held.headers(now_s), charge=charge, release=partial(self._release, caller.name))

    def refusal(self, caller: ApiKeyConfig) -> PlatformError | None:
        """Return why a request was refused at the last exchange, or None when it was not."""
        held, now_s = self.holding(caller), self._clock()
        if self.is_alone:
            if not self._routers:
                return Unavailable("the limits of this API key are not known here yet; try again", retry_after_s=RETRY_S)
            limit, wait_s = self._refused_alone(caller.name, held, now_s) or (None, 0.0)
        else:
            limit, wait_s = (held.last.refused, held.last.retry_after_s) if held.last else (None, 0.0)
        return None if limit is None else _limited(limit, wait_s, held=held, headers=held.headers(now_s))

    def message(self) -> Message:
        """Return what the ledger should hear now. Whatever it gives back is given back, also when it is lost."""
        now_s = self._clock()
        self._number += 1
        reports = {name: report for name, held in self._holdings.items() if (report := held.report(now_s)) is not None}
        return Message(self._router, self._number, self._epoch, reports)

    def take(self, message: Message, reply: Reply) -> None:
        """Take the ledger's answer to a message."""
        if not reply.is_settled:
            self.lost("it has just started")
            return
        if self.is_alone:
            logger.info("the ledger of limits answers again")
        self._alone_since_s = None
        self._shares.clear()
        self._epoch, self._routers = reply.epoch, reply.routers
        now_s = self._clock()
        for name, grant in reply.keys.items():
            self._holdings[name].take(grant, message.keys[name].slots, now_s)

    def lost(self, why: str) -> None:
        """Go on alone: the ledger did not answer."""
        if self._alone_since_s is not None:
            return
        self._alone_since_s = self._clock()
        logger.warning(
            "the ledger of limits does not answer (%s); until it does, this Router admits a share of 1/%s of each limit, "
            "so that all Routers together stay within it",
            why,
            self._routers or "?",
        )

    def _share(self, name: str, held: Holding) -> OwnShare:
        if name not in self._shares:
            since_s = self._clock() if self._alone_since_s is None else self._alone_since_s
            self._shares[name] = OwnShare.of(held.quota, max(1, self._routers), since_s)
        return self._shares[name]

    def _refused_alone(self, name: str, held: Holding, now_s: float) -> tuple[Limit, float] | None:
        if not self._routers:
            return Limit.REQUESTS, RETRY_S
        share = self._share(name, held)
        if share.tokens is not None and share.tokens.refill(now_s) <= 0:
            return Limit.TOKENS, share.tokens.wait_s(1)
        if (places := held.quota.concurrent_requests) is not None:
            # Those that were free when the ledger was last heard are shared out, too.
            free = held.last.slots_left if held.last else places
            if held.in_use >= held.slots + free // self._routers:
                return Limit.CONCURRENCY, RETRY_S
        if share.requests is not None and share.requests.refill(now_s) < 1:
            return Limit.REQUESTS, share.requests.wait_s(1)
        return None

    def _charge(self, name: str, tokens: int) -> None:
        self._holdings[name].tokens += tokens
        share = self._shares.get(name)
        if share is not None and share.tokens is not None:
            share.tokens.take(tokens)

    def _release(self, name: str) -> None:
        self._holdings[name].in_use -= 1


def _limited(limit: Limit, wait_s: float, *, held: Holding, headers: Headers) -> RateLimited:
    wait_s = max(wait_s, 0.001)
    number = dict(zip(Limit, held.quota, strict=True))[limit]
    message = f"this API key's limit of {number} {limit} is reached; try again in {wait_s:.1f} s"
    error = RateLimited(message, retry_after_s=wait_s, headers=headers)
    error.limit = limit.name.lower()
    return error
