"""Makes our metrics in Ray, whose metrics port every KubeRay setup scrapes already."""

from __future__ import annotations

from typing import Any

from serve_app.metrics import Metric


def ray_metric(metric: Metric) -> Any:
    """Return a metric of Ray's with the same name, labels and meaning."""
    from ray.util.metrics import Counter, Gauge

    kind = Counter if metric.kind == "counter" else Gauge
    return kind(metric.name, description=metric.help, tag_keys=metric.labels)
