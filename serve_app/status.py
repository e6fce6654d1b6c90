"""The status report: apps, replicas, queue depth, variants and weights, as one JSON document."""

from __future__ import annotations

from typing import Any

from serve_app.config import PipelineVersionConfig
from serve_app.contracts import ReplicaEntry, ReplicaState
from serve_app.gateway import Gateway
from serve_app.rollout.document import RoutedAdapter, RoutedModel, RoutedVariant, revision


def status_report(gateway: Gateway, serve_status: Any) -> dict[str, Any]:
    """Return the report. ``serve_status`` is what ``ray.serve.status()`` returns."""
    view = gateway.view
    return {
        "apps": [_app(name, app) for name, app in sorted(serve_status.applications.items())],
        "models": [_model(gateway, model) for model in view.models.values()],
        "pipelines": [
            {"name": p.name, "versions": [_version(v, view.split(p.name).weights[v.name]) for v in p.versions]}
            for p in view.pipelines.values()
        ],
        "traffic": {"version": view.table.version, "digest": view.table.digest},
        "waiting_in_router": gateway.pool.waiting(),
    }


def _app(name: str, app: Any) -> dict[str, Any]:
    replicas = {d: dict(s.replica_states) for d, s in app.deployments.items()}
    # A deployment says, for instance, what a replica needs that no node has.
    message = app.message or "\n".join(filter(None, (deployment.message for deployment in app.deployments.values())))
    return {"name": name, "status": str(app.status.value), "message": message[-2000:], "deployments": replicas}


def _model(gateway: Gateway, model: RoutedModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "variants": [_variant(gateway, model.name, v) for v in model.variants],
        "adapters": [_adapter(gateway, adapter) for adapter in model.adapters],
    }


def _adapter(gateway: Gateway, adapter: RoutedAdapter) -> dict[str, Any]:
    entries = [entry for entry in gateway.pool.entries() if entry.model == adapter.model]
    weights = gateway.view.split(adapter.name).weights
    versions = [
        {
            "name": version.name,
            "weight": weights[version.name],
            "declared_weight": version.weight,
            "source": version.source,
            "revision": version.revision,
            "loaded_replicas": sum(adapter.tags[version.name].key in entry.adapters for entry in entries),
        }
        for version in adapter.versions
    ]
    return {"name": adapter.name, "versions": versions}


def _version(version: PipelineVersionConfig, weight: int) -> dict[str, Any]:
    declared = version.model_dump(exclude={"prompt"})
    return {**declared, "weight": weight, "declared_weight": version.weight, "revision": revision(version)}


def _variant(gateway: Gateway, model: str, variant: RoutedVariant) -> dict[str, Any]:
    reasons = gateway.pool.ejected()
    entries = [e for e in gateway.pool.entries() if (e.model, e.variant) == (model, variant.name)]
    return {
        "name": variant.name,
        "weight": gateway.view.split(model).weights[variant.name],
        "declared_weight": variant.weight,
        "engine": variant.engine,
        "revision": variant.revision,
        "replicas": {state.value: sum(e.state is state for e in entries) for state in ReplicaState},
        "replicas_detail": [_replica(e, reasons.get(e.replica_id, "")) for e in sorted(entries, key=lambda e: e.replica_id)],
        "queue_depth": sum(e.load.waiting for e in entries),
        "running": sum(e.load.running for e in entries),
        "open_requests": sum(e.load.open_requests for e in entries),
        "kv_cache_usage_ratio": max((e.load.kv_cache_usage_ratio for e in entries), default=0.0),
    }


def _replica(entry: ReplicaEntry, ejected: str) -> dict[str, Any]:
    return {
        "replica_id": entry.replica_id,
        "url": entry.url,
        "state": entry.state.value,
        "phase": entry.phase,
        "ejected": ejected,  # why this Router leaves it alone
        "waiting": entry.load.waiting,
        "running": entry.load.running,
        "open_requests": entry.load.open_requests,
        "adapters": list(entry.adapters),
    }
