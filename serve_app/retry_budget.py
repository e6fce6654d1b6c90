"""RetryBudget: how many requests may be sent once more, so that retries never become the load that keeps replicas down.

A share of the requests and a few besides, over a sliding window, as in Finagle's retry budget
(https://twitter.github.io/finagle/guide/Clients.html#retries) and Envoy's
(https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/circuit_breaking, "cluster retry budgets").
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from serve_app.config_router import RetryBudgetConfig

WINDOW_S = 10


@dataclass(slots=True)
class _Second:
    number: int
    requests: int = 0
    retries: int = 0


class RetryBudget:
    """The budget of one model. In no ``WINDOW_S`` seconds are there more retries than its limits give for them."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seconds: deque[_Second] = deque()
        self._requests = self._retries = 0  # within the window

    def deposit(self) -> None:
        """Count a request."""
        self._now().requests += 1
        self._requests += 1

    def take(self, limits: RetryBudgetConfig) -> bool:
        """Count a retry, if there may be one more."""
        if not self.has_room(limits):
            return False
        self._now().retries += 1
        self._retries += 1
        return True

    def has_room(self, limits: RetryBudgetConfig) -> bool:
        """Whether there may be one more retry."""
        self._now()
        # Rounding must not cost a retry that is whole but for the last digit, as of 5 times 0.2.
        return self._retries + 1 <= limits.ratio * self._requests + limits.min_per_s * WINDOW_S + 1e-9

    def _now(self) -> _Second:
        number = int(self._clock())
        seconds = self._seconds
        while seconds and seconds[0].number <= number - WINDOW_S:
            old = seconds.popleft()
            self._requests -= old.requests
            self._retries -= old.retries
        if not seconds or seconds[-1].number < number:
            seconds.append(_Second(number))
        return seconds[-1]


class RetryBudgets:
    """The budgets of one Router, by model. Single-threaded: every method runs on its event loop."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self.limits = RetryBudgetConfig()
        self.taken: Counter[str] = Counter()  # retries, by model
        self.refused: Counter[str] = Counter()
        self._clock = clock
        self._budgets: dict[str, RetryBudget] = {}

    def deposit(self, model: str) -> None:
        """Count a request. Only for models that are served: a name costs memory."""
        self._of(model).deposit()

    def has_room(self, model: str) -> bool:
        """Whether one more request may be sent once more; nothing is counted."""
        return self._of(model).has_room(self.limits)

    def take(self, model: str) -> bool:
        """Return whether one more request may be sent once more, and count that."""
        may = self._of(model).take(self.limits)
        (self.taken if may else self.refused)[model] += 1
        return may

    def _of(self, model: str) -> RetryBudget:
        budget = self._budgets.get(model)
        if budget is None:
            budget = self._budgets[model] = RetryBudget(clock=self._clock)
        return budget
