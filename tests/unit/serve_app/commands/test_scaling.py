from __future__ import annotations

import json
from io import StringIO
from typing import Any

import httpx
import pytest
from rich.console import Console
from typer.testing import CliRunner

from serve_app import cli
from serve_app.commands import scaling
from serve_app.commands.scaling_table import budget, table

NOW_S = 1_000_000.0
DECISION: dict[str, Any] = {
    "target": 3,
    "wanted": 5,
    "reason": "9.0 requests [busy]",
    "at": NOW_S - 70,
    "ready": 2,
    "waiting": 12.0,
    "held": 4.0,
    "running": 15.0,
    "slots": 8.0,
    "startup_s": 60.0,
    "granted": 3,
}
APP: dict[str, Any] = {
    "name": "llm.chat.stable",
    "deployment": "LLM",
    "settings": {"min_replicas": 1, "max_replicas": 8},
    "is_fixed": False,
    "units": 2,
    "priority": 5,
    "held": 4,
    "holding": 3,
    "decision": DECISION,
}
ROUTER = APP | {
    "name": "router",
    "is_fixed": True,
    "settings": {"min_replicas": 2, "max_replicas": 2},
    "held": 0,
    "decision": None,
}
DOCUMENT: dict[str, Any] = {"budget": {"max_accelerators": 8, "in_use": 6}, "apps": [APP, ROUTER]}


def rows(*apps: dict[str, Any]) -> list[list[str]]:
    out = StringIO()
    Console(file=out, width=200).print(table(apps, now_s=NOW_S))
    lines = [line for line in out.getvalue().splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


REASON = "9.0 requests [busy]"
SHORT = f"{REASON}; the budget grants 3 of 5"


@pytest.mark.parametrize(
    ("app", "row"),
    [
        pytest.param(APP, ["llm.chat.stable", "2/3", "1-8", "12", "4", "15/16", SHORT, "1m 10s"], id="short"),
        pytest.param(
            APP | {"decision": DECISION | {"granted": None, "slots": 0.0}},
            ["llm.chat.stable", "2/3", "1-8", "12", "4", "15/-", REASON, "1m 10s"],
            id="no-budget-no-slots",
        ),
        pytest.param(
            APP | {"decision": DECISION | {"granted": 5}},
            ["llm.chat.stable", "2/3", "1-8", "12", "4", "15/16", REASON, "1m 10s"],
            id="all-granted",
        ),
        pytest.param(
            APP | {"decision": {"target": 3}}, ["llm.chat.stable", "-/3", "1-8", "-", "4", "-/-", "", "-"], id="little-known"
        ),
        pytest.param(
            APP | {"decision": None},
            ["llm.chat.stable", "-/-", "1-8", "-", "4", "-", "nothing was decided yet", "-"],
            id="no-decision",
        ),
        pytest.param(ROUTER, ["router", "-/2", "2", "-", "0", "-", "fixed", "-"], id="fixed"),
    ],
)
def test_a_deployment_is_a_line(app: dict[str, Any], row: list[str]) -> None:
    assert rows(app) == [row]


@pytest.mark.parametrize(
    ("most", "said", "is_full"),
    [
        (None, "accelerators: 6 in use, no limit", False),
        (8, "accelerators: 6 of 8 in use", False),
        (6, "accelerators: 6 of 6 in use", True),
    ],
    ids=["none", "room", "full"],
)
def test_the_budget_is_said_in_words(most: int | None, said: str, is_full: bool) -> None:
    text = budget({"max_accelerators": most, "in_use": 6})
    assert (text.plain, bool(text.style)) == (said, is_full)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the command asked of a platform."""
    requests: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        requests.append(f"{request.method} {request.url.path}")
        return httpx.Response(200, json=DOCUMENT)

    client = httpx.Client(base_url="http://platform", transport=httpx.MockTransport(handle))
    monkeypatch.setattr(scaling, "connect", lambda url: client)
    return requests


def manta(*arguments: str) -> Any:
    return CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, ["scaling", *arguments])


def test_the_table_is_followed_by_the_budget(asked: list[str]) -> None:
    result = manta()
    assert (result.exit_code, asked) == (0, ["GET /admin/scaling"])
    assert "llm.chat.stable" in result.stdout
    assert result.stdout.splitlines()[-1].strip() == "accelerators: 6 of 8 in use"


def test_json_is_what_the_platform_says(asked: list[str]) -> None:
    assert (json.loads(manta("--json").stdout), asked) == (DOCUMENT, ["GET /admin/scaling"])


def test_watching_looks_again_and_again(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "keep_showing", lambda look, console: [console.print(look()) for _ in range(2)])
    assert (manta("--watch").exit_code, asked) == (0, ["GET /admin/scaling"] * 2)


def test_watching_shows_tables_only(asked: list[str]) -> None:
    assert "leave --json out" in str(manta("--watch", "--json").exception)
    assert asked == []
