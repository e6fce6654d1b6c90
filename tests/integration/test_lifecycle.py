"""`manta run` as a process: what it says when it cannot start, and that nothing outlives it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from serve_app.cluster import free_ports

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
models:
  - name: chat
    variants:
      - {name: stable, source: simulated, cpus: 0.01, drain_timeout_s: 10, engine: {kind: simulated}}
router: {cpus: 0.5, drain_timeout_s: 10}
"""
MARK = "MANTA_TEST_RUN"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "platform.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


def start(config: Path, port: int, *, mark: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "serve_app.cli", "run", str(config), "--port", str(port)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, MARK: mark, "TMPDIR": str(short_tmp(mark))},
    )


def short_tmp(mark: str) -> Path:
    """Return a folder with a short path: Unix sockets below it have a length limit."""
    folder = Path("/tmp") / mark
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def running(config: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    mark = f"m{time.monotonic_ns() % 1_000_000}"
    with start(config, free_ports(1)[0], mark=mark) as process:
        assert process.stdout is not None
        printed = ""
        for line in process.stdout:
            printed += line
            if "Ctrl-C stops it" in line:
                break
        else:
            raise AssertionError(f"manta run ended before it served:\n{printed}")
        yield process, mark
        process.kill()
    wait_gone(mark)
    short_tmp(mark).rmdir()


def survivors(mark: str) -> list[str]:
    """Return the command lines of processes that carry the mark in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline())[:120])
        except psutil.Error:
            continue
    return found


def wait_gone(mark: str) -> None:
    deadline_s = time.monotonic() + 40
    while left := survivors(mark):
        assert time.monotonic() < deadline_s, left
        time.sleep(0.5)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "ctrl-c"])
def test_nothing_outlives_a_run(running: tuple[subprocess.Popen[str], str], number: signal.Signals) -> None:
    process, mark = running
    assert len(survivors(mark)) > 5
    process.send_signal(number)
    process.wait(timeout=60)
    wait_gone(mark)
    assert list(short_tmp(mark).iterdir()) == []


def test_a_port_in_use_is_named_with_the_option_that_changes_it(config: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        mark = f"p{os.getpid()}"
        process = start(config, port, mark=mark)
        output, _ = process.communicate(timeout=60)
        short_tmp(mark).rmdir()
    assert process.returncode == 1
    assert f"manta: port {port} is in use" in output
    assert "--port" in output


def test_a_missing_model_folder_is_named_before_anything_starts(config: Path) -> None:
    config.write_text("models:\n  - name: chat\n    variants:\n      - {name: stable, source: ./nowhere}\n", encoding="utf-8")
    mark = f"f{os.getpid()}"
    process = start(config, free_ports(1)[0], mark=mark)
    output, _ = process.communicate(timeout=60)
    short_tmp(mark).rmdir()
    assert process.returncode == 1
    assert "models[0].variants[0].source" in output
    assert "nowhere" in output
