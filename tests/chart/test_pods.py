"""Ray's pods: their environment, secrets and volumes, and that nothing of the platform or the chart's version reaches them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray._private import ray_constants

from serve_app.cluster import LocalCluster
from serve_app.serve_settings import SERVE_SETTINGS
from serve_app.settings import INTERNAL_TOKEN, read_settings
from tests.chart.helm import CHART, CI_FILES, Json, chart, ci_values, pod_templates, rayservice, refusal

pytestmark = pytest.mark.chart

HA, GPU, LOCKED, MULTI, KUEUE = (
    ci_values(CHART / "ci" / f"{name}-values.yaml") for name in ("ha", "gpu-single", "locked-down", "multi-model", "kueue")
)
DRAIN = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"


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
def test_every_node_has_the_same_environment_but_for_its_drain(values: Json) -> None:
    found = [[each for each in container(t)["env"] if each["name"] != DRAIN] for t in pod_templates(values).values()]
    assert found == [found[0]] * len(found)


@pytest.mark.parametrize(("grace", "drain"), [(660, "630"), (1260, "1230"), (30, "0"), (10, "0")])
def test_ray_drains_a_worker_for_all_the_time_that_its_pod_has(grace: int, drain: str) -> None:
    found = env({"pod": {"terminationGracePeriodSeconds": grace}}, "cpu")
    assert found[DRAIN] == drain
    assert hasattr(ray_constants, DRAIN)  # Ray reads it by this name


def test_the_head_ends_in_rays_own_time() -> None:
    assert DRAIN not in env()


@pytest.mark.parametrize("file", CI_FILES, ids=lambda file: file.stem)
def test_examples_give_routers_and_replicas_the_time_that_they_ask_for(file: Path) -> None:
    values = ci_values(file)
    platform = values["platform"]
    drains = [variant.get("drain_timeout_s", 600) for model in platform["models"] for variant in model["variants"]]
    drains.append(platform.get("router", {}).get("drain_timeout_s", 600))
    assert max(drains) <= int(env(values, "cpu")[DRAIN])


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
    shared = {"modelCache": {"persistence": {"enabled": True}}}
    assert "MANTA_CACHE_GIB" not in env(shared)


@pytest.mark.parametrize(
    ("size", "limit"),
    [("100Gi", "90"), ("1Ti", "921"), ("1500Mi", "1"), ("0.5Gi", "0.45"), ("107374182400", "90"), ("99G", "82")],
)
def test_downloads_stay_below_what_the_kubelet_evicts_for(size: str, limit: str) -> None:
    assert env({"modelCache": {"sizeLimit": size}})["MANTA_CACHE_GIB"] == limit


def test_a_limit_of_downloads_that_ends_in_an_eviction_is_refused() -> None:
    assert "modelCache.limitGiB: downloads may take 100 GiB" in refusal({"modelCache": {"limitGiB": 100}})
    assert refusal({"modelCache": {"limitGiB": 99}}) == ""
    assert refusal({"modelCache": {"limitGiB": 150, "sizeLimit": "200Gi"}}) == ""


def parameters(values: Json | None = None) -> dict[str, Json]:
    cluster = rayservice(values)["spec"]["rayClusterConfig"]
    groups = {group["groupName"]: group["rayStartParams"] for group in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"]["rayStartParams"], **groups}


@pytest.mark.parametrize(
    ("shared", "store"),
    [("2Gi", 2**30), ("1.5Gi", 3 * 2**28), ("16G", 8 * 10**9), ("512Mi", 2**28), ("1Ti", 2**39), ("4000000000", 2 * 10**9)],
)
def test_rays_object_store_is_half_of_the_shared_memory(shared: str, store: int) -> None:
    values: Json = {name: {"sharedMemory": shared} for name in ("head", "cpuWorkers", "gpuWorkers")}
    values["platform"] = GPU["platform"]
    found = parameters(values)
    assert {name: each["object-store-memory"] for name, each in found.items()} == dict.fromkeys(found, str(store))
    assert len(found) == 3


def test_a_written_group_has_the_object_store_of_its_own_shared_memory() -> None:
    groups = [{"name": "cpu"}, {"name": "big", "sharedMemory": "64Gi"}]
    assert parameters({"workerGroups": groups})["big"]["object-store-memory"] == str(2**35)


@pytest.mark.parametrize("path", ["head", "cpuWorkers", "gpuWorkers", "workerGroups[0]"])
def test_shared_memory_that_ray_does_not_start_with_is_refused(path: str) -> None:
    small = {"sharedMemory": "100Mi"}
    values: Json = {"workerGroups": [{"name": "cpu", **small}]} if path == "workerGroups[0]" else {path: small}
    assert f"{path}.sharedMemory: half of 100Mi" in refusal(values)
    assert ray_constants.OBJECT_STORE_MINIMUM_MEMORY_BYTES == 75 * 2**20


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


@pytest.mark.parametrize("name", ["part-of", "instance", "component"])
def test_labels_of_pods_cannot_break_the_selectors(name: str) -> None:
    label = f"app.kubernetes.io/{name}"
    assert f'pod.labels: selectors of the chart go by "{label}"' in refusal({"pod": {"labels": {label: "other"}}})
    assert pod_templates({"pod": {"labels": {"team": "ml"}}})["head"]["metadata"]["labels"]["team"] == "ml"


@pytest.mark.parametrize("label", ["app.kubernetes.io/name", "app.kubernetes.io/created-by", "ray.io/cluster", "ray.io/serve"])
def test_labels_that_services_of_kuberay_select_by_are_left_to_it(label: str) -> None:
    assert [name for name, template in pod_templates(HA).items() if label in template["metadata"]["labels"]] == []
    assert f'pod.labels: Services of KubeRay go by its own "{label}"' in refusal({"pod": {"labels": {label: "mine"}}})


def test_head_and_workers_are_one_template() -> None:
    head, worker = copy.deepcopy(pod_templates()["head"]), copy.deepcopy(pod_templates()["cpu"])
    for template in (head, worker):
        spec = template["spec"]
        spec["containers"][0]["env"] = [each for each in spec["containers"][0]["env"] if each["name"] != DRAIN]
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


SCHEDULING = ("ray.io/gang-scheduling-enabled", "ray.io/priority-class-name", "volcano.sh/queue-name")


def test_a_gang_is_asked_for_by_labels_of_the_service_and_not_of_pods() -> None:
    labels = rayservice(MULTI)["metadata"]["labels"]
    assert [labels[name] for name in SCHEDULING] == ["true", "high", "serving"]
    for template in pod_templates(MULTI).values():
        assert not set(SCHEDULING) & set(template["metadata"]["labels"])
    assert not set(SCHEDULING) & set(rayservice()["metadata"]["labels"])


def test_kueue_lets_the_autoscaler_grow_what_is_elastic() -> None:
    metadata = rayservice(KUEUE)["metadata"]
    assert metadata["labels"]["kueue.x-k8s.io/queue-name"] == "inference"
    assert metadata["annotations"] == {"example.org/team": "ml", "kueue.x-k8s.io/elastic-job": "true"}
    assert "annotations" not in rayservice()["metadata"]


ELASTIC = {"kueue.x-k8s.io/elastic-job": "true"}


@pytest.mark.parametrize(
    ("values", "is_refused"),
    [
        pytest.param({}, True, id="the autoscaler"),
        pytest.param({"annotations": {"kueue.x-k8s.io/elastic-job": "false"}}, True, id="an annotation that says no"),
        pytest.param({"autoscaler": {"enabled": False}}, False, id="no autoscaler"),
        pytest.param({"annotations": ELASTIC}, False, id="the annotation itself"),
        pytest.param({"scheduling": {"kueueQueue": "q", "kueueElastic": True}}, False, id="elastic"),
    ],
)
def test_kueue_and_the_autoscaler_need_an_elastic_job(values: Json, is_refused: bool) -> None:
    message = refusal({"scheduling": {"kueueQueue": "q"}, **values})
    assert ("scheduling.kueueQueue: Kueue refuses a RayService with the autoscaler" in message) is is_refused


def test_kueue_and_a_gang_scheduler_are_not_used_together() -> None:
    gang = {"scheduling": {"kueueQueue": "q", "kueueElastic": True, "gang": {"enabled": True}}}
    assert "scheduling.gang.enabled: Kueue admits" in refusal(gang)
