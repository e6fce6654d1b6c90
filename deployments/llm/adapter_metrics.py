"""Metrics of a replica's adapters, on Ray's metrics port of its node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from deployments.ray_metrics import ray_metric
from serve_app.metrics import ADAPTER_LOADS, ADAPTERS_LOADED, Metric


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
    """Exports through Ray's own metrics."""

    def __init__(self, model: str, variant: str, *, make: Callable[[Metric], Any] | None = None) -> None:
        self._labels = {"model": model, "variant": variant}
        self._loads, self._count = map(make or ray_metric, (ADAPTER_LOADS, ADAPTERS_LOADED))

    def loaded(self, outcome: str, count: int) -> None:
        """Count a load that ended, and show how many adapters there are now."""
        self._loads.inc(1, tags={**self._labels, "outcome": outcome})
        self._count.set(count, tags=self._labels)

    def unloaded(self, count: int) -> None:
        """Show how many adapters there are now."""
        self._count.set(count, tags=self._labels)
