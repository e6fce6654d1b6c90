from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from ray.serve.config import gRPCOptions
from ray.serve.schema import ServeDeploySchema

from deployments.declared import declared
from serve_app.apps import build_schema, cpus_needed
from serve_app.config import PlatformConfig, VariantConfig
from serve_app.errors import CommandError, OpenToEverybody

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


def test_a_price_change_touches_only_the_user_config_of_rollouts() -> None:
    prices: list[float | None] = [None, 1.5, 2.0]
    made = []
    for price in prices:
        document = copy.deepcopy(DOCUMENT)
        variant(document).update({} if price is None else {"price_per_hour": price})
        made.append(apps(document))
    told = [declared({"platform": platform_of(each)}).scaling.apps["llm.chat.stable"].price_per_hour for each in made]
    assert told == prices
    for each in made:
        del each["rollouts"]["deployments"][0]["user_config"]
    assert made[0] == made[1] == made[2]


def bounds(app: dict[str, Any]) -> tuple[int, int]:
    scaling = app["deployments"][0]["autoscaling_config"]
    return scaling["min_replicas"], scaling["max_replicas"]


def test_replica_counts_and_bounds_change_no_arguments() -> None:
    changed = copy.deepcopy(DOCUMENT)
    variant(changed)["replicas"] = 5
    variant(changed, 1)["autoscaling"]["max_replicas"] = 9
    before, after = apps(DOCUMENT), apps(changed)
    assert {n: a["args"] for n, a in before.items()} == {n: a["args"] for n, a in after.items()}
    assert bounds(after["llm.chat.stable"]) == (5, 5)


def platform_of(made: dict[str, Any]) -> Any:
    return made["rollouts"]["deployments"][0]["user_config"]["platform"]


def test_rollouts_carries_the_platforms_document_as_it_was_written() -> None:
    assert platform_of(apps(DOCUMENT)) == DOCUMENT


def test_arguments_hold_what_was_written_and_no_defaults() -> None:
    written = copy.deepcopy(DOCUMENT)
    written["embedders"][0] |= {"threads": 2, "replicas": 3}
    variant(written)["max_leases"] = 8
    args = {name: app["args"] for name, app in apps(written).items()}
    assert args == {
        "rollouts": {"state_uri": None},
        "embedder.minilm": {"config": {"name": "minilm", "source": "org/embedder", "threads": 2}},
        "llm.chat.stable": {
            "model": "chat",
            "config": {"name": "stable", "source": "org/model", "accelerator": "L40S"},
        },
        "llm.chat.canary": {
            "model": "chat",
            "config": {"name": "canary", "source": "org/next", "engine": {"tensor_parallel_size": 2}},
        },
        "retriever": {"bindings": [["minilm", "docs"]], "store": {}, "config": {}},
        "router": {},
    }


def test_what_a_replica_makes_of_its_arguments_is_what_was_configured() -> None:
    config = PlatformConfig.model_validate(DOCUMENT)
    args = apps(DOCUMENT)["llm.chat.canary"]["args"]["config"]
    assert VariantConfig.model_validate(args) == config.models[0].variants[1].model_copy(
        update={"weight": 100, "autoscaling": None}
    )


def test_scaling_settings_change_nothing_but_the_user_config_of_rollouts() -> None:
    changed = copy.deepcopy(DOCUMENT)
    variant(changed, 1)["autoscaling"]["target_queue_depth"] = 7
    changed["scaling"] = {"max_accelerators": 8}
    before, after = apps(DOCUMENT), apps(changed)
    assert [name for name in before if before[name] != after[name]] == ["rollouts", "llm.chat.stable"]
    document = declared({"platform": platform_of(after)}).scaling
    assert (document.max_accelerators, document.apps["llm.chat.canary"].settings.target_queue_depth) == (8, 7)


def test_an_accelerator_reserves_one_gpu_a_rank_and_cpu_variants_reserve_none() -> None:
    stable, canary = (apps(DOCUMENT)[f"llm.chat.{n}"]["deployments"][0] for n in ("stable", "canary"))
    assert stable["ray_actor_options"] == {"num_cpus": 1.0, "num_gpus": 1, "accelerator_type": "L40S"}
    assert canary["ray_actor_options"] == {"num_cpus": 2.0}


