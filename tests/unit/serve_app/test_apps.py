from __future__ import annotations

import copy
from typing import Any

import pytest
from ray.serve.schema import ServeDeploySchema

from serve_app.apps import build_schema, cpus_needed
from serve_app.config import PlatformConfig
from serve_app.rollout.document import RoutingDocument

DOCUMENT: dict[str, Any] = {
    "models": [
        {
            "name": "chat",
            "variants": [
                {"name": "stable", "source": "org/model", "weight": 90, "accelerator": "L40S"},
                {
                    "name": "canary",
                    "source": "org/next",
                    "weight": 10,
                    "engine": {"tensor_parallel_size": 2},
                    "autoscaling": {"min_replicas": 0, "max_replicas": 3, "target_queue_depth": 2},
                },
            ],
        }
    ],
    "embedders": [{"name": "minilm", "source": "org/embedder"}],
    "pipelines": [
        {
            "name": "docs",
            "versions": [
                {"name": "v1", "embedder": "minilm", "collection": "docs", "prompt": "{{ question }}", "model": "chat"}
            ],
        }
    ],
}


def schema(document: dict[str, Any]) -> dict[str, Any]:
    return build_schema(PlatformConfig.model_validate(document))


def apps(document: dict[str, Any]) -> dict[str, Any]:
    return {app["name"]: app for app in schema(document)["applications"]}


def variant(document: dict[str, Any], index: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = document["models"][0]["variants"][index]
    return found


def test_every_part_is_an_application_of_its_own() -> None:
    names = ["rollouts", "embedder.minilm", "llm.chat.stable", "llm.chat.canary", "retriever", "router"]
    assert list(apps(DOCUMENT)) == names


@pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field:DeprecationWarning")
def test_ray_accepts_the_schema() -> None:
    accepted = ServeDeploySchema.model_validate(schema(DOCUMENT))
    assert [a.route_prefix for a in accepted.applications] == [None] * 5 + ["/"]


def test_a_weight_change_touches_only_the_user_config_of_rollouts() -> None:
    changed = copy.deepcopy(DOCUMENT)
    variant(changed, 0)["weight"], variant(changed, 1)["weight"] = 50, 50
    before, after = apps(DOCUMENT), apps(changed)
    assert [name for name in before if before[name] != after[name]] == ["rollouts"]
    for app in (before["rollouts"], after["rollouts"]):
        del app["deployments"][0]["user_config"]
    assert before["rollouts"] == after["rollouts"]


def test_replica_counts_and_bounds_change_no_arguments() -> None:
    changed = copy.deepcopy(DOCUMENT)
    variant(changed)["replicas"] = 5
    variant(changed, 1)["autoscaling"]["max_replicas"] = 9
    before, after = apps(DOCUMENT), apps(changed)
    assert {n: a["args"] for n, a in before.items()} == {n: a["args"] for n, a in after.items()}
    assert after["llm.chat.stable"]["deployments"][0]["num_replicas"] == 5


def test_rollouts_carries_the_whole_routing_document() -> None:
    user_config = apps(DOCUMENT)["rollouts"]["deployments"][0]["user_config"]
    document = RoutingDocument.model_validate(user_config["routing"])
    assert [m.weights for m in document.models] == [(("stable", 90), ("canary", 10))]
    assert [p.name for p in document.pipelines] == ["docs"]


def test_an_accelerator_reserves_one_gpu_a_rank_and_cpu_variants_reserve_none() -> None:
    stable, canary = (apps(DOCUMENT)[f"llm.chat.{n}"]["deployments"][0] for n in ("stable", "canary"))
    assert stable["ray_actor_options"] == {"num_cpus": 1.0, "num_gpus": 1, "accelerator_type": "L40S"}
    assert canary["ray_actor_options"] == {"num_cpus": 2.0}


def test_autoscaling_goes_by_our_policy_within_the_configured_bounds() -> None:
    scaling = apps(DOCUMENT)["llm.chat.canary"]["deployments"][0]["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (0, 3)
    assert scaling["policy"] == {
        "policy_function": "autoscaling.policy:QueueDepthPolicy",
        "policy_kwargs": {"target_queue_depth": 2.0},
    }


def test_cpus_needed_counts_every_replica_at_its_most() -> None:
    # rollouts 0.1, embedder 1, stable 1, canary 3 x 2, retriever 0.5, routers 2 x 1
    assert cpus_needed(schema(DOCUMENT)) == pytest.approx(10.6)


def test_without_pipelines_there_is_no_retriever() -> None:
    assert "retriever" not in apps({"models": DOCUMENT["models"]})
