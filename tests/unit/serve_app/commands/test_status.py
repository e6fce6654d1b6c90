from __future__ import annotations

from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from serve_app import cli
from serve_app.commands import status
from serve_app.commands.status import adapters, applications, pipelines, rates, tables, variants
from serve_app.commands.variant_rows import Documents, variant_rows
from tests.unit.serve_app.commands.figures import ROLLOUTS, SCALING, STATUS, cells, platform, printed

EVERYTHING = Documents(STATUS, ROLLOUTS, SCALING)


def test_applications_show_replica_states_and_the_last_line_of_the_message() -> None:
    assert cells(applications(STATUS)) == [
        ["router", "RUNNING", "2 running, 1 starting", ""],
        ["llm.chat.stable", "UNHEALTHY", "0", "last line"],
    ]


def test_variants_show_weights_in_force_and_declared_replicas_queue_and_cache() -> None:
    states = "2 starting (1 load), 2 ready, 1 draining"
    assert cells(variants(variant_rows(EVERYTHING))) == [
        ["chat", "stable", "75 (90)", "vllm", states, "11", "3", "25"],
        ["chat", "canary", "25 (10)", "vllm", "0", "0", "0", "0"],
    ]


def test_rates_show_the_last_minute_and_the_replicas_for_it() -> None:
    assert cells(rates(variant_rows(EVERYTHING))) == [
        ["chat", "stable", "2/5", "1.5", "120", "2", "250"],
        ["chat", "canary", "0/1", "0", "0", "-", "250"],
    ]


def test_adapters_show_where_each_version_is_loaded() -> None:
    version = {"name": "v2", "weight": 5, "declared_weight": 0, "source": "s3://m/legal", "loaded_replicas": 3}
    report = {"models": [{"name": "chat", "adapters": [{"name": "chat:legal", "versions": [version]}]}]}
    assert cells(adapters(report)) == [["chat:legal", "v2", "5 (0)", "s3://m/legal", "3"]]


def test_pipelines_show_what_moves_together() -> None:
    assert cells(pipelines(STATUS)) == [["docs", "v1", "100", "minilm", "docs", "chat"]]


def test_while_rollouts_is_away_the_rest_is_shown_and_it_is_said() -> None:
    told = printed(*tables(Documents(STATUS, problems=["rollouts cannot be read: away"])))
    assert ("last minute" in told, "traffic table" in told) == (False, False)
    assert told.splitlines()[-2:] == ["requests waiting in the Router: 4", "rollouts cannot be read: away"]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> httpx.Client:
    """What the command talks to."""
    made = platform()
    monkeypatch.setattr(status, "connect", lambda url: made)
    return made


def manta(*arguments: str) -> Any:
    return CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, ["status", *arguments])


def test_the_command_prints_every_table_once(client: httpx.Client) -> None:
    result = manta()
    titles = [
        line.strip() for line in result.stdout.splitlines() if line.strip() in ("applications", "variants", "last minute")
    ]
    assert (result.exit_code, titles) == (0, ["applications", "variants", "last minute"])
    assert result.stdout.splitlines()[-1] == "traffic table 3 is in force on 1 of 2 Routers"


def test_watching_looks_again_as_often_as_is_asked(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def keep_showing(look: Any, *, console: Any, every_s: float) -> None:
        asked.append(every_s)
        console.print(look())

    monkeypatch.setattr(status, "keep_showing", keep_showing)
    result = manta("--watch", "--interval", "0.5")
    assert (result.exit_code, asked) == (0, [0.5])
    assert "llm.chat.stable" in result.stdout
