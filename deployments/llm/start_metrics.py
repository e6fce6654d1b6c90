"""Metrics of a replica's start."""

from __future__ import annotations

from serve_app.metrics import REPLICA_DOWNLOAD, REPLICA_START
from serve_app.registry import Registry
from serve_app.storage.progress import Progress


class StartMetrics:
    """What one replica's start took, phase by phase, and how far its download is."""

    def __init__(self, model: str, variant: str, *, registry: Registry) -> None:
        self._labels = model, variant
        self._start, self._download = registry.gauge(REPLICA_START), registry.gauge(REPLICA_DOWNLOAD)

    def ended(self, phase: str, seconds: float) -> None:
        """Show how long a phase took."""
        self._start.labels(*self._labels, phase).set(seconds)

    def downloaded(self, progress: Progress) -> None:
        """Show how far the download is."""
        self._download.labels(*self._labels, "done").set(progress.done_bytes)
        self._download.labels(*self._labels, "total").set(progress.total_bytes)
