"""Real platforms on real vLLM, one at a time: `manta run --demo` as a user starts it, and the one that clients are tried on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from serve_app.cluster import free_ports
from tests.e2e.clients.checks import Place
from tests.e2e.clients.platform import read_place, running

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 1500.0  # an engine start alone takes minutes on two slow cores


@dataclass(frozen=True)
class MainJob:
    """A running `manta run --demo`."""

    process: subprocess.Popen[bytes]
    log: Path
    folder: Path
    url: str

    def output(self) -> str:
        """Return all it has printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def manta(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another `manta` command against it."""
        command = [sys.executable, "-m", "serve_app.cli", *arguments, "--url", self.url]
        env = {**os.environ, "COLUMNS": "200"}  # tables are cut to the terminal's width
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=600, check=False)


@pytest.fixture(scope="session")
def main_job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MainJob]:
    folder = tmp_path_factory.mktemp("main-job")
    config = (ROOT / "platform.yaml").read_text(encoding="utf-8")
    for relative in ("./models/demo/model", "prompts/demo.j2"):
        config = config.replace(relative, str(ROOT / relative))
    (folder / "platform.yaml").write_text(config, encoding="utf-8")
    port = free_ports(1)[0]
    arguments = [str(folder / "platform.yaml"), "--port", str(port), "--demo", "--demo-folder", str(folder / "docs")]
    log = folder / "run.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "serve_app.cli", "run", *arguments],
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            env={**os.environ, "COLUMNS": "200"},
        )
    job = MainJob(process, log, folder, f"http://127.0.0.1:{port}")
    try:
        wait_until_up(job)
        yield job
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=90)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The platform for clients: the one that runs in MATRIX_FOLDER, or a new one."""
    if folder := os.environ.get("MATRIX_FOLDER"):
        yield read_place(Path(folder))
        return
    with running(tmp_path_factory.mktemp("matrix")) as made:
        yield made


def wait_until_up(job: MainJob) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while "serves; Ctrl-C stops everything" not in job.output():
        assert job.process.poll() is None, f"manta run ended early:\n{job.output()[-4000:]}"
        assert time.monotonic() < deadline_s, f"not up after {START_TIMEOUT_S} s:\n{job.output()[-4000:]}"
        time.sleep(1.0)
