from __future__ import annotations

from deployments.limits import Limits
from serve_app.limits.book import Book
from serve_app.limits.ledger import SILENT_S
from tests.unit.serve_app.fakes import FakeClock
from tests.unit.serve_app.limits.escrow import caller


async def test_the_deployment_keeps_one_ledger_for_all_routers() -> None:
    clock = FakeClock()
    limits = Limits(clock)
    clock.now_s += SILENT_S
    books = [Book(name, clock=clock) for name in ("r0", "r1")]
    admitted = 0
    for book in books * 3:
        book.holding(caller(requests_per_minute=3)).waiting = 1
        message = book.message()
        book.take(message, await limits.exchange(message))
        admitted += book.try_admit(caller(requests_per_minute=3)) is not None
    assert admitted == 3


async def test_a_restart_is_another_epoch() -> None:
    message = Book("r0", clock=FakeClock()).message()
    assert (await Limits(FakeClock()).exchange(message)).epoch != (await Limits(FakeClock()).exchange(message)).epoch
