from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from autoscaling.tuning import Slo
from serve_app import cli
from serve_app.commands.tune import TuneOptions, run
from serve_app.config_scaling import AutoscalingConfig
from serve_app.errors import CommandError

LOCUSTFILE = Path(__file__).with_name("locustfile_of_levels.py")
SLOTS = 4
STEP_S = 0.02
TOKENS = 5
SLO = ("--slo-ttft", "0.1", "--slo-itl", "0.05")
HEADER = (
    "Timestamp,User Count,Type,Name,Requests/s,Failures/s,50%,66%,75%,80%,90%,95%,98%,99%,99.9%,99.99%,100%,"
    "Total Request Count,Total Failure Count,Total Median Response Time,Total Average Response Time,"
    "Total Min Response Time,Total Max Response Time,Total Average Content Size"
)


def manta(*arguments: str | Path) -> Any:
    """Return the result of the command; errors go the way of `main`."""
    return CliRunner().invoke(cli.app, ["tune", *map(str, arguments)])


def history(folder: Path, *, ttft_ms: tuple[int, ...] = (24, 120), seconds: int = 30) -> Path:
    """Write a run of 4, 8, ... users; 40 requests a second end."""
    lines, at_s = [HEADER], 0
    for step, first_ms in enumerate(ttft_ms):
        for _ in range(seconds):
            at_s += 1
            users = 4 << step
            for kind, name, ms in (("GET", "/v1/chat", 25 * users), ("ITL", "chat", 20), ("TTFT", "chat", first_ms)):
                times = ",".join([str(ms)] * 11)
                lines.append(f"{1000 + at_s},{users},{kind},{name},40,0,{times},{40 * at_s},0,{ms},{ms},{ms},{ms},0")
            lines.append(f"{1000 + at_s},{users},,Aggregated,120,0,{times},{120 * at_s},0,1,1,1,1,0")
    file = folder / "run_stats_history.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


def settings(stdout: str) -> dict[str, Any]:
    """Return the YAML block as the platform's document takes it."""
    block: dict[str, Any] = yaml.safe_load(stdout[stdout.index("# slots:") :])["autoscaling"]
    AutoscalingConfig.model_validate(block)
    return block


def test_the_settings_are_ready_for_the_document(tmp_path: Path) -> None:
    result = manta(history(tmp_path), *SLO, "--startup-s", "90")
    assert (result.exit_code, result.stderr) == (0, "")
    assert settings(result.stdout) == {"slots": 4, "target_queue_depth": 3, "startup_s": 90}
    assert "4 users: Every objective is kept.\n8 users: P95 of TTFT is 0.12 s, over 0.1 s.\n" in result.stdout


def test_the_table_has_a_line_per_level(tmp_path: Path) -> None:
    lines = [line.split("│")[1:-1] for line in manta(history(tmp_path), *SLO).stdout.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["4", "4.0", "40", "24/24", "20/20", "100/100", "yes"],
        ["8", "8.0", "40", "120/120", "20/20", "200/200", "no"],
    ]


def test_a_run_that_was_too_small_warns(tmp_path: Path) -> None:
    result = manta(history(tmp_path, ttft_ms=(24,)), *SLO)
    assert result.stderr.startswith("warning: no objective broke at up to 4 users")
    assert settings(result.stdout)["slots"] == 4


def test_a_time_that_was_not_measured_is_a_dash(tmp_path: Path) -> None:
    file = history(tmp_path, ttft_ms=(24,))
    file.write_text("".join(line for line in file.read_text().splitlines(keepends=True) if ",chat," not in line))
    result = manta(file, "--slo-e2e", "0.5")
    assert [cell.strip() for cell in result.stdout.split("│")[4:7]] == ["-", "-", "100/100"]
    assert settings(result.stdout) == {"slots": 4, "target_queue_depth": 16}


def test_no_depth_follows_from_itl_alone(tmp_path: Path) -> None:
    assert settings(manta(history(tmp_path), "--slo-itl", "0.05").stdout) == {"slots": 8}


def failure(*arguments: str | Path) -> str:
    result = manta(*arguments)
    assert result.exit_code == 1
    return str(result.exception)


def test_a_run_that_broke_at_once_has_no_settings(tmp_path: Path) -> None:
    file = history(tmp_path, ttft_ms=(300,))
    assert failure(file, *SLO) == f"{file}: no settings follow from this run"


