"""What an API server or KubeRay would refuse, or never call ready, is refused by Helm or never rendered."""

from __future__ import annotations

import copy
import re

import pytest
import yaml

from tests.chart import crd_schema
from tests.chart.helm import Json, files, objects, of_kind, pod_templates, rayservice, refusal

pytestmark = pytest.mark.chart

KEYS = {"secret": {"secretName": "other-keys"}, "name": "keys"}
L40S = {"name": "stable", "source": "org/m", "accelerator": "L40S"}
YAML_WORDS = ["no", "on", "true", "null", "2026", "0x10"]


def pod(**more: object) -> Json:
    return {"pod": more}


def models(*variants: Json) -> Json:
    return {"models": [{"name": f"m{i}", "variants": [each]} for i, each in enumerate(variants)]}


CASES: dict[str, tuple[Json, str]] = {
    "env-of-the-chart": (
        pod(env=[{"name": "HF_HOME", "value": "/x"}]),
        'pod.env: "HF_HOME" stands twice, or the chart sets it',
    ),
    "env-twice": (pod(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]), 'pod.env: "A" stands twice'),
    "env-of-redis": (
        pod(env=[{"name": "RAY_REDIS_ADDRESS", "value": "redis:6379"}]),
        'pod.env: KubeRay refuses "RAY_REDIS_ADDRESS"; use `gcsFaultTolerance.redisAddress`',
    ),
    "env-of-the-autoscaler": (pod(env=[{"name": "RAY_enable_autoscaler_v2", "value": "0"}]), "use `autoscaler.enabled`"),
    "volume-twice": (pod(volumes=[{"name": "tmp", "emptyDir": {}}]), 'must be unique, "tmp" is used more than once'),
    "mount-twice": (
        pod(volumes=[{"name": "own", "emptyDir": {}}], volumeMounts=[{"name": "own", "mountPath": "/tmp/"}]),
        'must be unique, "/tmp" is used more than once',
    ),
    "mount-of-nothing": (
        pod(volumeMounts=[{"name": "own", "mountPath": "/own"}]),
        'pod.volumeMounts[0].name: volume "own" is not declared',
    ),
    "two-volumes-at-one-path": (
        {"data": {"enabled": True, "mountPath": "/var/cache/manta"}},
        '"/var/cache/manta" is used more',
    ),
    "keys-beside-their-mount": (
        {"apiKeys": {"mountPath": "/secrets"}},
        'platform.auth.keys_file: no volume of the pods has "/etc/manta/keys/keys.yaml"',
    ),
    "keys-in-a-folder-of-a-like-name": (
        {"platform": {"auth": {"keys_file": "/etc/manta/keys-2/keys.yaml"}}},
        'no volume of the pods has "/etc/manta/keys-2/keys.yaml"',
    ),
    "traces-to-nobody": (
        {"platform": {"tracing": {"enabled": True}}},
        "platform.tracing.endpoint: needs the URL of an OTLP receiver",
    ),
    "traces-without-a-scheme": (
        {"platform": {"tracing": {"endpoint": "otel-collector:4317"}}},
        "platform.tracing.endpoint: must begin with http:// or https://",
    ),
    "a-group-called-head": (
        {"workerGroups": [{"name": "head"}]},
        'workerGroups: "head" is what the chart or KubeRay calls the head',
    ),
    "a-name-that-yaml-takes-for-no-text": ({"fullnameOverride": "on"}, 'release name: YAML takes "on" for something else'),
    "more-accelerators-than-pods": (
        {"platform": models(L40S, L40S), "workerGroups": [{"name": "cpu"}, {"name": "l40s", "accelerator": "L40S", "gpus": 1}]},
        "take 2 accelerators (L40S) together, and the groups at their most have 1;",
    ),
    "more-cores-than-pods": (
        {"platform": {"router": {"replicas": 4}}, "workerGroups": [{"name": "cpu", "cpus": 4}]},
        "take 5.2 CPU together, and all groups at their most have 4;",
    ),
    "fewer-pods-than-replicas-that-share-none": (
        {"platform": {"router": {"max_replicas_per_node": 1}}, "workerGroups": [{"name": "cpu", "cpus": 64}]},
        "platform.router.max_replicas_per_node: 2 replicas need 2 pods with 1 CPU each, and the worker groups at their most",
    ),
    "fewer-accelerated-pods-than-replicas-that-share-none": (
        {
            "platform": models({**L40S, "replicas": 5, "max_replicas_per_node": 2}),
            "workerGroups": [
                {"name": "cpu", "maxReplicas": 9},
                {"name": "l40s", "accelerator": "L40S", "gpus": 4, "maxReplicas": 2},
            ],
        },
        "5 replicas on 1 accelerators (L40S) each need 3 pods (`max_replicas_per_node`), and the groups at their most have 2",
    ),
    "pods-too-small-for-replicas-that-share-none": (
        {
            "platform": models({**L40S, "replicas": 3, "max_replicas_per_node": 1, "engine": {"tensor_parallel_size": 4}}),
            "workerGroups": [
                {"name": "cpu"},
                {"name": "large", "accelerator": "L40S", "gpus": 8, "maxReplicas": 2},
                {"name": "small", "accelerator": "L40S", "gpus": 1, "maxReplicas": 8},
            ],
        },
        "3 replicas on 4 accelerators (L40S) each need 3 pods",
    ),
    "pods-with-too-few-cores-for-replicas-that-share-none": (
        {
            "platform": {"router": {"replicas": 3, "cpus": 4, "max_replicas_per_node": 1}},
            "workerGroups": [{"name": "large", "cpus": 16}, {"name": "small", "cpus": 1, "maxReplicas": 4}],
        },
        "3 replicas need 3 pods with 4 CPU each, and the worker groups at their most have 1",
    ),
    "replicas-of-stages-that-are-to-share-no-node": (
        {"platform": models({**L40S, "engine": {"pipeline_parallel_size": 2}, "max_replicas_per_node": 1})},
        "platform.models[0].variants[0].max_replicas_per_node: Ray Serve takes no such limit where pipeline_parallel_size",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_would_never_run_is_told(case: str) -> None:
    values, words = CASES[case]
    assert words in refusal(values)


FINE: dict[str, Json] = {
    "pods-for-replicas-that-share-none": {
        "platform": models({**L40S, "replicas": 4, "max_replicas_per_node": 2}),
        "workerGroups": [{"name": "cpu"}, {"name": "l40s", "accelerator": "L40S", "gpus": 4, "maxReplicas": 2}],
    },
    "own-environment": pod(env=[{"name": "HF_ENDPOINT", "value": "https://hub.example.org"}]),
    "keys-of-another-volume": {
        "apiKeys": {"existingSecret": ""},
        "platform": {"auth": {"keys_file": "/opt/keys/keys.yaml"}},
        **pod(volumes=[KEYS], volumeMounts=[{"name": "keys", "mountPath": "/opt/keys"}]),
    },
    "room-for-the-fewest": {
        "platform": models({**L40S, "autoscaling": {"min_replicas": 1, "max_replicas": 9}}, {**L40S, "replicas": 0}),
        "workerGroups": [{"name": "cpu"}, {"name": "l40s", "accelerator": "L40S", "gpus": 1}],
    },
    "a-group-of-any-accelerator": {
        "platform": models(L40S, L40S),
        "workerGroups": [
            {"name": "cpu"},
            {"name": "l40s", "accelerator": "L40S", "gpus": 1},
            {"name": "mixed", "gpus": 1, "cpus": 16},
        ],
    },
    "traces": {"platform": {"tracing": {"enabled": True, "endpoint": "http://otel-collector:4318"}}},
}


@pytest.mark.parametrize("case", FINE)
def test_what_can_run_is_rendered(case: str) -> None:
    assert refusal(FINE[case]) == ""
    assert crd_schema.problems(rayservice(FINE[case])) == []


def test_two_entries_of_a_name_are_seen_as_an_api_server_sees_them() -> None:
    service = copy.deepcopy(rayservice())
    container = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    container["env"].append({"name": "HOME", "value": "/root"})
    (problem,) = crd_schema.problems(service)
    assert problem.endswith("containers.0.env: two entries with name HOME")


@pytest.mark.parametrize("name", YAML_WORDS)
def test_names_that_yaml_takes_for_something_else_stay_text(name: str) -> None:
    values: Json = {
        "fullnameOverride": "llm",
        "internalToken": {"existingSecret": name},
        "redis": {"enabled": True, "existingSecret": name},
    }
    if name.isalpha():
        values |= {"workerGroups": [{"name": name, "maxReplicas": 4, "minReplicas": 4}]}
    rendered = objects({**values, "networkPolicy": {"clients": [{"namespaceSelector": {}}]}}, name=name)
    labels = [label for each in rendered for label in _labels(each)]
    assert [label for label in labels if not isinstance(label, str)] == []
    assert labels.count(name) > 20
    (service,) = (each for each in rendered if each["kind"] == "RayService")
    assert crd_schema.problems(service) == []


def _labels(node: object) -> list[object]:
    if isinstance(node, list):
        return [label for each in node for label in _labels(each)]
    if not isinstance(node, dict):
        return []
    own = [
        v for key in ("labels", "matchLabels", "selector") for v in (node.get(key) or {}).values() if not isinstance(v, dict)
    ]
    return own + [label for each in node.values() for label in _labels(each)]


def test_an_operator_that_is_nobody_lets_nobody_in() -> None:
    (policy,) = of_kind("NetworkPolicy", {"networkPolicy": {"operator": [], "monitoring": []}})
    rules = policy["spec"]["ingress"]
    assert all(rule.get("from", ["everybody"]) for rule in rules)
    (public,) = (rule for rule in rules if "from" not in rule)
    assert [port["port"] for port in public["ports"]] == [8000, 9000]


def test_an_image_with_a_registry_of_its_own_gets_no_other() -> None:
    values: Json = {
        "global": {"imageRegistry": "registry.example.org", "imagePullSecrets": ["pull"]},
        "image": {"gpu": {"repository": "localhost:5000/manta"}},
        "platform": models(L40S),
        "redis": {"enabled": True, "existingSecret": "redis"},
    }
    (redis,) = of_kind("StatefulSet", values)
    spec = redis["spec"]["template"]["spec"]
    assert (spec["containers"][0]["image"], spec["imagePullSecrets"]) == (
        "docker.io/library/redis:7.4.2-alpine",
        [{"name": "pull"}],
    )
    images = {name: each["spec"]["containers"][0]["image"] for name, each in pod_templates(values).items()}
    assert images["head"].startswith("registry.example.org/manta-serve:")
    assert images["gpu-l40s-1x1"].startswith("localhost:5000/manta:")


@pytest.mark.parametrize(
    "values",
    [
        {"annotations": None},
        {"global": {"imagePullSecrets": None}, "image": {"pullSecrets": None}},
        {"ingress": {"enabled": True, "hosts": ["llm.example.org"], "className": None, "annotations": None}},
    ],
    ids=["annotations", "pull-secrets", "ingress"],
)
def test_a_key_that_is_taken_away_by_null_is_an_empty_one(values: Json) -> None:
    assert refusal(values) == ""


def test_alerts_of_a_release_leave_out_another_whose_name_begins_alike() -> None:
    (text,) = (text for path, text in files({"prometheusRule": {"enabled": True}}).items() if "prometheusrule" in path)
    scopes = set(re.findall(r'ray_io_cluster=~"([^"]+)"', str(yaml.safe_load(text))))
    (scope,) = scopes
    assert re.fullmatch(scope, "demo-manta-x7f2q")
    assert not re.fullmatch(scope, "demo-manta-2-x7f2q")
