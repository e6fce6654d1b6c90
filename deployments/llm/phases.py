"""StartPhases: what a replica's start is doing right now, how long each part took, and how long it may take in all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from serve_app.storage.progress import OnProgress


class StartTimeout(RuntimeError):
    """A start took longer than it may."""


class StartPhases:
    """Times the parts of a start, which share one time limit.

    Attributes:
        current: the phase that runs; empty before the first and after the last.
        seconds: how long each phase took, in the order in which they ended.
    """

    def __init__(
        self,
        *,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
        on_end: Callable[[str, float], None] | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """``on_end``: told of each phase and its seconds; ``on_progress``: told of the download, by other threads."""
        self.current = ""
        self.seconds: dict[str, float] = {}
        self.on_progress = on_progress
        self._timeout_s = timeout_s
        self._clock = clock
        self._on_end = on_end
        self._begun_s = clock()

    @asynccontextmanager
    async def phase(self, name: str) -> AsyncIterator[None]:
        """Run one phase. What runs in it must end when it is cancelled.

        Raises:
            StartTimeout: the start's time was over before the phase was.
        """
        self.current = name
        begun_s = self._clock()
        left_s = self._begun_s + self._timeout_s - begun_s
        limit = asyncio.timeout(max(0.0, left_s))
        try:
            async with limit:
                yield
        except TimeoutError as err:
            if not limit.expired():
                raise
            raise StartTimeout(self._told(name, self._clock() - begun_s)) from err
        self.seconds[name] = self._clock() - begun_s
        self.current = ""
        if self._on_end is not None:
            self._on_end(name, self.seconds[name])

    def _told(self, name: str, lasted_s: float) -> str:
        before = "".join(f", {done} took {seconds:.0f} s" for done, seconds in self.seconds.items())
        return (
            f"the replica did not start within {self._timeout_s:.0f} s: {name} has run for {lasted_s:.0f} s{before}; "
            f"raise engine.start_timeout_s, or see the replica's log for what {name} waits for"
        )
