from __future__ import annotations

import pytest

from serve_app.config_router import RetryBudgetConfig
from serve_app.retry_budget import WINDOW_S, RetryBudget, RetryBudgets
from tests.unit.serve_app.fakes import FakeClock


def taken(budget: RetryBudget, limits: RetryBudgetConfig, tries: int = 1000) -> int:
    return sum(budget.take(limits) for _ in range(tries))


@pytest.mark.parametrize(
    ("ratio", "min_per_s", "requests", "expected"),
    [(0.2, 0, 50, 10), (0.0, 2, 50, 20), (0.2, 1, 50, 20), (0.0, 0, 50, 0), (1.0, 0, 7, 7), (0.2, 0, 4, 0)],
    ids=["share", "floor", "both", "none", "all", "less-than-one"],
)
def test_retries_are_a_share_of_the_requests_and_a_few_besides(
    ratio: float, min_per_s: float, requests: int, expected: int
) -> None:
    budget = RetryBudget(clock=FakeClock())
    for _ in range(requests):
        budget.deposit()
    assert taken(budget, RetryBudgetConfig(ratio=ratio, min_per_s=min_per_s)) == expected


def test_what_is_older_than_the_window_counts_no_more() -> None:
    clock = FakeClock()
    budget, limits = RetryBudget(clock=clock), RetryBudgetConfig(ratio=0.5, min_per_s=0)
    for _ in range(10):
        budget.deposit()
    assert taken(budget, limits, 3) == 3
    clock.now_s += WINDOW_S - 1
    assert taken(budget, limits) == 2
    clock.now_s += 1
    assert taken(budget, limits) == 0


def test_every_model_has_a_budget_of_its_own_and_both_answers_are_counted() -> None:
    budgets = RetryBudgets(clock=FakeClock())
    budgets.limits = RetryBudgetConfig(ratio=1, min_per_s=0)
    budgets.deposit("a")
    assert [budgets.take("a"), budgets.take("a"), budgets.take("b")] == [True, False, False]
    assert (budgets.taken, budgets.refused) == ({"a": 1}, {"a": 1, "b": 1})
