"""Room on the disk, and what a full one means."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from serve_app.errors import MissingWeights

KEEP_FREE_BYTES = 1 << 30  # a full disk takes down more than a download
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
GIB = 1 << 30
FreeBytes = Callable[[Path], int]


def expanded(path: Path, *, param: str) -> Path:
    """Return a path with ``~`` and ``~user`` in full. Raises MissingWeights: there is no such user, or no home."""
    try:
        return path.expanduser()
    except RuntimeError as err:
        raise MissingWeights(f"{param}: {str(path)!r} is in the home of nobody here; write it in full", param=param) from err


def free_bytes(folder: Path) -> int:
    """Return what is free to this process on the disk of a folder. Raises OSError."""
    return shutil.disk_usage(folder).free


def allocated_bytes(folder: Path) -> int:
    """Return what the files below a folder take on the disk; holes take nothing. Files that vanish meanwhile count nothing."""
    total = 0
    for current, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(current, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def gib(count: float) -> str:
    """Return bytes in GiB, for a message; what is less than a hundredth of one is in MiB."""
    return f"{count / GIB:.2f} GiB" if count >= GIB / 100 else f"{count / 2**20:.3f} MiB"


def too_full(what: str, needed: int, *, free: int, fix: str) -> MissingWeights:
    """Return the error of a disk that does not hold a download."""
    return MissingWeights(
        f"{what} needs {gib(needed)} more on the disk, and {gib(free)} are free ({gib(KEEP_FREE_BYTES)} stay so); {fix}",
        param="source",
    )


def sync_tree(folder: Path) -> None:
    """Wait until the files and folders below a folder are on the disk. Raises OSError."""
    for current, _, names in os.walk(folder):
        for name in names:
            sync(os.path.join(current, name))
        sync(current)


def sync(path: str | Path) -> None:
    """Wait until a file or folder is on the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
