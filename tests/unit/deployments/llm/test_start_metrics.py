from __future__ import annotations

from deployments.llm.start_metrics import StartMetrics
from serve_app.registry import Registry
from serve_app.storage.progress import Progress
from tests.unit.deployments.exporting import values


def test_the_phases_of_a_start_and_its_download_are_shown() -> None:
    registry = Registry()
    metrics = StartMetrics("chat", "stable", registry=registry)
    metrics.ended("download", 12.5)
    metrics.ended("load", 80.0)
    metrics.downloaded(Progress(done_bytes=100, total_bytes=400))
    start = {("chat", "stable", "download"): 12.5, ("chat", "stable", "load"): 80.0}
    assert values(registry, "manta_replica_start_seconds") == start
    download = {("chat", "stable", "done"): 100, ("chat", "stable", "total"): 400}
    assert values(registry, "manta_replica_download_bytes") == download
