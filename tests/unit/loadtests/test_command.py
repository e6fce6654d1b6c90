"""The whole instrument, as the command line runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from autoscaling.locust_history import read
from serve_app.cli import app
from tests.unit.loadtests.engine import platform
from tests.unit.loadtests.grpc_engine import grpc_platform
from tests.unit.loadtests.servers import closed_port

OPEN = """\
name: tested
load: {mode: open, shape: {kind: constant, level: 40, cv: 0}}
mix:
  - {kind: chat, model: chat, lengths: {prompt: {tokens: 5}, output: {tokens: 3}}}
duration: 2s
workers: 1
"""
CLOSED = """\
name: tested
load: {mode: closed, shape: {kind: step, levels: [2, 4]}, think: 50ms}
mix:
  - {kind: chat, model: chat, weight: 2, lengths: {prompt: {tokens: 5}, output: {tokens: 3}}}
  - {kind: conversation, model: chat, turns: 2, think: 10ms, lengths: {prompt: {tokens: 5}, output: {tokens: 3}}}
duration: 4s
workers: 2
"""


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def manta(*words: object) -> Result:
    return CliRunner().invoke(app, ["loadtest", *map(str, words)])


def test_a_bad_canary_fails_the_run_and_the_gate_is_named(tmp_path: Path) -> None:
    scenario = written(tmp_path, "s.yaml", OPEN)
    gates = written(tmp_path, "g.yaml", "error_rate: 0.1\nttft_p95: 30s\ncanary: {model: chat}\nmin_requests: 20\n")
    outputs = ("--json", tmp_path / "r.json", "--report", tmp_path / "r.html", "--csv", tmp_path / "run")
    with platform(canary_fails=True) as url:
        done = manta(scenario, "--url", url, "--gate", gates, *outputs)
    assert done.exit_code == 1, done.output
    assert "verdict: failed (error_rate, canary)" in done.output
    assert "server_error: the canary is bad" in done.output
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["figures"]["total"]["requests"] == 80
    assert result["figures"]["total"]["outcomes"] == {"ok": 40, "server_error": 40}
    assert "Load test tested" in (tmp_path / "r.html").read_text()
    with (tmp_path / "run_stats_history.csv").open(newline="") as lines:
        kinds = {(row.kind, row.name) for row in read(lines)}
    assert {("TTFT", "chat"), ("ITL", "chat"), ("POST", "/v1/chat/completions")} <= kinds


def test_a_healthy_run_of_users_in_two_processes_passes(tmp_path: Path) -> None:
    gates = written(tmp_path, "g.yaml", "error_rate: 0\nmin_requests: 20\n")
    with platform() as url:
        done = manta(written(tmp_path, "s.yaml", CLOSED), "--url", url, "--gate", gates, "--json", tmp_path / "r.json")
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["facts"]["load generator"].startswith("2 worker processes")
    assert {part["name"]: part["requests"] > 5 for part in result["figures"]["entries"]} == {"chat": True, "conversation": True}
    assert [stage["stage"]["level"] for stage in result["figures"]["stages"]] == [2, 4]
    assert result["figures"]["samples"][0]["replicas"] == {"chat/stable": 1, "chat/canary": 1}


GRPC = """\
name: tested
load: {mode: open, shape: {kind: constant, level: 20, cv: 0}}
mix:
  - {kind: grpc-chat, model: chat, lengths: {prompt: {tokens: 5}, output: {tokens: 3}}, shared_prefix_tokens: 5}
  - {kind: grpc-ask, model: docs, top_k: 2, lengths: {output: {tokens: 3}}}
  - {kind: grpc-ask, name: limited, model: limited}
  - {kind: grpc-chat, name: breaking, model: breaking}
