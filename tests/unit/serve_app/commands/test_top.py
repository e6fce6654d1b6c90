from __future__ import annotations

import dataclasses
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from serve_app import cli
from serve_app.commands import top
from serve_app.commands.sort_by import SortBy
from serve_app.commands.top import FIGURE, headline, ordered, shown, table
from serve_app.commands.variant_rows import Documents, variant_rows
from tests.unit.serve_app.commands.figures import ROLLOUTS, SCALING, STATUS, cells, platform, printed

EVERYTHING = Documents(STATUS, ROLLOUTS, SCALING)
STABLE, CANARY = variant_rows(EVERYTHING)
OTHER = dataclasses.replace(STABLE, model="mail", queue=2, tokens_per_s=None)


def test_a_variant_is_a_line() -> None:
    assert cells(table([STABLE, CANARY])) == [
        ["chat", "stable", "75 (90)", "2/5", "11", "3", "1.5", "120", "2", "250", "25"],
        ["chat", "canary", "25 (10)", "0/1", "0", "0", "0", "0", "-", "250", "0"],
    ]


def test_a_variant_that_should_answer_and_cannot_is_marked() -> None:
    asleep = dataclasses.replace(CANARY, wanted=0)
    idle = dataclasses.replace(CANARY, weight=0)
    assert [row.style for row in table([STABLE, CANARY, asleep, idle]).rows] == [None, "bold red", None, None]


def test_everything_fits_into_80_columns() -> None:
    lines = printed(table([dataclasses.replace(STABLE, weight=100, declared_weight=90, tokens_per_s=12345.0)]), width=80)
    assert "…" not in lines


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        (SortBy.NAME, ["chat canary", "chat stable", "mail stable"]),
        (SortBy.QUEUE, ["chat stable", "mail stable", "chat canary"]),
        (SortBy.WEIGHT, ["chat stable", "mail stable", "chat canary"]),
        (SortBy.TOKENS, ["chat stable", "chat canary", "mail stable"]),
    ],
    ids=["names-go-up", "figures-go-down", "equal-ones-by-name", "unknown-ones-last"],
)
def test_lines_are_in_the_order_that_is_asked_for(sort: SortBy, order: list[str]) -> None:
    assert [f"{row.model} {row.variant}" for row in ordered([OTHER, CANARY, STABLE], sort)] == order


def test_every_order_but_that_by_names_has_a_figure() -> None:
    assert set(FIGURE) == set(SortBy) - {SortBy.NAME}


def test_the_headline_has_the_figures_of_all_together() -> None:
    told = headline(STATUS, [STABLE, CANARY], now_s=0.0)
    assert told.partition("  ")[2] == "applications 1/2  replicas 2/6  queue 11  running 3  1.5 requests/s  120 tokens/s"


def test_what_cannot_be_read_is_said_below() -> None:
    told = printed(shown(Documents(STATUS, problems=["scaling cannot be read: away"]), sort=SortBy.NAME, now_s=0.0))
    assert told.splitlines()[-1] == "scaling cannot be read: away"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> httpx.Client:
    """What the command talks to."""
    made = platform()
    monkeypatch.setattr(top, "connect", lambda url: made)
    return made


def manta(*arguments: str) -> Any:
    return CliRunner(env={"COLUMNS": "120"}).invoke(cli.app, ["top", *arguments])


def test_once_is_once(client: httpx.Client) -> None:
    result = manta("--once", "--sort", "name")
    assert (result.exit_code, [line.split()[1] for line in result.stdout.splitlines()[1:]]) == (
        0,
        ["variant", "canary", "stable"],
    )


def test_otherwise_it_takes_the_terminal_until_it_is_stopped(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[float, bool]] = []

    def keep_showing(look: Any, *, console: Any, every_s: float, is_whole: bool) -> None:
        asked.append((every_s, is_whole))
        console.print(look())

    monkeypatch.setattr(top, "keep_showing", keep_showing)
    result = manta()
    assert (result.exit_code, asked) == (0, [(2.0, True)])
    assert "stable" in result.stdout
