from __future__ import annotations

from io import StringIO
from typing import Any

from rich.console import Console
from rich.table import Table

from serve_app.commands.status import applications, pipelines, variants

REPORT: dict[str, Any] = {
    "apps": [
        {"name": "router", "status": "RUNNING", "message": "", "deployments": {"Router": {"RUNNING": 2, "STARTING": 1}}},
        {"name": "llm.chat.stable", "status": "UNHEALTHY", "message": "a\nlast line", "deployments": {}},
    ],
    "models": [
        {
            "name": "chat",
            "variants": [
                {
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
            ],
        }
    ],
    "pipelines": [
        {
            "name": "docs",
            "versions": [
                {
                    "name": "v1",
                    "weight": 100,
                    "declared_weight": 100,
                    "embedder": "minilm",
                    "collection": "docs",
                    "model": "chat",
                }
            ],
        }
    ],
}


def rows(table: Table) -> list[list[str]]:
    out = StringIO()
    Console(file=out, width=200).print(table)
    body = [line for line in out.getvalue().splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in body]


def test_applications_show_replica_states_and_the_last_line_of_the_message() -> None:
    assert rows(applications(REPORT)) == [
        ["router", "RUNNING", "2 running, 1 starting", ""],
        ["llm.chat.stable", "UNHEALTHY", "0", "last line"],
    ]


def test_variants_show_weights_in_force_and_declared_replicas_queue_and_cache() -> None:
    states = "2 starting (1 load), 2 ready, 1 draining"
    assert rows(variants(REPORT)) == [["chat", "stable", "75 (90)", "vllm", states, "7", "3", "25"]]


def test_pipelines_show_what_moves_together() -> None:
    assert rows(pipelines(REPORT)) == [["docs", "v1", "100", "minilm", "docs", "chat"]]
