"""FairQueue: work of several tenants, one of each in turn."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

Job = TypeVar("Job")


class FairQueue(Generic[Job]):
    """A queue in which nobody waits behind all that another tenant has put in."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[Job]] = {}  # the tenant whose turn it is comes first
        self._count = asyncio.Semaphore(0)

    def put(self, tenant: str, job: Job) -> None:
        """Add a job to its tenant's line."""
        self._lines.setdefault(tenant, deque()).append(job)
        self._count.release()

    async def get(self) -> Job:
        """Return the next job, waiting for one if there is none."""
        await self._count.acquire()
        tenant, line = next(iter(self._lines.items()))
        del self._lines[tenant]
        job = line.popleft()
        if line:
            self._lines[tenant] = line
        return job
