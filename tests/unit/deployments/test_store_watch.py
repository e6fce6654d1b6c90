from __future__ import annotations

import asyncio
import contextlib

import pytest

from deployments.store_watch import HUNG_S, UNHEALTHY_AFTER, UNHEALTHY_AFTER_S, StoreWatch
from serve_app.errors import EmptyCollection, Unavailable
from tests.unit.serve_app.fakes import FakeClock

LOST = ConnectionError("lost")


class Bench:
    """A watch whose calls take as long and end as a test says."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.watch = StoreWatch(self.clock)

    def call(self, error: BaseException | None = None, *, lasts_s: float = 0.0, is_search: bool = True) -> None:
        expected = contextlib.suppress(type(error)) if error is not None else contextlib.nullcontext()
        with expected, self.watch.watched(is_search=is_search):
            self.clock.now_s += lasts_s
            if error is not None:
                raise error

    def calls(self, error: BaseException, *, count: int = UNHEALTHY_AFTER, lasts_s: float = UNHEALTHY_AFTER_S) -> None:
        for _ in range(count):
            self.call(error, lasts_s=lasts_s / count)

    def is_ill(self) -> bool:
        try:
            self.watch.check()
        except RuntimeError:
            return True
        return False


@pytest.mark.parametrize("error", [LOST, Unavailable("cannot be read now"), asyncio.CancelledError()], ids=str)
def test_calls_that_only_fail_for_long_make_it_ill_until_a_search_works(error: BaseException) -> None:
    bench = Bench()
    bench.calls(error)
    seen = [bench.is_ill()]
    bench.call()
    assert [*seen, bench.is_ill()] == [True, False]


def test_the_reason_is_told() -> None:
    bench = Bench()
    bench.calls(asyncio.CancelledError())
    with pytest.raises(
        RuntimeError, match="the last 10 calls of the vector store failed, for 300 s now; no answer within 30 s"
    ):
        bench.watch.check()


@pytest.mark.parametrize(
    ("count", "lasts_s"),
    [(UNHEALTHY_AFTER - 1, UNHEALTHY_AFTER_S), (UNHEALTHY_AFTER, UNHEALTHY_AFTER_S - 1)],
    ids=["few", "not-for-long"],
)
def test_few_failures_and_short_ones_are_no_reason(count: int, lasts_s: float) -> None:
    bench = Bench()
    bench.calls(LOST, count=count, lasts_s=lasts_s)
    assert not bench.is_ill()


def test_what_a_store_says_of_a_collection_is_an_answer() -> None:
    bench = Bench()
    bench.calls(LOST)
    bench.call(EmptyCollection("docs"))
    assert not bench.is_ill()


def test_callers_that_leave_soon_say_nothing_of_the_store() -> None:
    bench = Bench()
    bench.calls(asyncio.CancelledError(), count=100, lasts_s=99 * HUNG_S)
    assert not bench.is_ill()


def test_a_collection_that_can_be_described_proves_no_search() -> None:
    bench = Bench()
    bench.calls(LOST)
    bench.call(is_search=False)
    assert bench.is_ill()


def test_descriptions_that_fail_count_too() -> None:
    bench = Bench()
    for _ in range(UNHEALTHY_AFTER):
        bench.call(LOST, lasts_s=UNHEALTHY_AFTER_S / UNHEALTHY_AFTER, is_search=False)
    assert bench.is_ill()
