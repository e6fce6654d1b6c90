"""Ray's pods: their environment, secrets and volumes, and that nothing of the platform or the chart's version reaches them."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import yaml

from serve_app.cluster import LocalCluster
from serve_app.serve_settings import SERVE_SETTINGS
from serve_app.settings import INTERNAL_TOKEN, read_settings
from tests.chart.helm import CHART, Json, chart, ci_values, pod_templates, rayservice

pytestmark = pytest.mark.chart

HA, GPU, LOCKED, MULTI = (
    ci_values(CHART / "ci" / f"{name}-values.yaml") for name in ("ha", "gpu-single", "locked-down", "multi-model")
)


def container(template: Json) -> Json:
    found: Json = template["spec"]["containers"][0]
    return found


def env(values: Json | None = None, group: str = "head") -> dict[str, Any]:
    entries = container(pod_templates(values)[group])["env"]
    assert len({each["name"] for each in entries}) == len(entries)
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in entries}


def test_serve_has_the_settings_that_manta_run_gives_it() -> None:
    found = env()
    assert {name: found[name] for name in SERVE_SETTINGS} == SERVE_SETTINGS
    local = LocalCluster(num_cpus=1)
    try:
        ours = local._environment()
    finally:
        local.stop()
    settings = yaml.safe_load((CHART / "files" / "serve-settings.yaml").read_text(encoding="utf-8"))
    assert {name: ours[name] for name in settings} == settings


@pytest.mark.parametrize("values", [{}, HA, MULTI], ids=["defaults", "ha", "multi-model"])
def test_every_node_has_the_same_environment(values: Json) -> None:
    found = [container(template)["env"] for template in pod_templates(values).values()]
    assert found == [found[0]] * len(found)


def test_replicas_find_what_they_read_from_the_environment() -> None:
    found = env()
    assert found[INTERNAL_TOKEN] == {"secretKeyRef": {"name": "manta-internal-token", "key": "token"}}
    assert (
        read_settings({**{k: v for k, v in found.items() if isinstance(v, str)}, INTERNAL_TOKEN: "x" * 16}).replica_host is None
    )


def test_downloads_go_to_the_cache_within_its_limit() -> None:
    found = env(GPU)
    assert (found["MANTA_CACHE"], found["MANTA_CACHE_GIB"], found["VLLM_CACHE_ROOT"], found["HF_TOKEN"]) == (
        "/var/cache/manta",
        "150",
        "/var/cache/manta/vllm",
        {"secretKeyRef": {"name": "hub", "key": "token"}},
    )
    spec = pod_templates(GPU)["gpu-l40s-1x1"]["spec"]
    assert {"name": "model-cache", "persistentVolumeClaim": {"claimName": "demo-manta-models"}} in spec["volumes"]
    assert "MANTA_CACHE_GIB" not in env()


def test_an_object_store_is_reached_by_a_secret_or_a_role() -> None:
    found = env(MULTI)
    assert found["AWS_ACCESS_KEY_ID"] == {"secretKeyRef": {"name": "s3", "key": "accessKeyId"}}
    assert (found["AWS_ENDPOINT_URL"], found["AWS_REGION"]) == ("https://s3.example.org", "eu-1")
    assert "AWS_ACCESS_KEY_ID" not in env()


def test_secrets_are_named_and_never_written() -> None:
    for template in chart().templates:
        assert "kind: Secret" not in template["data"]


def weighted(weight: int) -> Json:
    variants = [
        {"name": "stable", "source": "org/a", "weight": 100 - weight},
        {"name": "canary", "source": "org/b", "weight": weight, "max_leases": weight + 1},
    ]
    limits = {"max_body_bytes": 10_000_000 + weight}
    return {"platform": {"models": [{"name": "chat", "variants": variants}], "limits": limits}}


def test_nothing_of_the_platform_reaches_a_pod() -> None:
    before, after = (rayservice(weighted(weight))["spec"] for weight in (10, 20))
    assert before["rayClusterConfig"] == after["rayClusterConfig"]
    assert before["serveConfigV2"] != after["serveConfigV2"]


def test_the_charts_version_and_checksums_reach_no_pod() -> None:
    for template in pod_templates().values():
        metadata = json.dumps(template["metadata"])
        for word in ("helm.sh/chart", "app.kubernetes.io/version", "checksum", "managed-by"):
            assert word not in metadata


def test_labels_of_pods_cannot_break_the_selectors() -> None:
    labels = pod_templates({"pod": {"labels": {"app.kubernetes.io/instance": "other", "team": "ml"}}})["head"]["metadata"][
        "labels"
    ]
    assert labels["app.kubernetes.io/instance"] == "demo"
    assert labels["team"] == "ml"


def test_head_and_workers_are_one_template() -> None:
    head, worker = copy.deepcopy(pod_templates()["head"]), copy.deepcopy(pod_templates()["cpu"])
    for template in (head, worker):
        spec = template["spec"]
        for key in ("serviceAccountName", "automountServiceAccountToken"):
            del spec[key]
        for key in ("name", "resources", "ports"):
            del spec["containers"][0][key]
        spec["volumes"] = [volume for volume in spec["volumes"] if volume["name"] != "shared-mem"]
    assert head == worker


def test_only_the_head_may_ask_kubernetes_and_only_for_the_autoscaler() -> None:
    tokens = {name: t["spec"]["automountServiceAccountToken"] for name, t in pod_templates().items()}
    assert tokens == {"head": True, "cpu": False}
    assert pod_templates({"autoscaler": {"enabled": False}})["head"]["spec"]["automountServiceAccountToken"] is False


def test_images_come_from_a_registry_by_tag_or_digest() -> None:
    assert (
        container(pod_templates(LOCKED)["cpu"])["image"] == f"registry.internal:5000/ml/manta@sha256:{'0123456789abcdef' * 4}"
    )
    images = {name: container(template)["image"] for name, template in pod_templates(MULTI).items()}
    assert (images["head"], images["gpu-h100-4x1"]) == (
        "registry.example.org/manta-serve:0.1.0-cpu",
        "registry.example.org/manta-serve:0.1.0-gpu",
    )
    assert pod_templates(MULTI)["cpu"]["spec"]["imagePullSecrets"] == [{"name": "registry"}]


def test_the_head_serves_nothing_and_runs_no_replica() -> None:
    spec = rayservice()["spec"]
    assert (spec["excludeHeadPodFromServeSvc"], spec["rayClusterConfig"]["headGroupSpec"]["resources"]) == (True, {"CPU": "0"})


def test_rays_version_is_the_one_that_is_tested() -> None:
    constraints = (CHART.parents[1] / "constraints" / "cpu.txt").read_text(encoding="utf-8").splitlines()
    assert f"ray=={rayservice()['spec']['rayClusterConfig']['rayVersion']}" in constraints


def test_redis_keeps_what_the_head_knows() -> None:
    options = rayservice(HA)["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
    assert options == {
        "redisAddress": "redis://demo-manta-redis:6379",
        "redisPassword": {"valueFrom": {"secretKeyRef": {"name": "redis", "key": "password"}}},
    }
    external = rayservice(LOCKED)["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
    assert (external["redisAddress"], external["redisUsername"]) == ("rediss://redis.internal:6379", {"value": "manta"})
    assert "gcsFaultToleranceOptions" not in rayservice()["spec"]["rayClusterConfig"]


def test_rays_own_api_asks_for_a_token() -> None:
    assert rayservice()["spec"]["rayClusterConfig"]["authOptions"] == {"mode": "token"}
    assert rayservice(HA)["spec"]["rayClusterConfig"]["authOptions"]["secretName"] == "ray-token"
    assert "authOptions" not in rayservice({"rayAuth": {"enabled": False}})["spec"]["rayClusterConfig"]


def test_keys_may_stand_in_the_values_though_the_secret_is_not_there() -> None:
    volumes = pod_templates()["cpu"]["spec"]["volumes"]
    assert {"name": "api-keys", "secret": {"secretName": "manta-api-keys", "optional": True}} in volumes


def test_gangs_and_queues_are_labels() -> None:
    labels = pod_templates(MULTI)["cpu"]["metadata"]["labels"]
    assert (labels["ray.io/gang-scheduling-enabled"], labels["volcano.sh/queue-name"]) == ("true", "serving")
    assert rayservice(MULTI)["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "inference"
