"""What is written to a logger of JSON lines, as a test reads it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class KeptLines(logging.Handler):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.raw: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.raw.append(record.getMessage())

    @property
    def read(self) -> list[dict[str, Any]]:
        """All lines, as JSON."""
        return [json.loads(line) for line in self.raw]

    @property
    def last(self) -> dict[str, Any]:
        """The last line, as JSON."""
        return self.read[-1]


@contextmanager
def kept_lines(name: str) -> Iterator[KeptLines]:
    """Keep what is written to a logger, and leave the logger as it was."""
    logger, kept = logging.getLogger(name), KeptLines()
    was = logger.level, logger.propagate, logger.handlers
    logger.level, logger.propagate, logger.handlers = logging.INFO, False, [kept]
    logger.setLevel(logging.INFO)  # empties the cache of levels too
    try:
        yield kept
    finally:
        logger.propagate, logger.handlers = was[1], was[2]
        logger.setLevel(was[0])
