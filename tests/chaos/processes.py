"""Processes of a node: what they are called, killing them, and stopping them for a while."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil


@dataclass
class Node:
    """A Ray node: its address, and the watchdog that is the parent of all its processes."""

    name: str
    address: str
    cpus: int
    process: subprocess.Popen[bytes] | None = None

    def processes(self) -> list[psutil.Process]:
        """Return everything that runs on the node."""
        if self.process is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []


def command_line(process: psutil.Process) -> str:
    """Return what a process calls itself; nothing when it has gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def kill(process: psutil.Process) -> float:
    """Kill a process and return when."""
    now_s = time.monotonic()
    os.kill(process.pid, signal.SIGKILL)
    return now_s


@contextlib.contextmanager
def frozen(process: psutil.Process) -> Iterator[None]:
    """Stop a process for the block (SIGSTOP): it keeps its connections and says nothing."""
    process.suspend()
    try:
        yield
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()
