"""What the lines of `manta top` can be ordered by; apart from the command, whose imports take a while."""

from __future__ import annotations

from enum import StrEnum


class SortBy(StrEnum):
    """Names from a to z, figures from the greatest on."""

    NAME = "name"
    WEIGHT = "weight"
    READY = "ready"
    QUEUE = "queue"
    RUNNING = "running"
    REQUESTS = "requests"
    TOKENS = "tokens"
    ERRORS = "errors"
    TTFT = "ttft"
    CACHE = "cache"
