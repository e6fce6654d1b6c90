from __future__ import annotations

import dataclasses

import pytest

from serve_app.commands.variant_rows import Documents, VariantRow, count, look, total, variant_rows
from serve_app.errors import CommandError
from tests.unit.serve_app.commands.figures import DOCUMENTS, ROLLOUTS, SCALING, STATUS, platform

EVERYTHING = Documents(STATUS, ROLLOUTS, SCALING)
STABLE = VariantRow(
    model="chat",
    variant="stable",
    engine="vllm",
    weight=75,
    declared_weight=90,
    replicas="2 starting (1 load), 2 ready, 1 draining",
    ready=2,
    wanted=5,
    queue=11,
    running=3,
    requests_per_s=1.5,
    tokens_per_s=120.5,
    error_ratio=0.02,
    ttft_p95_s=0.25,
    kv_cache_ratio=0.25,
)


def test_a_row_puts_together_what_routers_and_rollouts_tell_of_a_variant() -> None:
    stable, canary = variant_rows(EVERYTHING)
    assert stable == STABLE
    assert (canary.variant, canary.replicas, canary.wanted, canary.requests_per_s, canary.error_ratio) == (
        "canary",
        "0",
        1,
        0,
        None,
    )


def test_without_rollouts_a_row_has_what_routers_know() -> None:
    [row, _] = variant_rows(Documents(STATUS))
    known = dataclasses.replace(STABLE, wanted=None, queue=7)
    assert row == dataclasses.replace(known, requests_per_s=None, tokens_per_s=None, error_ratio=None, ttft_p95_s=None)


def test_before_the_first_decision_nobody_knows_how_many_there_should_be() -> None:
    undecided = {"apps": [SCALING["apps"][0] | {"decision": None}]}
    assert variant_rows(Documents(STATUS, scaling=undecided))[0].wanted is None


def test_looking_asks_for_all_documents() -> None:
    assert look(platform()) == Documents(STATUS, ROLLOUTS, SCALING, [])


def test_what_rollouts_cannot_tell_is_a_problem_and_no_end() -> None:
    seen = look(platform({"/admin/status": STATUS}))
    problems = ["rollouts cannot be read: Rollouts is away", "scaling cannot be read: Rollouts is away"]
    assert seen == Documents(STATUS, None, None, problems)


def test_without_a_status_there_is_nothing_to_show() -> None:
    with pytest.raises(CommandError, match="Rollouts is away"):
        look(platform({path: each for path, each in DOCUMENTS.items() if path != "/admin/status"}))


def test_a_total_is_unknown_where_one_part_is() -> None:
    rows = variant_rows(EVERYTHING)
    assert (total(rows, "queue"), total(rows, "tokens_per_s")) == (11, 120.5)
    assert total([rows[0], dataclasses.replace(rows[1], tokens_per_s=None)], "tokens_per_s") is None


def test_only_figures_of_rows_have_totals() -> None:
    with pytest.raises(ValueError, match="no figure 'quue'"):
        total([], "quue")


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (0, "0"), (0.0667, "0.0667"), (12.34, "12.3"), (1234.5, "1234")])
def test_a_figure_has_three_digits_or_more(value: float | None, text: str) -> None:
    assert count(value) == text
