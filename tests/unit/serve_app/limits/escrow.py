"""Several Routers' books and one ledger on a clock of their own, over a wire that loses and delays."""

from __future__ import annotations

from collections.abc import Callable

from serve_app.config import ApiKeyConfig
from serve_app.limits.book import Book
from serve_app.limits.ledger import SILENT_S, Ledger
from serve_app.limits.messages import Message, Reply
from serve_app.limits.permit import Permit
from serve_app.view import ANONYMOUS
from tests.unit.serve_app.fakes import FakeClock


def caller(**limits: int | None) -> ApiKeyConfig:
    return ANONYMOUS.model_copy(update={"name": "ann", **limits})


class World:
    """A settled ledger and Routers that it has heard of."""

    def __init__(self, who: ApiKeyConfig, *, routers: int = 2) -> None:
        self.clock = FakeClock()
        self.who = who
        self.ledger = Ledger(epoch="one", clock=self.clock)
        self.books = [Book(f"r{i}", clock=self.clock) for i in range(routers)]
        self.heard_s = [self.clock.now_s] * routers
        self.open: list[list[Permit]] = [[] for _ in range(routers)]
        self.admitted_s: list[float] = []
        self.late: list[Callable[[], object]] = []
        self.clock.now_s += SILENT_S
        for i in (*range(routers), *range(routers)):  # twice: then each knows how many there are
            self.exchange(i)

    def exchange(self, i: int, *, outcome: str = "ok") -> None:
        """Exchange once: ``ok``, or the message is ``lost``, the reply is lost (``unanswered``), the message comes ``late``."""
        message = self.books[i].message()
        if outcome == "late":
            self.late.append(lambda: self._deliver(i, message))
        elif outcome != "lost":
            reply = self._deliver(i, message)
            if outcome == "ok":
                self.books[i].take(message, reply)

    def _deliver(self, i: int, message: Message) -> Reply:
        self.heard_s[i] = self.clock.now_s
        return self.ledger.exchange(message)

    def request(self, i: int, *, outcome: str = "ok", want: int = 1) -> Permit | None:
        """Return a permit of Router i, after one exchange if need be; ``want`` requests wait with this one."""
        book = self.books[i]
        permit = book.try_admit(self.who)
        if permit is None and not book.is_alone:
            held = book.holding(self.who)
            held.waiting += want
            self.exchange(i, outcome=outcome)
            held.waiting -= want
            permit = book.try_admit(self.who)
        if permit is not None:
            self.admitted_s.append(self.clock.now_s)
            self.open[i].append(permit)
        return permit

    def burst(self, count: int) -> int:
        """Return how many of so many requests are admitted, spread over the Routers."""
        return sum(self.request(n % len(self.books)) is not None for n in range(count))

    def release(self, i: int) -> None:
        if self.open[i]:
            self.open[i].pop().release()

    def wait(self, seconds: float) -> None:
        self.clock.now_s += seconds

    def deliver(self, n: int) -> None:
        """Let a late message arrive, if so many are on their way."""
        if n < len(self.late):
            self.late.pop(n)()

    def die(self, i: int) -> None:
        """Replace a Router by a new one; its streams end with it."""
        self.books[i] = Book(f"{self.books[i]._router}+", clock=self.clock)
        self.heard_s[i] = self.clock.now_s
        self.open[i] = []

    def is_open(self) -> int:
        return sum(map(len, self.open))
