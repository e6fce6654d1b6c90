"""BusyShare: how much of one core this process uses, the load of a stage that is one event loop."""

from __future__ import annotations

import time
from collections.abc import Callable

SHORTEST_S = 0.1  # of less time, a share says nothing


class BusyShare:
    """Measures the share of a core that the process has used between two looks.

    Threads beside the event loop count too, so it is rather too high than too low; over 1 is 1.

    Args:
        cpu: CPU seconds of the process so far.
        clock: monotonic seconds.
    """

    def __init__(self, *, cpu: Callable[[], float] = time.process_time, clock: Callable[[], float] = time.monotonic) -> None:
        self._cpu = cpu
        self._clock = clock
        self._cpu_s, self._at_s = cpu(), clock()
        self._share = 0.0

    def take(self) -> float:
        """Return the share since the last look, 0..1; a look right after another one returns what that one did."""
        cpu_s, now_s = self._cpu(), self._clock()
        if (passed_s := now_s - self._at_s) >= SHORTEST_S:
            self._share = min(1.0, max(0.0, (cpu_s - self._cpu_s) / passed_s))
            self._cpu_s, self._at_s = cpu_s, now_s
        return self._share
