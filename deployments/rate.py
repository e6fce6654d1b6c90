"""Rate: events per second over the last seconds."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

STEPS = 10  # of the window; counting is so coarse that a busy engine costs no memory


class Rate:
    """Counts events and tells how many there were per second lately. Nothing happens: it falls to 0 within the window.

    Args:
        window_s: seconds to look back; also what a rate that begins takes to reach its value.
        clock: monotonic seconds.
    """

    def __init__(self, *, window_s: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._step_s = window_s / STEPS
        self._clock = clock
        self._counts: deque[tuple[int, int]] = deque()  # (number of the step, events in it)

    def add(self, count: int) -> None:
        """Count events that have just happened."""
        step = int(self._clock() // self._step_s)
        if self._counts and self._counts[-1][0] == step:
            count += self._counts.pop()[1]
        self._counts.append((step, count))
        self._forget(step)

    def per_s(self) -> float:
        """Return the events per second."""
        now_s = self._clock()
        step = int(now_s // self._step_s)
        self._forget(step)
        # The step that has just begun is short, so the time is what all of them cover and not the whole window.
        covered_s = now_s - (step - STEPS + 1) * self._step_s
        return sum(count for _, count in self._counts) / covered_s

    def _forget(self, step: int) -> None:
        while self._counts and self._counts[0][0] <= step - STEPS:
            self._counts.popleft()
