"""EscrowAdmission: a Router's admission by grants of the ledger, kept up by one exchange at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from serve_app.config_auth import ApiKeyConfig
from serve_app.errors import RateLimited
from serve_app.limits.book import Book
from serve_app.limits.holding import SYNC_S
from serve_app.limits.messages import Message, Reply, quota_of
from serve_app.limits.permit import UNLIMITED, Permit

logger = logging.getLogger("ray.serve")

EXCHANGE_TIMEOUT_S = 1.0
PATIENCE_S = 5.0  # a request waits no longer for its turn at the ledger

Exchange = Callable[[Message], Awaitable[Reply]]


class EscrowAdmission:
    """Admits by what is held here, else asks; requests that wait are answered together by one exchange.

    ``keep`` must run as a task for as long as requests are admitted.
    """

    def __init__(self, exchange: Exchange, *, router: str, clock: Callable[[], float]) -> None:
        self._exchange = exchange
        self._clock = clock
        self._book = Book(router, clock=clock)
        self._wanted = asyncio.Event()
        self._round = asyncio.Event()  # set when the exchange that the waiting requests are in is over

    async def admit(self, caller: ApiKeyConfig) -> Permit:
        """Return the permit of one request. A caller without limits costs nothing.

        Raises:
            RateLimited: a limit of the key is reached.
            Unavailable: this Router has not heard of the limits yet.
        """
        if quota_of(caller).is_unlimited:
            return UNLIMITED
        permit = self._book.try_admit(caller)
        return await self._ask(caller) if permit is None else permit

    async def keep(self, is_on: Callable[[], bool]) -> None:
        """Exchange with the ledger for ever: at once when a request waits, else every ``SYNC_S``, while ``is_on``."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(SYNC_S):  # not wait_for: Python 3.11's may lose a cancellation
                    await self._wanted.wait()
            if self._wanted.is_set() or is_on():
                await self.exchange()

    async def exchange(self) -> None:
        """Exchange once with the ledger; a ledger that does not answer leaves this Router alone."""
        self._wanted.clear()
        ended, self._round = self._round, asyncio.Event()
        message = self._book.message()
        try:
            async with asyncio.timeout(EXCHANGE_TIMEOUT_S):
                reply = await self._exchange(message)
            self._book.take(message, reply)
        except Exception as err:
            self._book.lost(str(err) or type(err).__name__)
        finally:
            ended.set()

    async def _ask(self, caller: ApiKeyConfig) -> Permit:
        held = self._book.holding(caller)
        deadline_s = self._clock() + PATIENCE_S
        held.waiting += 1
        try:
            while self._clock() < deadline_s:
                # Alone there is nobody to ask: the answer of the last exchange that failed holds until one succeeds.
                if not self._book.is_alone:
                    await self._next_round()
                if (permit := self._book.try_admit(caller)) is not None:
                    return permit
                if (refusal := self._book.refusal(caller)) is not None:
                    raise refusal
        finally:
            held.waiting -= 1
        raise RateLimited("too many requests of this API key wait at the same time", retry_after_s=1)

    async def _next_round(self) -> None:
        self._wanted.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await self._round.wait()
