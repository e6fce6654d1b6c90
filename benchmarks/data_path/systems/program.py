"""A server of another project as a child process: started on a free port, awaited by a real chat, ended with its owner."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil

from benchmarks.data_path.contracts import Endpoint

ROOT = Path(__file__).resolve().parents[3]
FIRST_CHILD_S = 30.0
WARMING_CHATS = 16


class StartError(RuntimeError):
    """A system did not start."""


class Program:
    """A command under the platform's watchdog: what it starts ends with it, and it ends with its owner."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], folder: Path) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (open for as long as it runs: the watchdog deletes its folder)
        self._watchdog = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "serve_app.watchdog", str(folder), *command],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, **env},
            cwd=ROOT,
            start_new_session=True,  # Ctrl-C is for the owner
        )

    @property
    def pid(self) -> int:
        """The command's own process, below the watchdog. Raises StartError when it is gone."""
        deadline_s = time.monotonic() + FIRST_CHILD_S
        while self.is_alive() and time.monotonic() < deadline_s:
            if children := psutil.Process(self._watchdog.pid).children():
                return children[0].pid
            time.sleep(0.05)
        raise StartError(f"it ended:\n{self.log()}")

    def is_alive(self) -> bool:
        """Whether the watchdog, and so the command, still runs."""
        return self._watchdog.poll() is None

    def log(self) -> str:
        """Return the end of what it wrote."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-4000:]

    def stop(self) -> None:
        """End it and everything below it."""
        if self._watchdog.stdin is not None:
            self._watchdog.stdin.close()
        self._watchdog.wait(timeout=60)
        self._log.close()


@contextlib.contextmanager
def running(command: Sequence[str], *, env: Mapping[str, str], folder: Path) -> Iterator[Program]:
    """Run a command until the block ends; the folder, with its configuration and log, goes with it."""
    program = Program(command, env=env, folder=folder)
    try:
        yield program
    finally:
        program.stop()
        shutil.rmtree(folder, ignore_errors=True)


def temporary_folder() -> Path:
    """Return a new private folder."""
    return Path(tempfile.mkdtemp(prefix="peer-"))


def wait_for_chat(endpoint: Endpoint, *, is_alive: Callable[[], bool], timeout_s: float) -> None:
    """Return once streamed chats are answered, many at once. Raises StartError with the last failure."""
    deadline_s = time.monotonic() + timeout_s
    while (failure := _try_chat(endpoint)) and time.monotonic() < deadline_s and is_alive():
        time.sleep(0.2)
    if not failure:
        # A worker's first requests may load modules for seconds, and one chat reaches one worker.
        with ThreadPoolExecutor(WARMING_CHATS) as pool:
            failure = "".join(set(pool.map(_try_chat, [endpoint] * WARMING_CHATS)))
    if failure:
        raise StartError(f"no chat was answered ({failure})" if is_alive() else f"it ended ({failure})")


def _try_chat(endpoint: Endpoint) -> str:
    """Return why a chat of two tokens failed; nothing when it did not."""
    try:
        answer = httpx.post(url(endpoint), json=chat(endpoint, tokens=2), headers=dict(endpoint.headers), timeout=60.0)
    except httpx.HTTPError as err:
        return repr(err)
    if answer.status_code == 200 and answer.text.rstrip().endswith("data: [DONE]"):
        return ""
    return f"{answer.status_code}: {answer.text[:500]}"


def url(endpoint: Endpoint) -> str:
    """Return the address of its chat completions."""
    return f"http://{endpoint.host}:{endpoint.port}/v1/chat/completions"


def chat(endpoint: Endpoint, *, tokens: int) -> dict[str, object]:
    """Return the body of a streamed chat of exactly so many tokens."""
    messages = [{"role": "user", "content": "Say something."}]
    return {"model": endpoint.model, "messages": messages, "max_tokens": tokens, "stream": True, "ignore_eos": True}
