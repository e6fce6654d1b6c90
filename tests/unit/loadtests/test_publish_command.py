"""`manta loadtest --publish`, as the command line runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serve_app.rollout.load_tests import LoadTestResult
from tests.unit.loadtests.engine import platform
from tests.unit.loadtests.servers import closed_port
from tests.unit.loadtests.test_command import OPEN, manta, written

GATES = "error_rate: 0.1\nmin_requests: 20\n"


@pytest.fixture
def files(tmp_path: Path) -> list[object]:
    """Return a scenario, and gates that a canary which fails does not hold."""
    return [written(tmp_path, "s.yaml", OPEN), "--gate", written(tmp_path, "g.yaml", GATES)]


@pytest.mark.parametrize(
    ("canary_fails", "exit_code", "verdict"), [(False, 0, "passed"), (True, 1, "failed")], ids=["healthy", "bad"]
)
def test_the_result_is_published_and_the_exit_code_stays_the_gates(
    files: list[object], tmp_path: Path, *, canary_fails: bool, exit_code: int, verdict: str
) -> None:
    published: list[Any] = []
    with platform(canary_fails=canary_fails, published=published) as url:
        done = manta(*files, "--url", url, "--json", tmp_path / "r.json", "--publish", "--wait", "10s", "--settle", "0s")
    assert done.exit_code == exit_code, done.output
    assert f"published: tested {verdict}" in done.output
    (told,) = [LoadTestResult.model_validate(each) for each in published]
    assert json.loads((tmp_path / "r.json").read_text())["summary"] == published[0]
    assert (told.scenario, told.verdict, told.begin, told.begin.version) == ("tested", verdict, told.end, 3)
    assert (told.of("chat", "canary").requests, told.of("chat", "canary").failures) == (40, 40 * canary_fails)
    assert [gate.name for gate in told.failed] == ["error_rate"] * canary_fails
    assert told.ended_s - told.begun_s == pytest.approx(2.0)


def test_a_result_that_is_not_taken_is_written_and_has_an_exit_code_of_its_own(files: list[object], tmp_path: Path) -> None:
    with platform() as url:
        done = manta(*files, "--url", url, "--json", tmp_path / "r.json", "--publish")
    assert done.exit_code == 3, done.output
    said = " ".join(done.output.split())
    assert "the result was not taken: a later run; to send it again, POST `summary` in" in said
    assert json.loads((tmp_path / "r.json").read_text())["summary"]["verdict"] == "passed"


def test_without_a_file_the_result_that_is_not_taken_is_printed(files: list[object]) -> None:
    with platform() as url:
        done = manta(*files, "--url", url, "--publish")
    assert done.exit_code == 3, done.output
    (line,) = [line for line in done.output.splitlines() if line.startswith('{"format":1')]
    assert LoadTestResult.model_validate_json(line).scenario == "tested"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param(["--publish"], "--publish needs --gate", id="no-gates"),
        pytest.param(["--wait", "soon"], "--wait: 'soon' is no duration", id="wait"),
        pytest.param(["--settle", "-1"], "--settle: ", id="settle"),
        pytest.param(["--wait", "1s"], "--wait: not ready within 1 s", id="not-ready"),
    ],
)
def test_what_cannot_be_published_or_waited_for_is_told_before_the_run(tmp_path: Path, options: list[str], said: str) -> None:
    done = manta(written(tmp_path, "s.yaml", OPEN), "--url", f"http://127.0.0.1:{closed_port()}", *options)
    assert (done.exit_code, said in " ".join(done.output.split())) == (2, True), done.output


def test_a_platform_that_cannot_be_looked_at_is_told_before_the_run(files: list[object]) -> None:
    done = manta(*files, "--url", f"http://127.0.0.1:{closed_port()}", "--no-preflight", "--publish")
    assert done.exit_code == 2, done.output
    assert "--publish: /admin/status could not be read" in " ".join(done.output.split())
