"""What KubeRay 1.7's operator refuses and no schema says, ported from its validation.go and from how it finds ports."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]
UPGRADES = ("None", "NewCluster", "NewClusterWithIncrementalUpgrade")
REDIS = ("RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "REDIS_USERNAME")
SERVICES_SELECT = (
    "app.kubernetes.io/name",
    "app.kubernetes.io/created-by",
)  # with KubeRay's own values, which a template's labels override
BATCH = ("ray.io/gang-scheduling-enabled", "ray.io/priority-class-name", "volcano.sh/queue-name", "kueue.x-k8s.io/queue-name")
LABEL = re.compile(r"^([A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?)?$")


def violations(service: Json) -> list[str]:
    """Return why the operator would refuse a RayService, or never serve it."""
    spec = service["spec"]
    cluster = spec["rayClusterConfig"]
    checks = (_name(service), _head(cluster), _groups(cluster), _redis(cluster), _autoscaler(cluster), _auth(cluster))
    return [each for check in (*checks, _upgrade(spec)) for each in check]


def _name(service: Json) -> Iterator[str]:
    name = service["metadata"]["name"]
    if len(name) > 47:
        yield f"name {name} has more than 47 characters"
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        yield f"name {name} is no DNS-1035 label"


def _head(cluster: Json) -> Iterator[str]:
    container = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
    ports = {port["name"] for port in container["ports"]}
    if "serve" not in ports:
        yield "the head has no port `serve`, so there will be no service"
    if missing := {"gcs-server", "dashboard", "client"} - ports:
        yield f"the head has no port {sorted(missing)}"
    if cluster["headGroupSpec"].get("headService", {}).get("metadata", {}).get("name"):
        yield "headService may have no name of its own"


def _groups(cluster: Json) -> Iterator[str]:
    names = [group["groupName"] for group in cluster["workerGroupSpecs"]]
    if len(set(names)) != len(names):
        yield f"group names {names} repeat"
    for name, group in [("head", cluster["headGroupSpec"]), *zip(names, cluster["workerGroupSpecs"], strict=True)]:
        yield from (f"{name}: {problem}" for problem in (*_parameters(group), *_labels(group)))
    for name, group in zip(names, cluster["workerGroupSpecs"], strict=True):
        if not 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
            yield f"{name}: minReplicas, replicas and maxReplicas are not in order"
        if group["numOfHosts"] < 1:
            yield f"{name}: numOfHosts must be 1 at least"


def _parameters(group: Json) -> Iterator[str]:
    params = group.get("rayStartParams", {})
    if group.get("resources") and {"num-cpus", "num-gpus", "memory", "resources"} & params.keys():
        yield "resources stand in rayStartParams and beside them"
    if group.get("resources") and not params:
        yield "the operator writes resources into rayStartParams, and an empty one gets lost on its way"
    if "labels" in params:
        yield "labels stand in rayStartParams"
    yield from (f"label value {value!r}" for value in group.get("labels", {}).values() if not LABEL.match(value))


def _labels(group: Json) -> Iterator[str]:
    labels = group["template"]["metadata"]["labels"]
    if found := sorted(label for label in labels if label in SERVICES_SELECT or label.startswith("ray.io/")):
        yield f"the head's Service selects by {found}, and finds no pod with other values"
    if found := sorted(labels.keys() & set(BATCH)):
        yield f"batch schedulers read {found} of the RayCluster, not of pods"


def _env(cluster: Json) -> set[str]:
    return {each["name"] for each in cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]}


def _redis(cluster: Json) -> Iterator[str]:
    if found := _env(cluster) & set(REDIS):
        yield f"Redis is set up by {sorted(found)}, not by gcsFaultToleranceOptions"
    if {"redis-password", "redis-username"} & cluster["headGroupSpec"].get("rayStartParams", {}).keys():
        yield "Redis is set up by rayStartParams, not by gcsFaultToleranceOptions"
    options = cluster.get("gcsFaultToleranceOptions")
    if options is not None and "externalStorageNamespace" in options:
        yield "two clusters of an upgrade would share one namespace of Redis"


def _autoscaler(cluster: Json) -> Iterator[str]:
    is_on = cluster.get("enableInTreeAutoscaling", False)
    if "RAY_enable_autoscaler_v2" in _env(cluster):
        yield "autoscaler v2 is chosen by an environment variable"
    templates = [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]
    policies = {template["spec"].get("restartPolicy", "Never") for template in templates}
    if is_on and cluster["autoscalerOptions"].get("version") == "v2" and policies != {"Never"}:
        yield f"autoscaler v2 needs restartPolicy Never, got {policies}"


def _auth(cluster: Json) -> Iterator[str]:
    options = cluster.get("authOptions", {})
    if options.get("mode") == "token" and tuple(map(int, cluster["rayVersion"].split("."))) < (2, 52, 0):
        yield "a token needs Ray 2.52"
    if options.get("enableK8sTokenAuth"):
        yield "a RayService takes no Kubernetes tokens"


def _upgrade(spec: Json) -> Iterator[str]:
    strategy = spec["upgradeStrategy"]
    if strategy["type"] not in UPGRADES:
        yield f"upgradeStrategy.type {strategy['type']}"
    if spec["rayClusterDeletionDelaySeconds"] < 0:
        yield "rayClusterDeletionDelaySeconds is under 0"
    if strategy["type"] != UPGRADES[2]:
        return
    if not spec["rayClusterConfig"].get("enableInTreeAutoscaling"):
        yield "an incremental upgrade needs the autoscaler"
    options = strategy["clusterUpgradeOptions"]
    if not options["gatewayClassName"] or options["intervalSeconds"] <= 0:
        yield "an incremental upgrade needs a class and an interval"
    if not 0 <= options["stepSizePercent"] <= options["maxSurgePercent"] <= 100:
        yield "stepSizePercent must be at most maxSurgePercent"