def test_an_objective_is_needed(tmp_path: Path) -> None:
    assert failure(history(tmp_path)).startswith("say what requests must keep: --slo-ttft")


SECONDS = ["--slo-ttft", "--slo-itl", "--slo-e2e", "--startup-s", "--settle-s"]


@pytest.mark.parametrize("option", SECONDS)
def test_a_number_that_is_not_finite_is_refused(tmp_path: Path, option: str) -> None:
    message = f"{option}: give a finite number of seconds, or leave it out; got inf"
    assert failure(history(tmp_path), *SLO, option, "inf") == message


@pytest.mark.parametrize("option", SECONDS)
def test_nan_is_refused_by_whoever_sees_it_first(tmp_path: Path, option: str) -> None:
    result = manta(history(tmp_path), *SLO, option, "nan")  # newer releases of typer refuse it themselves
    assert (result.exit_code, result.stdout) in ((1, ""), (2, ""))
    assert option in f"{result.stderr} {result.exception}"


@pytest.mark.parametrize(
    ("slo", "options", "option"),
    [
        pytest.param(Slo(ttft_s=math.nan), TuneOptions(), "--slo-ttft", id="objective"),
        pytest.param(Slo(ttft_s=1.0), TuneOptions(startup_s=math.nan), "--startup-s", id="how-it-was-run"),
    ],
)
def test_the_command_itself_refuses_nan(tmp_path: Path, slo: Slo, options: TuneOptions, option: str) -> None:
    with pytest.raises(CommandError, match=f"^{option}: give a finite number of seconds, or leave it out; got nan$"):
        run(history(tmp_path), slo, options)


def test_a_cell_that_is_no_number_is_named_with_its_place(tmp_path: Path) -> None:
    file = history(tmp_path)
    file.write_text(file.read_text().replace("1001,4,GET", "1001,nan,GET"))
    assert failure(file, *SLO).startswith(f"{file}: line 2, column 'User Count': 'nan' is not a number")


def test_more_replicas_than_users_warn(tmp_path: Path) -> None:
    assert (
        "warning: 4 users were 0.04 requests at a time on each replica"
        in manta(history(tmp_path), *SLO, "--replicas", "100").stderr
    )


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "absent.csv"
    assert failure(file, *SLO) == (
        f"{file}: No such file or directory; Locust writes it with `--csv PREFIX --csv-full-history`"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"a,b\n1,2\n", "column 'Timestamp' is missing", id="another-csv"),
        pytest.param(b"\xff\xfe\x00", "not a text file", id="binary"),
    ],
)
def test_a_file_of_something_else_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "x.csv"
    file.write_bytes(content)
    assert failure(file, *SLO).startswith(f"{file}: {message}")


def test_what_was_not_measured_is_named_with_the_file(tmp_path: Path) -> None:
    file = history(tmp_path)
    file.write_text("".join(line for line in file.read_text().splitlines(keepends=True) if ",TTFT," not in line))
    assert failure(file, *SLO).startswith(f"{file}: TTFT is not known at 4 users: no rows of type TTFT")


class Chat(BaseHTTPRequestHandler):
    """Streams tokens, of as many answers at a time as there are slots."""

    slots = threading.Semaphore(SLOTS)

    def do_GET(self) -> None:
        with self.slots:
            self.send_response(200)
            self.end_headers()
            for _ in range(TOKENS):
                time.sleep(STEP_S)
                self.wfile.write(b"x\n")
                self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Says nothing of clients that leave, as they do at the end of a run."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    with Server(("127.0.0.1", 0), Chat) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{made.server_address[1]}"
        made.shutdown()
        thread.join()


@pytest.mark.slow
def test_a_real_run_of_locust_finds_the_servers_slots(server: str, tmp_path: Path) -> None:
    arguments = ["-f", str(LOCUSTFILE), "--headless", "--host", server, "--csv", str(tmp_path / "run"), "--csv-full-history"]
    locust = subprocess.run(
        [sys.executable, "-m", "locust", *arguments], capture_output=True, text=True, check=False, timeout=100
    )
    assert locust.returncode == 0, locust.stderr
    result = manta(tmp_path / "run_stats_history.csv", "--settle-s", "2", "--slo-ttft", "0.1", "--slo-itl", "0.1")
    assert settings(result.stdout)["slots"] == SLOTS
    assert 1 <= settings(result.stdout)["target_queue_depth"] <= 3  # at most SLOTS / 0.1 s a second, for less than 0.08 s
