from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from types import SimpleNamespace

from serve_app.contracts import EngineLoad, ReplicaState
from serve_app.rollout.document import revisions
from serve_app.status import status_report
from tests.unit.serve_app.fakes import PIPELINE, entry, gateway, snapshot


class State(StrEnum):
    RUNNING = "RUNNING"


IDLE = {"phase": "", "ejected": "", "waiting": 0, "running": 0, "open_requests": 0, "adapters": []}
BUSY = {"waiting": 3, "running": 2, "open_requests": 5}
LOAD = EngineLoad(waiting=3, running=2, kv_cache_usage_ratio=0.5, open_requests=5)
SERVE = SimpleNamespace(
    applications={
        "router": SimpleNamespace(status=State.RUNNING, message="x" * 3000, deployments={}),
        "llm.chat.stable": SimpleNamespace(
            status=State.RUNNING,
            message="",
            deployments={"LLM": SimpleNamespace(replica_states={"RUNNING": 2}, message="no node")},
        ),
    }
)


def test_the_report_adds_up_the_replicas_of_a_variant() -> None:
    made = gateway()
    starting = entry("r0", state=ReplicaState.STARTING, url="")
    made.update(snapshot(replace(entry("r1"), load=LOAD), starting, entry("x1", "other")))
    [model] = status_report(made, SERVE)["models"]
    assert model == {
        "name": "chat",
        "variants": [
            {
                "name": "stable",
                "weight": 100,
                "declared_weight": 100,
                "engine": "simulated",
                "revision": "",
                "replicas": {"starting": 1, "ready": 1, "draining": 0},
                "replicas_detail": [
                    {**IDLE, "replica_id": "r0", "url": "", "state": "starting"},
                    {**IDLE, "replica_id": "r1", "url": "http://r1", "state": "ready", **BUSY},
                ],
                "queue_depth": 3,
                "running": 2,
                "open_requests": 5,
                "kv_cache_usage_ratio": 0.5,
            }
        ],
        "adapters": [],
    }


def test_the_report_lists_apps_and_pipelines_but_no_prompts() -> None:
    made = gateway()
    made.update(snapshot())
    report = status_report(made, SERVE)
    assert [(a["name"], a["status"], a["deployments"], len(a["message"])) for a in report["apps"]] == [
        ("llm.chat.stable", "RUNNING", {"LLM": {"RUNNING": 2}}, len("no node")),
        ("router", "RUNNING", {}, 2000),
    ]
    [version] = report["pipelines"][0]["versions"]
    assert (version["model"], "prompt" in version, report["waiting_in_router"]) == ("chat", False, 0)
    assert version["revision"] == revisions(PIPELINE)[version["name"]]
