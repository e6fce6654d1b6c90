"""Feed: a thread of the controller's process that keeps what Rollouts publishes at hand, so that no policy ever waits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

from autoscaling.document import DECISIONS, HELD, SCALING, Held, ScalingDocument
from serve_app.config_fields import Config

logger = logging.getLogger("ray.serve")

POLL_S = 0.5
Read = TypeVar("Read", bound=Config)


class Store(Protocol):
    """Small values by key; both calls may block."""

    def get(self, key: str) -> bytes | None:
        """Return a value, or None when there is none."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Store a value in place of what was there."""
        ...


class ClusterStore:
    """Ray's own key-value store, where Rollouts keeps what it publishes."""

    NAMESPACE = b"manta"

    def get(self, key: str) -> bytes | None:
        """Return a value."""
        from ray.experimental.internal_kv import _internal_kv_get

        found: bytes | None = _internal_kv_get(key.encode(), namespace=self.NAMESPACE)
        return found

    def put(self, key: str, data: bytes) -> None:
        """Store a value."""
        from ray.experimental.internal_kv import _internal_kv_put

        _internal_kv_put(key.encode(), data, namespace=self.NAMESPACE)


class Feed:
    """The last documents that could be read. What is away or cannot be read leaves them as they are.

    ``render`` returns what is to be published of the decisions, or None when nothing is new.
    """

    def __init__(self, store: Store, render: Callable[[], str | None]) -> None:
        self._store = store
        self._render = render
        self._raw: dict[str, bytes | None] = {}
        self._is_away = False
        self.document: ScalingDocument | None = None
        self.held: Held | None = None
        self.held_news = 0  # how often `held` has changed: a stamp of another machine's clock says nothing here

    def look(self) -> None:
        """Read and write once; never raises."""
        try:
            self.document = self._read(SCALING, ScalingDocument) or self.document
            if (held := self._read(HELD, Held)) is not None:
                self.held, self.held_news = held, self.held_news + 1
            if (news := self._render()) is not None:
                self._store.put(DECISIONS, news.encode())
            self._is_away = False
        except Exception:
            if not self._is_away:
                logger.exception("the key-value store is away; scaling goes on by what was read last")
            self._is_away = True

    def start(self) -> None:
        """Look for ever, in a thread that ends with the process."""
        threading.Thread(target=self._keep_looking, args=(threading.Event(),), name="manta-scaling", daemon=True).start()

    def _keep_looking(self, stop: threading.Event) -> None:
        while not stop.wait(POLL_S):
            self.look()

    def _read(self, key: str, kind: type[Read]) -> Read | None:
        """Return a document if it is another one than last time, else None."""
        raw = self._store.get(key)
        if raw is None or raw == self._raw.get(key):
            return None
        self._raw[key] = raw
        try:
            return kind.model_validate_json(raw)
        except ValueError:
            logger.exception("%s cannot be read; the one before stays in force", key)
            return None
