"""Holders: which replicas of a variant have an adapter loaded."""

from __future__ import annotations

from collections.abc import Collection

from serve_app.replica import Replica
from serve_app.ring import point_of


class Holders:
    """Replicas by adapter, as their last reports say."""

    def __init__(self) -> None:
        self._by_adapter: dict[str, set[Replica]] = {}

    def note(self, replica: Replica, before: Collection[str], now: Collection[str]) -> None:
        """Take what a replica has loaded now in place of what it had."""
        for adapter in before:
            holders = self._by_adapter[adapter]
            holders.discard(replica)
            if not holders:
                del self._by_adapter[adapter]
        if now:
            replica.point = point_of(replica.entry.replica_id)
        for adapter in now:
            self._by_adapter.setdefault(adapter, set()).add(replica)

    def of(self, adapter: str) -> Collection[Replica]:
        """Return who has it."""
        return self._by_adapter.get(adapter, ())