def test_autoscaling_goes_by_our_policy_within_the_configured_bounds() -> None:
    scaling = apps(DOCUMENT)["llm.chat.canary"]["deployments"][0]["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (0, 3)
    assert scaling["policy"] == {"policy_function": "autoscaling.policy:QueueDepthPolicy", "policy_kwargs": {}}


def test_cpus_needed_counts_every_replica_at_its_most() -> None:
    # rollouts 0.1, embedder 1, stable 1, canary 3 x 2, retriever 0.5, routers 2 x 1
    assert cpus_needed(schema(DOCUMENT)) == pytest.approx(10.6)


STAGES = ["embedder.minilm", "llm.chat.stable", "retriever", "router"]


def scaled(**settings: Any) -> dict[str, Any]:
    """Return the document with every stage scaled."""
    changed = copy.deepcopy(DOCUMENT)
    changed["retriever"], changed["router"] = {}, {}
    for stage in (changed["embedders"][0], variant(changed), changed["retriever"], changed["router"]):
        stage["autoscaling"] = {"min_replicas": 2, "max_replicas": 4, **settings}
    return changed


def test_every_stage_scales_by_one_policy_that_takes_no_arguments() -> None:
    made = apps(scaled(target_queue_depth=9, upscale_delay_s=1))
    for name in STAGES:
        deployment = made[name]["deployments"][0]
        assert "num_replicas" not in deployment
        assert deployment["autoscaling_config"] == {
            "min_replicas": 2,
            "max_replicas": 4,
            "upscale_delay_s": 0.0,
            "downscale_delay_s": 0.0,
            "metrics_interval_s": 1.0,
            "look_back_period_s": 5.0,
            "policy": {"policy_function": "autoscaling.policy:QueueDepthPolicy", "policy_kwargs": {}},
        }


def test_with_a_budget_serve_starts_no_accelerator_by_itself() -> None:
    before, after = apps(DOCUMENT), apps({**DOCUMENT, "scaling": {"max_accelerators": 8}})
    stable = "llm.chat.stable"  # the only one on an accelerator
    assert (bounds(before[stable]), bounds(after[stable])) == ((1, 1), (0, 1))
    assert before[stable]["args"] == after[stable]["args"]
    assert [name for name in STAGES if bounds(before[name]) != bounds(after[name])] == [stable]


def test_without_autoscaling_a_stage_has_its_fixed_number_and_the_policy_all_the_same() -> None:
    fixed = {**DOCUMENT, "router": {"replicas": 3}, "retriever": {"replicas": 5}}
    made = apps(fixed)
    assert [bounds(made[name]) for name in STAGES] == [(1, 1), (1, 1), (5, 5), (3, 3)]
    policies = {json.dumps(made[name]["deployments"][0]["autoscaling_config"]["policy"]) for name in STAGES}
    assert policies == {json.dumps(apps(scaled())[STAGES[0]]["deployments"][0]["autoscaling_config"]["policy"])}


def test_a_variant_without_replicas_is_no_application() -> None:
    none = copy.deepcopy(DOCUMENT)
    variant(none)["replicas"] = 0
    assert set(apps(DOCUMENT)) - set(apps(none)) == {"llm.chat.stable"}


@pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field:DeprecationWarning")
def test_ray_accepts_a_schema_in_which_every_stage_scales() -> None:
    accepted = ServeDeploySchema.model_validate(schema(scaled()))
    assert [a.name for a in accepted.applications] == list(apps(DOCUMENT))


@pytest.mark.parametrize("target", ["embedder", "retriever", "router"])
def test_how_many_replicas_a_stage_has_is_no_part_of_its_arguments(target: str) -> None:
    def changed(**settings: Any) -> dict[str, Any]:
        document = copy.deepcopy(DOCUMENT)
        if target == "embedder":
            document["embedders"][0] |= settings
        else:
            document[target] = settings
        return {name: app["args"] for name, app in apps(document).items()}

    before = changed()
    assert changed(replicas=7) == before
    assert changed(max_replicas_per_node=1) == before
    assert changed(autoscaling={"min_replicas": 2, "max_replicas": 9, "target_queue_depth": 1}) == before


@pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field:DeprecationWarning")
def test_replicas_that_are_to_share_no_node_are_spread_by_serve() -> None:
    document = copy.deepcopy(DOCUMENT)
    for part in (document["models"][0]["variants"][0], document["embedders"][0]):
        part["max_replicas_per_node"] = 1
    document |= {"retriever": {"max_replicas_per_node": 2}, "router": {"max_replicas_per_node": 3}}
    made = ServeDeploySchema.model_validate(schema(document))
    deployments = [(app.name, each) for app in made.applications for each in app.deployments]
    told = {app: each.max_replicas_per_node for app, each in deployments if "max_replicas_per_node" in each.model_fields_set}
    assert sorted(told.values()) == [1, 1, 2, 3]
    assert told["router"] == 3
    before, after = apps(DOCUMENT), apps(document)
    assert {name: app["args"] for name, app in before.items()} == {name: app["args"] for name, app in after.items()}


def test_the_settings_of_a_scaled_stage_change_nothing_that_serve_counts_into_its_version() -> None:
    before, after = apps(scaled()), apps(scaled(target_queue_depth=1, headroom=0, downscale_delay_s=1))
    for name in STAGES:
        assert before[name] == after[name]


def test_the_searches_at_a_time_are_what_a_retriever_is_made_of_and_its_cores_are_reserved() -> None:
    made = apps({**DOCUMENT, "retriever": {"max_concurrent_searches": 3, "cpus": 2}})["retriever"]
    assert made["args"]["config"] == {"max_concurrent_searches": 3}
    assert made["deployments"][0]["ray_actor_options"] == {"num_cpus": 2.0}


@pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field:DeprecationWarning")
def test_nothing_that_waits_in_serve_waits_without_bound() -> None:
    made = ServeDeploySchema.model_validate(schema({**DOCUMENT, "vector_stores": {"embedder": "minilm"}}))
    deployments = {each.name: each for app in made.applications for each in app.deployments}
    waiting = {name: deployments[name].max_queued_requests for name in ("Embedder", "Retriever", "Documents", "Router")}
    assert waiting == dict.fromkeys(waiting, 1024)
    refusal = deployments["Router"].backpressure_config
    assert (refusal.status_code, refusal.retry_after_s) == (429, 5)


def test_cpus_needed_counts_scaled_stages_at_their_most() -> None:
    # rollouts 0.1, embedder 4 x 1, stable 4 x 1, canary 3 x 2, retriever 4 x 0.5, routers 4 x 1
    assert cpus_needed(schema(scaled())) == pytest.approx(20.1)


def local(document: dict[str, Any], **options: Any) -> dict[str, Any]:
    return build_schema(PlatformConfig.model_validate(document), http_host="127.0.0.1", **options)


def test_grpc_is_served_beside_rest_unless_it_is_switched_off() -> None:
    assert local(DOCUMENT, grpc_port=9100)["grpc_options"] == {
        "port": 9100,
        "grpc_servicer_functions": ["serve_app.rpc.services:add_inference", "serve_app.rpc.services:add_health"],
    }
    assert "grpc_options" not in local({**DOCUMENT, "router": {"grpc": False}})
    assert "grpc_options" not in local(DOCUMENT, grpc_port=None)


@pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field:DeprecationWarning")
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
    made = apps({**DOCUMENT, "auth": {"keys_file": "/etc/manta/keys.yaml"}})
    document = declared({"platform": platform_of(made)}).routing
    assert (document.auth.keys_file, document.auth.keys) == ("/etc/manta/keys.yaml", ())


def test_an_expiry_survives_its_way_to_the_routers() -> None:
    key = {**KEY, "expires_at": "2030-01-31T00:00:00+01:00"}
    made = apps({**DOCUMENT, "auth": {"keys": [key]}})
    (found,) = declared({"platform": platform_of(made)}).routing.auth.keys
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


def test_a_replica_of_several_stages_reserves_a_bundle_for_each() -> None:
    engine = {"tensor_parallel_size": 4, "pipeline_parallel_size": 2}
    variant = {"name": "stable", "source": "org/model", "engine": engine, "accelerator": "L40S", "cpus": 2, "replicas": 3}
    config = PlatformConfig.model_validate(
        {"models": [{"name": "chat", "variants": [variant]}], "auth": {"allow_anonymous": True}}
    )
    schema = build_schema(config)
    [deployment] = next(app for app in schema["applications"] if app["name"] == "llm.chat.stable")["deployments"]
    bundle = {"CPU": 8.0, "GPU": 4.0, "accelerator_type:L40S": 0.001}
    assert deployment["placement_group_bundles"] == [bundle, bundle]
    assert deployment["placement_group_strategy"] == "PACK"
    assert deployment["ray_actor_options"] == {"num_cpus": 8.0, "num_gpus": 4, "accelerator_type": "L40S"}
    others = sum(
        each["ray_actor_options"]["num_cpus"]
        * each.get("num_replicas", each.get("autoscaling_config", {}).get("max_replicas", 1))
        for app in schema["applications"]
        for each in app["deployments"]
        if each is not deployment
    )
    assert cpus_needed(schema) == pytest.approx(3 * 16.0 + others)
