from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from deployments import tries as tries_module
from deployments.tries import Lost, Patience, Tries
from serve_app.config_router import RetryBudgetConfig
from serve_app.errors import DeadlineExceeded, EmptyCollection
from serve_app.serve_settings import SERVE_SETTINGS
from tests.unit.serve_app.virtual_time import run_virtually

PATIENCE = Patience(total_s=60.0, try_s=10.0)


class DiedError(Exception): ...


class NeverSentError(Exception): ...


LOST = Lost(lambda err: isinstance(err, DiedError | NeverSentError), lambda err: isinstance(err, NeverSentError))


class Answers:
    """Gives each try the next of its answers; None hangs."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)
        self.left: list[float] = []
        self.cancelled = 0

    async def __call__(self, left_s: float) -> Any:
        self.left.append(left_s)
        answer = self._answers.pop(0)
        if answer is None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if isinstance(answer, Exception):
            raise answer
        return answer


def tried(work: Callable[[Tries], Awaitable[Any]]) -> tuple[Any, list[float], float]:
    """Return what the work comes to, the pauses it made, and when it was over."""
    pauses: list[float] = []

    async def main() -> tuple[Any, list[float], float]:
        clock = asyncio.get_running_loop().time

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)
            await asyncio.sleep(seconds)

        try:
            found = await work(Tries("embedder.minilm", LOST, clock=clock, sleep=sleep, spread=lambda: 1.0))
        except Exception as err:
            found = err
        return found, pauses, clock()

    return run_virtually(main())


def test_a_read_whose_replica_dies_is_sent_again() -> None:
    answers = Answers(DiedError(), DiedError(), 7)
    found, pauses, _ = tried(lambda tries: tries.read(answers, PATIENCE))
    assert (found, pauses) == (7, [0.05, 0.25])


def test_a_read_is_tried_three_times_at_most() -> None:
    answers = Answers(DiedError("1"), DiedError("2"), DiedError("3"), 7)
    found, _, _ = tried(lambda tries: tries.read(answers, PATIENCE))
    assert (str(found), len(answers.left)) == ("3", 3)


def test_what_the_method_raises_is_raised_at_once() -> None:
    answers = Answers(EmptyCollection("books"), 7)
    found, pauses, _ = tried(lambda tries: tries.read(answers, PATIENCE))
    assert (type(found), pauses) == (EmptyCollection, [])


def test_a_replica_that_hangs_costs_its_time_and_the_next_try_is_told_what_is_left() -> None:
    answers = Answers(None, 7)
    found, _, _ = tried(lambda tries: tries.read(answers, PATIENCE))
    assert (found, answers.left, answers.cancelled) == (7, [60.0, pytest.approx(49.95)], 1)


def test_a_call_that_nothing_answers_ends_with_its_time() -> None:
    answers = Answers(None, None, None)
    found, _, over_s = tried(lambda tries: tries.read(answers, PATIENCE))
    assert isinstance(found, DeadlineExceeded)
    assert over_s == pytest.approx(60.0)
    assert answers.cancelled == 3


def test_no_try_begins_when_the_time_would_be_over_before_it() -> None:
    answers = Answers(DiedError("gone"), 7)
    found, pauses, _ = tried(lambda tries: tries.read(answers, Patience(total_s=0.01)))
    assert (str(found), pauses) == ("gone", [])


def test_a_slow_try_goes_on_where_there_is_no_retry_to_spend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tries_module, "BUDGET", RetryBudgetConfig(ratio=0, min_per_s=0))

    async def slow(_: float) -> int:
        await asyncio.sleep(30)
        return 7

    found, pauses, over_s = tried(lambda tries: tries.read(slow, PATIENCE))
    assert (found, pauses, over_s) == (7, [], 30.0)


@pytest.mark.parametrize(
    ("error", "sent"), [(DiedError("gone"), 1), (NeverSentError("away"), 2)], ids=["may-have-run", "never-sent"]
)
def test_a_write_is_sent_again_only_if_nobody_can_have_got_it(error: Exception, sent: int) -> None:
    answers = Answers(error, 7)
    found, _, _ = tried(lambda tries: tries.write(answers))
    assert (len(answers.left), found == 7) == (sent, sent == 2)


def test_what_serve_knows_of_a_replica_that_hangs_is_old_before_the_next_try() -> None:
    from ray.serve._private.constants import RAY_SERVE_QUEUE_LENGTH_CACHE_TIMEOUT_S as DEFAULT_S

    old_s = float(SERVE_SETTINGS["RAY_SERVE_QUEUE_LENGTH_CACHE_TIMEOUT_S"])
    assert old_s < tries_module.INNER_TRY_S < tries_module.TRY_S < DEFAULT_S