duration: 2s
workers: 1
"""


def test_grpc_users_are_measured_as_those_of_rest(tmp_path: Path) -> None:
    scenario = written(tmp_path, "s.yaml", GRPC)
    with grpc_platform() as address:
        done = manta(scenario, "--grpc", address, "--json", tmp_path / "r.json")
    assert done.exit_code == 0, done.output
    figures = json.loads((tmp_path / "r.json").read_text())["figures"]
    parts = {part["name"]: part for part in figures["entries"]}
    for name in ("grpc-chat", "grpc-ask"):
        part = parts[name]
        assert list(part["outcomes"]) == ["ok"]
        assert part["totals"]["tokens"] == 3 * part["requests"]
        assert part["times"]["ttft"]["count"] == part["times"]["itl"]["count"] == part["requests"]
    assert parts["grpc-ask"]["totals"]["cited"] == parts["grpc-ask"]["requests"]
    assert list(parts["limited"]["outcomes"]) == ["rate_limited"]
    assert list(parts["breaking"]["outcomes"]) == ["error_event"]
    assert [(share["model"], share["variant"]) for share in figures["shares"]] == [
        ("breaking", "stable"),
        ("chat", "stable"),
        ("docs", "v1"),
    ]


def test_a_target_that_is_down_is_counted_by_class_where_nobody_asks_first(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    done = manta(written(tmp_path, "s.yaml", OPEN), "--url", url, "--no-preflight")
    assert done.exit_code == 2, done.output
    assert "not ok: connect: 80" in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param(["--url", "http://127.0.0.1:1"], "cannot be reached", id="down"),
        pytest.param(["--url", "somewhere"], "--url: expected an address", id="url"),
        pytest.param(["--gate", "no-such.yaml"], "no-such.yaml", id="no-gates"),
        pytest.param(["--compare", "no-such.json"], "no-such.json: no such file", id="no-earlier-run"),
        pytest.param(["--report", "/no/such/r.html"], "--report: /no/such/r.html cannot be written", id="no-folder"),
        pytest.param(["--duration", "soon"], "--duration: 'soon' is no duration", id="duration"),
        pytest.param(["--duration", "1ms"], "nothing arrives within the duration", id="nothing-arrives"),
        pytest.param(["--workers", "0"], "Invalid value for '--workers'", id="usage"),
    ],
)
def test_what_cannot_be_run_exits_with_2(tmp_path: Path, options: list[str], said: str) -> None:
    done = manta(written(tmp_path, "s.yaml", OPEN.replace("level: 40", "level: 4")), *options)
    assert (done.exit_code, said in " ".join(done.output.split())) == (2, True), done.output


def test_an_unknown_model_and_a_refused_key_are_told_before_the_run(tmp_path: Path) -> None:
    scenario = written(tmp_path, "s.yaml", OPEN.replace("model: chat", "model: chatty"))
    with platform() as url:
        done = manta(scenario, "--url", url)
    assert done.exit_code == 2
    assert "does not serve chatty; it serves chat" in done.output
    with platform(status=401) as url:
        assert "answers 401: set MANTA_API_KEY" in manta(scenario, "--url", url).output


def test_grpc_that_is_down_is_told_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtests.preflight.TIMEOUT_S", 0.2)
    scenario = written(tmp_path, "s.yaml", OPEN.replace("kind: chat", "kind: grpc-chat"))
    done = manta(scenario, "--grpc", f"127.0.0.1:{closed_port()}")
    assert (done.exit_code, "--grpc names another target" in done.output) == (2, True)


def test_a_scenario_can_be_printed() -> None:
    done = manta("smoke", "--print")
    assert (done.exit_code, done.output) == (0, Path("loadtests/scenarios/smoke.yaml").read_text())
    assert manta("smoek", "--print").exit_code == 2


def test_without_locust_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtests.runner.find_spec", lambda _: None)
    with platform() as url:
        done = manta(written(tmp_path, "s.yaml", OPEN), "--url", url)
    assert (done.exit_code, "manta-serve[loadtest]" in done.output) == (2, True)


def test_locusts_last_words_are_shown_where_it_ends_without_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> list[str]:
        return [sys.executable, "-c", "raise SystemExit('no locust here')"]

    monkeypatch.setattr("loadtests.runner.command", broken)
    with platform() as url:
        done = manta(written(tmp_path, "s.yaml", OPEN), "--url", url)
    assert (done.exit_code, "no locust here" in done.output) == (2, True)


def test_the_command_never_patches_its_own_process() -> None:
    code = "import sys, serve_app.commands.loadtest as c; print(sorted({'gevent', 'locust'} & set(sys.modules)), c.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "serve_app.commands.loadtest"]
