"""Metrics of a replica's start, on Ray's metrics port of its node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deployments.ray_metrics import ray_metric
from serve_app.metrics import REPLICA_DOWNLOAD, REPLICA_START, Metric
from serve_app.storage.progress import Progress


class StartMetrics:
    """What one replica's start took, phase by phase, and how far its download is."""

    def __init__(self, model: str, variant: str, *, make: Callable[[Metric], Any] | None = None) -> None:
        self._labels = {"model": model, "variant": variant}
        self._start, self._download = map(make or ray_metric, (REPLICA_START, REPLICA_DOWNLOAD))

    def ended(self, phase: str, seconds: float) -> None:
        """Show how long a phase took."""
        self._start.set(seconds, tags={**self._labels, "phase": phase})

    def downloaded(self, progress: Progress) -> None:
        """Show how far the download is."""
        self._download.set(progress.done_bytes, tags={**self._labels, "of": "done"})
        self._download.set(progress.total_bytes, tags={**self._labels, "of": "total"})
