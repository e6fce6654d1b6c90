"""Watchdog: the parent of everything a local run starts; nothing outlives it.

It adopts every orphan below it (PR_SET_CHILD_SUBREAPER, prctl(2)), so that daemonised grandchildren such as raylets,
HAProxy and engine processes are found, and it ends them all when its standard input closes, however its owner ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

import psutil

PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 10.0
POLL_S = 1.0
MOST_FILES = 1 << 20  # some programs make a table of all that they may open
LOOK_EVERY = 5  # polls; reading what dozens of processes have mapped takes 40 ms of CPU


def main(argv: list[str]) -> int:
    """Run ``argv[1:]`` until it ends or the owner closes our standard input; delete the folder ``argv[0]`` last."""
    folder, command = argv[0], argv[1:]
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # What a terminal sends reaches whole process groups; the owner decides when we stop.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise_file_limit()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603
    owner_gone = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: owner_gone.set())
    threading.Thread(target=_wait_for_owner, args=(owner_gone,), daemon=True).start()
    memory = SharedMemory()
    for poll in itertools.count():
        if owner_gone.wait(POLL_S):
            break
        if poll % LOOK_EVERY == 0:
            memory.look()
        _reap()  # orphans that died are ours to bury
        if child.poll() is not None:
            break
    memory.look()
    end_tree(GRACE_S)
    memory.remove()
    shutil.rmtree(folder, ignore_errors=True)
    return child.poll() or 0


def raise_file_limit() -> None:
    """Let this process and those it starts open as many files as they may: each stream takes two in a Router."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _wait_for_owner(owner_gone: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    owner_gone.set()


class SharedMemory:
    """Files in /dev/shm that our descendants have mapped.

    Engines share memory between their processes, and one that is killed cannot remove its files: they would take
    memory until the machine restarts.
    """

    def __init__(self, folder: str = "/dev/shm") -> None:  # noqa: S108
        self._folder = folder
        self._inodes: set[int] = set()  # not names: a semaphore is mapped before it gets the name that stays

    def look(self) -> None:
        """Note what is mapped now."""
        mark = f" {self._folder}/".encode()
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(OSError), open(f"/proc/{process.pid}/maps", "rb") as maps:
                # address, permissions, offset, device, inode, path: proc_pid_maps(5)
                self._inodes.update(int(line.split()[4]) for line in maps if mark in line)

    def remove(self) -> None:
        """Delete what is left of it. Call when no descendant lives."""
        for entry in os.scandir(self._folder):
            if entry.inode() in self._inodes:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


def end_tree(grace_s: float) -> None:
    """End all descendants of this process: SIGTERM, then SIGKILL after ``grace_s`` seconds."""
    deadline_s = time.monotonic() + grace_s
    _signal_all(signal.SIGTERM)
    while _living() and time.monotonic() < deadline_s:
        time.sleep(0.1)
    # Processes that start while others die are caught by the next round.
    while _living():
        _signal_all(signal.SIGKILL)
        time.sleep(0.05)


def _living() -> list[psutil.Process]:
    _reap()
    found = psutil.Process().children(recursive=True)
    return [p for p in found if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _signal_all(number: int) -> None:
    for process in _living():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
