"""How far a transfer is."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True, slots=True)
class Progress:
    """Bytes that are there, those of an earlier attempt included. It never falls."""

    done_bytes: int
    total_bytes: int


# Called from the threads that transfer, one call at a time; a slow callback slows the transfer, and one that raises ends it.
OnProgress = Callable[[Progress], None]


class ProgressCounter:
    """Adds up what the threads of one transfer report."""

    def __init__(self, total_bytes: int, on_progress: OnProgress | None, *, done_bytes: int = 0) -> None:
        self._total = total_bytes
        self._done = done_bytes
        self._again = 0  # bytes that were counted before they turned out to be needed once more
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self.add(0)

    def add(self, count: int) -> None:
        """Count bytes that have arrived."""
        with self._lock:
            repeated = min(count, self._again)
            self._again -= repeated
            self._done += count - repeated
            if self._on_progress is not None:
                self._on_progress(Progress(self._done, self._total))

    def add_or_expect(self, count: int) -> None:
        """Count bytes as boto3 reports them: those of a part that it sends again are below zero first."""
        if count < 0:
            self.expect_again(-count)
        else:
            self.add(count)

    def expect_again(self, count: int) -> None:
        """Do not count the next bytes: they replace ones that were."""
        with self._lock:
            self._again += count


class LoggedProgress:
    """An OnProgress for processes without a terminal: a line in the log every tenth of the way."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._tenth = 0

    def __call__(self, progress: Progress) -> None:
        """Log when another tenth is done."""
        tenth = 10 * progress.done_bytes // max(progress.total_bytes, 1)
        if tenth > self._tenth:
            self._tenth = tenth
            done, total = progress.done_bytes / 2**20, progress.total_bytes / 2**20
            logger.info("downloaded %.1f of %.1f MiB of %s", done, total, self._what)
