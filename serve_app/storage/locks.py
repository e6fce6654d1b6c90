"""Locks between processes, and between threads of one: flock on a file that is opened for each lock anew."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

LOOK_AGAIN_S = 0.25


def try_lock(path: Path, *, shared: bool = False) -> int | None:
    """Return a descriptor that holds the lock until it is closed or the process ends; None while others are in the way.

    Raises:
        OSError: the file cannot be opened.
    """
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        except OSError:
            os.close(fd)
            raise
        if _is_at(fd, path):
            return fd
        os.close(fd)  # its holder has removed the file since: the lock is on the one that is there now


def unlock(fd: int) -> None:
    """Give a lock back, also for child processes that were forked with it."""
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


@contextmanager
def exclusive(path: Path, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a lock alone, and wait for that; ``on_wait`` is called again and again meanwhile. Raises OSError."""
    while (fd := try_lock(path)) is None:
        if on_wait is not None:
            on_wait()
        time.sleep(LOOK_AGAIN_S)
    try:
        yield
    finally:
        unlock(fd)


def _is_at(fd: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    mine = os.fstat(fd)
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)
