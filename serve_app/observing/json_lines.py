"""JsonLines: a logger's lines in a file of their own, written by a thread, so that no event loop ever waits for a disk."""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

logger = logging.getLogger("ray.serve")

MOST_WAITING = 4096  # lines that may wait for the thread
SAY_EVERY_S = 60.0
CLOSE_S = 2.0  # the longest wait for what is written last


def json_line(fields: Mapping[str, Any]) -> str:
    """Return one line of ASCII: no field, whatever a client wrote into it, can begin another."""
    return json.dumps(fields, separators=(",", ":"))


def rfc3339(at_s: float) -> str:
    """Return seconds since the epoch as UTC, to the millisecond."""
    return f"{datetime.fromtimestamp(at_s, UTC).isoformat(timespec='milliseconds')[:-6]}Z"


class RotatingLines(RotatingFileHandler):
    """A file that is renamed to ``.1`` when it is full, and so on; what is older than the last one is deleted.

    Lines that cannot be written are given to ``lost``.
    """

    def __init__(self, path: Path, *, file_bytes: int, files: int, lost: Callable[[BaseException | None], None]) -> None:
        super().__init__(path, maxBytes=file_bytes, backupCount=files - 1, encoding="ascii", delay=True)
        self._lost = lost

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002
        """Count a line that could not be written."""
        import sys

        self._lost(sys.exc_info()[1])


class Losses:
    """Counts lines that nobody will read, and says so at most once a minute."""

    def __init__(self, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.count = 0
        self._name = name
        self._clock = clock
        self._say_at_s = -SAY_EVERY_S

    def add(self, err: BaseException | None = None) -> None:
        """Count one."""
        self.count += 1
        if (now_s := self._clock()) >= self._say_at_s:
            self._say_at_s = now_s + SAY_EVERY_S
            why = f"cannot be written: {err}" if err is not None else "come faster than they can be written"
            logger.warning("lines of %s are lost, %d so far: they %s", self._name, self.count, why)


class JsonLines(logging.Handler):
    """Hands records to a thread, which hands them to ``target``. A record that finds the queue full is lost, and counted."""

    def __init__(self, target: logging.Handler, *, losses: Losses, most_waiting: int = MOST_WAITING) -> None:
        super().__init__()
        self.target = target
        self.losses = losses
        self._waiting: queue.Queue[logging.LogRecord | None] = queue.Queue(most_waiting)
        self._thread = threading.Thread(target=self._write, name="json-lines", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Have a record written, soon."""
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            self.losses.add()

    def close(self) -> None:
        """Write what waits, for ``CLOSE_S`` seconds at most."""
        if self._thread.is_alive():
            try:
                self._waiting.put(None, timeout=CLOSE_S)
            except queue.Full:  # a disk that hangs keeps nobody from ending
                return
            self._thread.join(CLOSE_S)
        if not self._thread.is_alive():
            self.target.close()
        super().close()

    def _write(self) -> None:
        while (record := self._waiting.get()) is not None:
            self.target.handle(record)


def open_lines(name: str, path: Path | None, *, file_bytes: int, files: int) -> JsonLines:
    """Have a logger's lines written to a file, or to stderr without one, and nowhere else; close what is returned."""
    losses = Losses(name)
    target: logging.Handler = logging.StreamHandler()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        target = RotatingLines(path, file_bytes=file_bytes, files=files, lost=losses.add)
    lines = JsonLines(target, losses=losses)
    of = logging.getLogger(name)
    of.setLevel(logging.INFO)
    of.propagate = False
    of.handlers = [lines]
    return lines
