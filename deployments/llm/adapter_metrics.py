"""Metrics of a replica's adapters."""

from __future__ import annotations

from typing import Protocol

from serve_app.metrics import ADAPTER_LOADS, ADAPTERS_LOADED
from serve_app.registry import Registry


class AdapterWatcher(Protocol):
    """What looks on while adapters come and go."""

    def loaded(self, outcome: str, count: int) -> None:
        """Hear that a load ended (``ok`` or ``failed``), and how many adapters there are now."""
        ...

    def unloaded(self, count: int) -> None:
        """Hear that an adapter went, and how many there are now."""
        ...


class NoAdapterMetrics:
    """Shows nothing."""

    def loaded(self, outcome: str, count: int) -> None:
        """Do nothing."""

    def unloaded(self, count: int) -> None:
        """Do nothing."""


class AdapterMetrics:
    """Keeps them in the replica's registry."""

    def __init__(self, model: str, variant: str, *, registry: Registry) -> None:
        self._labels = model, variant
        self._loads, self._count = registry.counter(ADAPTER_LOADS), registry.gauge(ADAPTERS_LOADED)

    def loaded(self, outcome: str, count: int) -> None:
        """Count a load that ended, and show how many adapters there are now."""
        self._loads.labels(*self._labels, outcome).inc()
        self._count.labels(*self._labels).set(count)

    def unloaded(self, count: int) -> None:
        """Show how many adapters there are now."""
        self._count.labels(*self._labels).set(count)
