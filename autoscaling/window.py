"""Windows over time: the most or the least of the last seconds, and how long new replicas take to start."""

from __future__ import annotations

from collections import deque

FIRST_GUESS_S = 60.0
MOST_STARTUP_S = 3600.0
REMEMBERED = 20


class Extreme:
    """The extreme of the values of the last ``window_s`` seconds, with one comparison or so per value."""

    def __init__(self, *, is_max: bool) -> None:
        self._sign = 1 if is_max else -1
        self._kept: deque[tuple[float, int]] = deque()  # ever less extreme
        self._first_s: float | None = None

    def add(self, now_s: float, value: int, *, window_s: float) -> int:
        """Take a value, and return the extreme of the window that ends with it."""
        kept, sign = self._kept, self._sign
        if self._first_s is None:
            self._first_s = now_s
        while kept and sign * kept[-1][1] <= sign * value:
            kept.pop()
        kept.append((now_s, value))
        while kept[0][0] < now_s - window_s:
            kept.popleft()
        return kept[0][1]

    def covers(self, now_s: float, window_s: float) -> bool:
        """Whether values have come for as long as the window is."""
        return self._first_s is not None and now_s - self._first_s >= window_s


class Startup:
    """How long replicas take from being asked for to serving, as seen: the slower half of the last ones counts."""

    def __init__(self) -> None:
        self._asked: deque[float] = deque()  # when each of the replicas that are still starting was asked for
        self._took: deque[float] = deque(maxlen=REMEMBERED)
        self._target = 0
        self._ready = 0
        self._is_new = True

    def see(self, now_s: float, target: int, ready: int) -> None:
        """Look at a deployment again. What is starting at the first look was asked for nobody knows when."""
        if not self._is_new:
            more = max(0, ready - self._ready)
            known = min(more, len(self._asked))
            for _ in range(known):
                self._took.append(min(now_s - self._asked.popleft(), MOST_STARTUP_S))
            # Those that were asked for and serve within one look were asked for nobody knows when: Serve wakes by itself.
            self._asked.extend([now_s] * max(0, target - self._target - (more - known)))
        while self._asked and len(self._asked) > max(0, target - ready):
            self._asked.pop()  # taken back before it served
        self._is_new, self._target, self._ready = False, target, ready

    @property
    def seconds(self) -> float:
        """The third quartile of the last start times."""
        if not self._took:
            return FIRST_GUESS_S
        return sorted(self._took)[(3 * len(self._took)) // 4]

    def remaining_s(self, now_s: float, expected_s: float) -> float:
        """Return the seconds until the first of those that are starting serves; ``expected_s`` when none is."""
        return max(0.0, expected_s - (now_s - self._asked[0])) if self._asked else expected_s
