"""What an upgrade does: every edit of scripts/chart_upgrades.yaml through the real Helm engine, and the rules behind it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve._private.config import DeploymentConfig
from ray.serve._private.deploy_utils import get_app_code_version
from ray.serve._private.version import DeploymentVersion
from ray.serve.schema import ServeApplicationSchema

from scripts import chart_effects, chart_upgrades
from scripts.chart_effects import Cluster, Effect, effect
from scripts.chart_upgrades import Edit, base, groups, promise_of, rendered, with_set
from scripts.serve_effects import APP_RESTARTS, DEPLOYMENT_RESTARTS, ServeEffect, restarts, serve_effect

pytestmark = [pytest.mark.chart, pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field:DeprecationWarning")]

Json = dict[str, Any]
EDITS = [
    pytest.param(group.promise, edit, id=f"{group.promise}-{edit.title[:40]}") for group in groups() for edit in group.edits
]


@pytest.mark.parametrize(("promise", "edit"), EDITS)
def test_an_edit_does_what_the_page_says(promise: str, edit: Edit, record_property: Any) -> None:
    found = [promise_of(each) for each in edit.effects()]
    record_property("edits", len(found))
    assert found == [promise] * len(edit.alternatives)


def test_the_page_is_what_the_script_writes() -> None:
    assert chart_upgrades.main(["--check"]) == 0


def edited(sets: Mapping[str, Any]) -> Effect:
    return effect(rendered(base()), rendered(with_set(base(), sets)))


def test_a_weight_is_one_put_that_only_rollouts_is_told_of() -> None:
    weights = {"platform.models[0].variants[0].weight": 80, "platform.models[0].variants[1].weight": 20}
    assert edited(weights) == Effect(serve=ServeEffect(in_place=("rollouts",)))


def test_a_new_variant_starts_one_application_and_tells_one() -> None:
    variant = {"name": "next", "source": "s3://models/chat-3", "weight": 0, "accelerator": "L40S"}
    found = edited({"platform.models[0].variants[2]": variant})
    assert found.serve == ServeEffect(added=("llm.chat.next",), in_place=("rollouts",))
    assert (found.cluster, found.late) == (Cluster.KEPT, ("gpu-l40s-1x1.minReplicas", "gpu-l40s-1x1.maxReplicas"))


def test_more_replicas_than_a_group_may_have_are_told_of() -> None:
    found = edited({"platform.models[0].variants[1].autoscaling.max_replicas": 8})
    assert (found.serve.restarted, found.late) == ((), ("gpu-l40s-1x1.maxReplicas",))


def test_a_group_at_the_end_grows_the_cluster_and_one_before_it_replaces_it() -> None:
    grown = {"name": "h100", "accelerator": "H100", "gpus": 1, "minReplicas": 2, "maxReplicas": 2}
    there = [{"name": "cpu"}, {"name": "l40s", "accelerator": "L40S", "gpus": 1, "minReplicas": 2, "maxReplicas": 5}]
    old = rendered(with_set(base(), {"workerGroups": there}))
    last, first = (rendered(with_set(base(), {"workerGroups": each})) for each in ([*there, grown], [grown, *there]))
    assert effect(old, last) == Effect(cluster=Cluster.GROWS, objects=("PodDisruptionBudget demo-manta-h100",))
    assert effect(old, first).cluster is Cluster.REPLACED
    assert effect(last, old).cluster is Cluster.REPLACED


def test_a_cluster_that_grows_gets_the_bounds_that_waited() -> None:
    large = {"name": "large", "variants": [{"name": "stable", "source": "s3://models/large", "accelerator": "H100"}]}
    both = {"platform.models[0].variants[1].autoscaling.max_replicas": 8, "platform.models[2]": large}
    assert (edited(both).cluster, edited(both).late) == (Cluster.GROWS, ())


def test_a_second_cluster_alone_gets_the_configuration() -> None:
    found = edited({"platform.models[0].variants[0].engine.max_model_len": 4096, "image.gpu.tag": "2"})
    assert (found.cluster, found.is_sent, found.is_in_place) == (Cluster.REPLACED, False, False)
    assert "only the second cluster gets the new configuration" in "\n".join(chart_effects.lines(found))


def test_without_upgrades_other_pods_wait_and_serve_does_not() -> None:
    values = with_set(base(), {"upgrade.type": "None"})
    weights = {"platform.models[0].variants[0].weight": 80, "platform.models[0].variants[1].weight": 20}
    found = effect(rendered(values), rendered(with_set(values, {**weights, "image.gpu.tag": "2"})))
    assert (found.cluster, found.is_sent) == (Cluster.STALE, True)


def test_two_releases_are_not_compared() -> None:
    with pytest.raises(ValueError, match="another installation"):
        effect(rendered(base()), rendered(with_set(base(), {"fullnameOverride": "other"})))


def test_two_files_are_compared_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = []
    for name, tag in (("old", "1"), ("new", "2")):
        files.append(str(tmp_path / f"{name}.yaml"))
        Path(files[-1]).write_text(yaml.safe_dump_all(rendered(with_set(base(), {"image.gpu.tag": tag}))))
    assert chart_effects.main([files[0], files[0]]) == 0
    assert chart_effects.main(files) == 3
    assert "a second one starts beside it" in capsys.readouterr().out
    assert chart_effects.main([]) == 2


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.rayClusterConfig.workerGroupSpecs[0].replicas", 3),
        ("spec.rayClusterConfig.workerGroupSpecs[0].scaleStrategy", {"workersToDelete": ["a"]}),
        ("spec.rayClusterConfig.headGroupSpec.template.spec.schedulingGates", [{"name": "g"}]),
        ("spec.rayClusterConfig.suspend", True),
        ("spec.rayClusterConfig.upgradeStrategy", {"type": "Recreate"}),
    ],
)
def test_the_operators_hash_leaves_out_what_others_write(path: str, value: Any) -> None:
    old = [each for each in rendered(base()) if each["kind"] == "RayService"]
    empty = with_set(old[0], {"spec.rayClusterConfig.workerGroupSpecs[0].scaleStrategy": {}})
    assert effect([empty], [with_set(empty, {path: value})]).cluster is Cluster.KEPT


# What Ray itself says of every field that an application of ours could have.
APP: Json = {
    "name": "a",
    "route_prefix": None,
    "import_path": "m:f",
    "args": {"x": 1},
    "deployments": [{"name": "D", "num_replicas": 1, "ray_actor_options": {"num_cpus": 1}}],
}
APP_EDITS: Mapping[str, Any] = {
    "import_path": "m:g",
    "args": {"x": 2},
    "runtime_env": {"env_vars": {"A": "1"}},
    "autoscaling_policy": {"policy_function": "m:p"},
    "route_prefix": "/b",
    "external_scaler_enabled": True,
}
DEPLOYMENT_EDITS: Mapping[str, Any] = {
    "num_replicas": 2,
    "max_ongoing_requests": 7,
    "max_queued_requests": 7,
    "backpressure_config": {"status_code": 429},
    "user_config": {"w": 1},
    "autoscaling_config": {"min_replicas": 1, "max_replicas": 4},
    "graceful_shutdown_timeout_s": 7.0,
    "graceful_shutdown_wait_loop_s": 7.0,
    "health_check_period_s": 7.0,
    "health_check_timeout_s": 7.0,
    "ray_actor_options": {"num_cpus": 2},
    "placement_group_bundles": [{"CPU": 1}],
    "placement_group_strategy": "SPREAD",
    "max_replicas_per_node": 1,
    "request_router_config": {"initial_backoff_s": 0.5},
}


@pytest.mark.parametrize("key", APP_EDITS)
def test_an_application_restarts_where_ray_sees_other_code(key: str) -> None:
    other = {**copy.deepcopy(APP), key: APP_EDITS[key]}
    versions = {get_app_code_version(ServeApplicationSchema.model_validate(each)) for each in (APP, other)}
    assert restarts(APP, other) is (len(versions) == 2)


@pytest.mark.parametrize("key", DEPLOYMENT_EDITS)
def test_a_deployment_restarts_where_ray_replaces_its_actors(key: str) -> None:
    other = copy.deepcopy(APP)
    other["deployments"][0][key] = DEPLOYMENT_EDITS[key]
    if key == "autoscaling_config":  # in place of a number
        del other["deployments"][0]["num_replicas"]
    codes = [get_app_code_version(ServeApplicationSchema.model_validate(each)) for each in (APP, other)]
    old, new = (version(each, code) for each, code in zip((APP, other), codes, strict=True))
    assert restarts(APP, other) is old.requires_actor_restart(new)  # type: ignore[no-untyped-call]


def version(app: Json, code: str) -> DeploymentVersion:
    options = dict(app["deployments"][0])
    heavy = {key: options.pop(key, None) for key in DEPLOYMENT_RESTARTS if key != "gang_scheduling_config"}
    known = {
        key: value for key, value in options.items() if key in DeploymentConfig.model_fields and key != "request_router_config"
    }
    return DeploymentVersion(code, DeploymentConfig(**known), **heavy)


def test_a_policy_is_code_and_its_numbers_are_not() -> None:
    def scaled(policy: str, most: int) -> Json:
        made = copy.deepcopy(APP)
        scaling = {"min_replicas": 1, "max_replicas": most, "policy": {"policy_function": policy}}
        made["deployments"][0] = {"name": "D", "autoscaling_config": scaling}
        return made

    assert not restarts(scaled("m:p", 4), scaled("m:p", 8))
    assert restarts(scaled("m:p", 4), scaled("m:q", 4))


def test_options_that_serve_reads_once_are_told_of() -> None:
    old: Json = {"applications": [APP], "http_options": {"port": 8000}}
    found = serve_effect(old, {**old, "http_options": {"port": 8080}})
    assert found == ServeEffect(ignored=("http_options",))
    assert [*found.lines()] == ["http_options: ignored until the next cluster"]


def test_every_field_that_restarts_is_one_that_ray_knows() -> None:
    assert set(APP_RESTARTS) <= set(ServeApplicationSchema.model_fields)


def test_values_are_set_as_helm_sets_them() -> None:
    values: Json = {"a": {"b": [{"c": 1}, {"c": 2}]}, "d": None}
    made = with_set(values, {"a.b[1].c": 3, "a.b[2]": {"c": 4}, "d.e": 5, "f.g.h": 6, "a.b[0].c": None})
    assert made == {"a": {"b": [{}, {"c": 3}, {"c": 4}]}, "d": {"e": 5}, "f": {"g": {"h": 6}}}
    assert values == {"a": {"b": [{"c": 1}, {"c": 2}]}, "d": None}


def test_values_that_were_one_object_are_set_apart() -> None:
    shared = {"c": 1}
    assert with_set({"a": [shared, shared]}, {"a[0].c": 2}) == {"a": [{"c": 2}, {"c": 1}]}
