"""Audit: a line for everything that changes who may do what, how much, and which variant answers. Never sampled."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from serve_app.observing.json_lines import json_line, rfc3339

NAME = "manta.audit"
CONFIGURATION = "configuration"  # the actor of what a new document brings; who wrote it, only its store knows
KEYS_FILE = "keys_file"
GATES = "gates"  # the actor of what a rollout does by itself
PLATFORM = "platform"  # the subject that is all of it


class Event(StrEnum):
    """What a line is about."""

    KEYS_LOADED = "keys.loaded"
    KEY_ADDED = "key.added"
    KEY_REMOVED = "key.removed"
    KEY_CHANGED = "key.changed"
    LIMITS_CHANGED = "limits.changed"
    ROLLOUT_COMMANDED = "rollout.commanded"
    ROLLOUT_REFUSED = "rollout.refused"
    ROLLOUT_DECIDED = "rollout.decided"
    CONFIG_TAKEN = "config.taken"
    CONFIG_REFUSED = "config.refused"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. ``more`` is what only events of this kind tell; it stands last."""

    event: Event
    actor: str
    subject: str
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    request_id: str | None = None
    more: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


class Audit:
    """Writes to the logger ``manta.audit``."""

    def __init__(self, *, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._logger = logging.getLogger(NAME)

    def write(self, *entries: Entry) -> None:
        """Write a line for each."""
        for entry in entries:
            self._logger.info(json_line(self._fields(entry)))

    def _fields(self, entry: Entry) -> dict[str, Any]:
        return {
            "time": rfc3339(self._wall()),
            "event": entry.event.value,
            "actor": entry.actor,
            "subject": entry.subject,
            "before": None if entry.before is None else dict(entry.before),
            "after": None if entry.after is None else dict(entry.after),
            "request_id": entry.request_id,
            **entry.more,
        }
