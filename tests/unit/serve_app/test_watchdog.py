from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from serve_app.watchdog import POLL_S

ROOT = Path(__file__).resolve().parents[3]
# A child that daemonises a grandchild, as Ray and HAProxy do, and writes down who it is.
DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open(sys.argv[1], "w").write(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
time.sleep(600)
"""


Started = tuple[subprocess.Popen[bytes], psutil.Process]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    folder, note = tmp_path / "folder", tmp_path / "pid"
    folder.mkdir()
    command = [sys.executable, "-m", "serve_app.watchdog", str(folder), sys.executable, "-c", DAEMON, str(note)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT)
    deadline_s = time.monotonic() + 20
    while not note.exists() or not note.read_text():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    with process:
        yield process, psutil.Process(int(note.read_text()))


def wait_gone(process: psutil.Process) -> None:
    deadline_s = time.monotonic() + 20
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline_s, process.cmdline()
        time.sleep(0.02)


@pytest.mark.parametrize("how", ["pipe-closed", "sigterm"])
def test_a_daemonised_grandchild_ends_with_the_owner(tmp_path: Path, started: Started, how: str) -> None:
    watchdog, grandchild = started
    assert watchdog.stdin is not None
    if how == "pipe-closed":
        watchdog.stdin.close()
    else:
        watchdog.send_signal(signal.SIGTERM)
    watchdog.wait(timeout=30)
    wait_gone(grandchild)
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=["ctrl-c", "closed-terminal"])
def test_what_a_terminal_sends_is_left_to_the_owner(started: Started, number: signal.Signals) -> None:
    watchdog, grandchild = started
    watchdog.send_signal(number)
    time.sleep(0.5)
    assert watchdog.poll() is None
    assert grandchild.is_running()
    watchdog.terminate()
    watchdog.wait(timeout=30)
    wait_gone(grandchild)


# A child that shares memory and is killed before it can remove it, as engines are.
SHARING = """
import multiprocessing, time
from multiprocessing import shared_memory
made = shared_memory.SharedMemory(create=True, size=4096)
lock = multiprocessing.get_context("spawn").Lock()
print(made.name, "sem" + lock._semlock.name.replace("/", "."), flush=True)
time.sleep(600)
"""


def test_shared_memory_of_killed_processes_is_removed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "serve_app.watchdog", str(tmp_path), sys.executable, "-c", SHARING]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as watchdog:
        assert watchdog.stdout is not None
        shared = [Path("/dev/shm") / name for name in watchdog.stdout.readline().split()]
        assert [path.exists() for path in shared] == [True, True]
        time.sleep(1.5 * POLL_S)  # the watchdog looks at its processes this often
        for child in psutil.Process(watchdog.pid).children(recursive=True):
            child.kill()
        watchdog.wait(timeout=30)
    assert [path.exists() for path in shared] == [False, False]
