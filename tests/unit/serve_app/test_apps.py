from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest
from ray.serve.config import gRPCOptions
from ray.serve.schema import ServeDeploySchema

from serve_app.apps import build_schema, cpus_needed
from serve_app.config import PlatformConfig
from serve_app.errors import CommandError, OpenToEverybody
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
    return build_schema(PlatformConfig.model_validate(document), http_host="127.0.0.1")


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


def local(document: dict[str, Any], **options: Any) -> dict[str, Any]:
    return build_schema(PlatformConfig.model_validate(document), http_host="127.0.0.1", **options)


def test_grpc_is_served_beside_rest_unless_it_is_switched_off() -> None:
    assert local(DOCUMENT, grpc_port=9100)["grpc_options"] == {
        "port": 9100,
        "grpc_servicer_functions": ["serve_app.rpc.services:add_inference", "serve_app.rpc.services:add_health"],
    }
    assert "grpc_options" not in local({**DOCUMENT, "router": {"grpc": False}})
    assert "grpc_options" not in local(DOCUMENT, grpc_port=None)


def test_what_serve_calls_for_grpc_can_be_imported() -> None:
    options = ServeDeploySchema.model_validate(local({})).grpc_options
    assert [f.__name__ for f in gRPCOptions(**options.model_dump()).grpc_servicer_func_callable] == [
        "add_inference",
        "add_health",
    ]


@pytest.mark.parametrize(
    ("host", "is_local_only"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("::", False), ("10.0.0.5", False), ("example.org", False)],
)
def test_a_platform_on_a_loopback_address_tells_its_routers(host: str, is_local_only: bool) -> None:
    made = build_schema(PlatformConfig.model_validate({**DOCUMENT, "auth": {"allow_anonymous": True}}), http_host=host)
    env = made["applications"][-1]["deployments"][0]["ray_actor_options"]["runtime_env"]["env_vars"]
    assert (env.get("MANTA_LOCAL_ONLY") == "1") == is_local_only


def test_grpc_takes_messages_as_large_as_the_limit_on_bodies() -> None:
    found = []
    for limit_bytes in (2**20, 100 * 2**20):
        router = local({**DOCUMENT, "limits": {"max_body_bytes": limit_bytes}})["applications"][-1]
        env = router["deployments"][0]["ray_actor_options"]["runtime_env"]["env_vars"]
        found.append(int(env["RAY_SERVE_GRPC_MAX_MESSAGE_SIZE"]) // 2**20)
    assert found == [64, 101]


def test_without_pipelines_there_is_no_retriever() -> None:
    assert "retriever" not in apps({"models": DOCUMENT["models"]})


KEY = {"name": "ann", "hash": f"sha256:{'0' * 32}:{'0' * 64}"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", ""])  # noqa: S104
def test_a_platform_without_keys_is_not_opened_to_others(host: str) -> None:
    with pytest.raises(OpenToEverybody, match="manta keys create") as caught:
        build_schema(PlatformConfig.model_validate(DOCUMENT), http_host=host)
    assert isinstance(caught.value, CommandError)


@pytest.mark.parametrize(
    ("auth", "host"),
    [
        ({}, "127.0.0.1"),
        ({}, "::1"),
        ({}, "localhost"),
        ({"keys": [KEY]}, "0.0.0.0"),  # noqa: S104
        ({"keys_file": "keys.yaml"}, "0.0.0.0"),  # noqa: S104
        ({"allow_anonymous": True}, "0.0.0.0"),  # noqa: S104
    ],
    ids=["loopback", "loopback-6", "localhost", "keys", "file", "allowed"],
)
def test_a_platform_is_opened_by_keys_or_when_it_is_told_so(auth: dict[str, Any], host: str) -> None:
    made = build_schema(PlatformConfig.model_validate({**DOCUMENT, "auth": auth}), http_host=host)
    assert made["http_options"]["host"] == host


@pytest.mark.parametrize("auth", [{"keys": [KEY]}, {"keys_file": "keys.yaml"}], ids=["keys", "file"])
def test_the_ledger_of_limits_is_there_where_keys_are(auth: dict[str, Any]) -> None:
    assert "limits" not in apps(DOCUMENT)
    (deployment,) = apps({**DOCUMENT, "auth": auth})["limits"]["deployments"]
    assert deployment["num_replicas"] == 1


def test_the_routing_document_names_the_file_of_keys_and_does_not_hold_it() -> None:
    made = apps({**DOCUMENT, "auth": {"keys_file": "/etc/manta/keys.yaml"}})["rollouts"]["deployments"][0]
    document = RoutingDocument.model_validate(made["user_config"]["routing"])
    assert (document.auth.keys_file, document.auth.keys) == ("/etc/manta/keys.yaml", ())


def test_an_expiry_survives_its_way_to_the_routers() -> None:
    key = {**KEY, "expires_at": "2030-01-31T00:00:00+01:00"}
    made = apps({**DOCUMENT, "auth": {"keys": [key]}})["rollouts"]["deployments"][0]["user_config"]["routing"]
    (found,) = RoutingDocument.model_validate(made).auth.keys
    assert found.expires_at == datetime(2030, 1, 30, 23, tzinfo=UTC)


STORES = {
    "embedders": DOCUMENT["embedders"],
    "vector_store": {"uri": "s3://bucket/lance/"},
    "vector_stores": {"embedder": "minilm"},
}


def test_vector_stores_bring_their_service_and_a_retriever() -> None:
    made = apps(STORES)
    assert list(made) == ["rollouts", "embedder.minilm", "retriever", "documents", "router"]
    args = made["documents"]["args"]
    assert (args["uri"], args["embedder_source"]) == ("s3://bucket/lance-documents", "org/embedder")
    assert made["documents"]["deployments"][0]["num_replicas"] == 1
    assert made["retriever"]["args"]["bindings"] == []


def test_uploads_may_be_kept_elsewhere() -> None:
    stores = {**STORES, "vector_stores": {"embedder": "minilm", "uri": "/srv/uploads"}}
    assert apps(stores)["documents"]["args"]["uri"] == "/srv/uploads"


def test_cores_of_the_document_service_change_without_new_arguments() -> None:
    few, many = ({**STORES, "vector_stores": {"embedder": "minilm", "cpus": cpus}} for cpus in (0.5, 2))
    assert apps(few)["documents"]["args"] == apps(many)["documents"]["args"]
    assert apps(many)["documents"]["deployments"][0]["ray_actor_options"]["num_cpus"] == 2
