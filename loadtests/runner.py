"""Runner: a run in processes of their own, watched from here.

Locust patches the whole process that imports it, for gevent. So it never is imported here: it runs as a program, with one
process that gathers and one for each worker, and what it found is read from files.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from loadtests.scenario import Scenario
from loadtests.scenario_file import OUT, SCENARIO, FoundScenario
from serve_app.errors import CommandError

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
MOST_WORKERS = 4  # unless the scenario says more: the platform may be on the same machine
LOOK_S = 0.25
STOP_S = 10.0
LOG_LINES = 12


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    elapsed_s: float
    is_ending: bool
    open: int
    outcomes: Mapping[str, int]
    tokens: int
    warmup: int


OnProgress = Callable[[Progress], None]


def run(found: FoundScenario, *, csv: str | None, on_progress: OnProgress) -> dict[str, Any]:
    """Return the run's document, when it is over. Raises CommandError: Locust is missing, or has failed."""
    if find_spec("locust") is None:
        raise CommandError("load tests need Locust: pip install 'manta-serve[loadtest]'")
    with tempfile.TemporaryDirectory(prefix="manta-loadtest-") as folder:
        out = Path(folder)
        scenario_file = out / "scenario.yaml"
        scenario_file.write_text(json.dumps(_self_contained(found)), encoding="utf-8")
        environment = {**os.environ, SCENARIO: str(scenario_file), OUT: folder}
        with _started(command(found.scenario, csv), environment, out / "locust.log") as process:
            while process.poll() is None:
                _tell(out / "progress.json", on_progress)
                time.sleep(LOOK_S)
        return _document(out)


def workers_of(scenario: Scenario) -> int:
    """Return how many worker processes a scenario gets here."""
    return scenario.workers or max(1, min(MOST_WORKERS, os.cpu_count() or 1))


def command(scenario: Scenario, csv: str | None) -> Sequence[str]:
    """Return the command line of Locust."""
    made = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary", "--exit-code-on-error", "0"]
    if csv is not None:
        made += ["--csv", csv, "--csv-full-history"]
    if (workers := workers_of(scenario)) > 1:
        # Its own port: two runs on one machine must not find each other's workers.
        port = str(_free_port())
        bound = ["--master-bind-host", "127.0.0.1", "--master-bind-port", port]
        made += ["--processes", str(workers), *bound, "--master-host", "127.0.0.1", "--master-port", port]
    return made


def _self_contained(found: FoundScenario) -> dict[str, Any]:
    """Return the scenario as JSON that means the same in another folder."""
    document = found.scenario.model_dump(mode="json", exclude_unset=True)
    if trace := found.scenario.load.shape.trace:
        document["load"]["shape"]["trace"] = str((found.folder / trace).absolute())
    return document


@contextmanager
def _started(made: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program with all that it starts, and end all of it afterwards."""
    with log.open("wb") as lines:
        process = subprocess.Popen(  # noqa: S603 -- a list that is made here
            made, env=environment, stdin=subprocess.DEVNULL, stdout=lines, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=STOP_S)


def _tell(path: Path, on_progress: OnProgress) -> None:
    with suppress(FileNotFoundError):  # nothing was said yet
        on_progress(Progress(**json.loads(path.read_text(encoding="utf-8"))))


def _document(out: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads((out / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        lines = (out / "locust.log").read_text(encoding="utf-8", errors="replace").splitlines()
        said = "\n".join(lines[-LOG_LINES:])
        raise CommandError(f"Locust ended without a result; its last words:\n{said}") from err
    return document


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
