"""Documents of the admin API, as `manta status` and `manta top` read them, and a platform that tells them."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

STABLE: dict[str, Any] = {
    "name": "stable",
    "weight": 75,
    "declared_weight": 90,
    "engine": "vllm",
    "replicas": {"starting": 2, "ready": 2, "draining": 1},
    "replicas_detail": [
        {"state": "starting", "phase": "load"},
        {"state": "starting", "phase": ""},
        {"state": "ready", "phase": ""},
    ],
    "queue_depth": 7,
    "running": 3,
    "kv_cache_usage_ratio": 0.25,
}
CANARY: dict[str, Any] = STABLE | {
    "name": "canary",
    "weight": 25,
    "declared_weight": 10,
    "replicas": {"starting": 0, "ready": 0, "draining": 0},
    "replicas_detail": [],
    "queue_depth": 0,
    "running": 0,
    "kv_cache_usage_ratio": 0.0,
}
VERSION = {
    "name": "v1",
    "weight": 100,
    "declared_weight": 100,
    "embedder": "minilm",
    "collection": "docs",
    "model": "chat",
}
STATUS: dict[str, Any] = {
    "apps": [
        {"name": "router", "status": "RUNNING", "message": "", "deployments": {"Router": {"RUNNING": 2, "STARTING": 1}}},
        {"name": "llm.chat.stable", "status": "UNHEALTHY", "message": "a\nlast line", "deployments": {}},
    ],
    "models": [{"name": "chat", "variants": [STABLE, CANARY]}],
    "pipelines": [{"name": "docs", "versions": [VERSION]}],
    "waiting_in_router": 4,
}
MINUTE: dict[str, Any] = {"requests": 90, "tokens": 7230, "error_rate": 0.02, "ttft_s": {"p50": 0.1, "p95": 0.25}}
ROLLOUTS: dict[str, Any] = {
    "table": {"version": 3},
    "routers": {"a": 3, "b": 2},
    "stats": [
        {"name": "chat", "variant": "stable", "last_minute": MINUTE},
        {"name": "chat", "variant": "canary", "last_minute": MINUTE | {"requests": 0, "tokens": 0, "error_rate": None}},
    ],
}
SCALING: dict[str, Any] = {
    "apps": [
        {"name": "llm.chat.stable", "is_fixed": False, "held": 4, "decision": {"target": 5}, "settings": {"min_replicas": 1}},
        {"name": "llm.chat.canary", "is_fixed": True, "held": 0, "decision": None, "settings": {"min_replicas": 1}},
    ]
}
DOCUMENTS: Mapping[str, dict[str, Any]] = {
    "/admin/status": STATUS,
    "/admin/rollouts": ROLLOUTS,
    "/admin/scaling": SCALING,
}


def platform(documents: Mapping[str, dict[str, Any]] = DOCUMENTS) -> httpx.Client:
    """Return a client of a platform that tells these documents, and has nobody to ask for others."""

    def handle(request: httpx.Request) -> httpx.Response:
        if (found := documents.get(request.url.path)) is not None:
            return httpx.Response(200, json=found)
        return httpx.Response(503, json={"error": {"message": "Rollouts is away"}})

    return httpx.Client(base_url="http://platform", transport=httpx.MockTransport(handle))


def printed(*shown: Any, width: int = 200) -> str:
    """Return what a terminal of so many columns would show."""
    out = StringIO()
    Console(file=out, width=width).print(*shown, sep="\n")
    return out.getvalue()


def cells(table: Table) -> list[list[str]]:
    """Return the text of a table's lines, by cells."""
    columns = [[str(cell) for cell in column.cells] for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]
