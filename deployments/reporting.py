"""Reporting: a Router tells Rollouts every second what it has counted, and at once that a variant has to wake."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from serve_app.gateway import Gateway
from serve_app.rollout.telemetry import RouterReport, ShadowStats, VariantKey, VariantStats

logger = logging.getLogger("ray.serve")

REPORT_S = 1.0
REST_S = 0.2  # between two reports, however much there is to tell
TIMEOUT_S = 10.0


class Reporter:
    """Makes reports that are counted once: one that was not taken is sent again as it was, before anything newer."""

    def __init__(self, gateway: Gateway, *, router: str) -> None:
        self._gateway = gateway
        self._router = router
        self._seq = 0
        self._unsent: tuple[dict[VariantKey, VariantStats], dict[VariantKey, ShadowStats]] | None = None

    async def send(self, tell: Callable[[RouterReport], Awaitable[None]]) -> None:
        """Send what was counted since the last report that was taken. Raises what ``tell`` raises."""
        if self._unsent is None:
            self._seq += 1
            self._unsent = self._gateway.attempts.take(), self._gateway.shadows.take()
        stats, shadows = self._unsent
        report = RouterReport(
            router=self._router,
            seq=self._seq,
            table_version=self._gateway.view.table.version,
            stats=stats,
            waiting=self._gateway.attempts.waiting(self._compared()),
            shadows=shadows,
            held=self._gateway.needs.tell(),
        )
        # No wait_for: before Python 3.12 that may swallow a cancellation, and reporting would never end.
        async with asyncio.timeout(TIMEOUT_S):
            await tell(report)
        self._unsent = None

    async def rest(self) -> None:
        """Wait until the next report is due."""
        await asyncio.sleep(REST_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(REPORT_S - REST_S):
                await self._gateway.needs.news.wait()

    def _compared(self) -> list[VariantKey]:
        """Return every variant that shares a split: hangs elsewhere concern no rollout."""
        splits = self._gateway.view.table.splits
        return [(split.name, variant) for split in splits if len(split.shares) > 1 for variant in split.weights]


async def keep_reporting(reporter: Reporter, tell: Callable[[RouterReport], Awaitable[None]]) -> None:
    """Report for ever; while Rollouts is away, counting goes on."""
    is_away = False
    while True:
        await reporter.rest()
        try:
            await reporter.send(tell)
            is_away = False
        except Exception as err:
            if not is_away:
                logger.warning("Rollouts does not take reports; they are kept: %s", err)
            is_away = True
