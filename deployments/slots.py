"""Slots: places for a bounded number of requests, and a queue for the others."""

from __future__ import annotations

import asyncio


class Slots:
    """A context that at most ``count`` requests are in at a time; whoever finds no place waits in order.

    A request that is cancelled, waiting or inside, gives its place back.
    """

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)
        self.count = count
        self.waiting = 0
        self.running = 0
        self.arrived = 0  # since the beginning

    async def __aenter__(self) -> None:
        self.arrived += 1
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1
        self.running += 1

    async def __aexit__(self, *_: object) -> None:
        self.running -= 1
        self._free.release()
