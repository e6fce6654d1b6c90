"""Reads Ray's metrics port of a platform on this machine."""

from __future__ import annotations

import re
from contextlib import suppress

import httpx
import psutil

OPTION = "--metrics-export-port="
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def metrics_port(pid: int) -> int:
    """Return the port where the Ray node shows its metrics that a `manta run` has started."""
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):  # it may have ended by now
            for part in process.cmdline():
                if part.startswith(OPTION):
                    return int(part.removeprefix(OPTION))
    raise AssertionError("no Ray node with a metrics port was started")


def scrape(port: int) -> str:
    """Return all that the port shows."""
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30)
    answer.raise_for_status()
    return answer.text


def total(text: str, name: str, **labels: str) -> float | None:
    """Return the sum of a metric's series that have these labels, None when there is none."""
    found = [
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith((f"{name}{{", f"{name} ")) and labels.items() <= dict(LABEL.findall(line)).items()
    ]
    return sum(found) if found else None
