"""Every value is used: a change of it changes what is rendered."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from scripts.chart_values import Value, documented, leaves
from tests.chart.helm import Json, files

pytestmark = pytest.mark.chart

# Everything switched on, so that each value has something to change.
BASE: Json = {
    "platform": {"models": [{"name": "chat", "variants": [{"name": "stable", "source": "org/m", "accelerator": "L40S"}]}]},
    "ingress": {"enabled": True, "hosts": ["a.example.org"]},
    "gateway": {"parentRefs": [{"name": "g"}]},
    "httpRoute": {"enabled": True},
    "grpcRoute": {"enabled": True},
    "modelCache": {"persistence": {"enabled": True}},
    "data": {"enabled": True},
    "gcsFaultTolerance": {"enabled": True},
    "redis": {"enabled": True, "existingSecret": "redis"},
    "networkPolicy": {"egress": {"enabled": True}},
    "podMonitor": {"enabled": True},
    "prometheusRule": {"enabled": True},
    "dashboards": {"enabled": True},
    "scheduling": {"gang": {"enabled": True}},
    "objectStore": {"existingSecret": "s3"},
    "huggingFace": {"existingSecret": "hub"},
    "loadTest": {"enabled": True},
}
INCREMENTAL: Json = {
    "upgrade": {"type": "NewClusterWithIncrementalUpgrade", "incremental": {"gatewayClassName": "istio"}},
    "ingress": {"enabled": False},
    "httpRoute": {"enabled": False},
    "grpcRoute": {"enabled": False},
}
# What a value needs beside it, or a change that its schema allows.
NEEDS: dict[str, Json] = {
    "apiKeys.mountPath": {"platform": {"auth": {"keys_file": None, "allow_anonymous": True}}},
    "modelCache.sizeLimit": {"modelCache": {"persistence": {"enabled": False}}},
    "serviceAccount.name": {"serviceAccount": {"create": False}},
    "gcsFaultTolerance.enabled": {"redis": {"enabled": False}, "gcsFaultTolerance": {"redisAddress": "a:6379"}},
    "gcsFaultTolerance.key": {"gcsFaultTolerance": {"existingSecret": "redis"}},
    "scheduling.kueueQueue": {"scheduling": {"kueueElastic": True, "gang": {"enabled": False}}},
    "scheduling.kueueElastic": {
        "scheduling": {"kueueQueue": "q", "gang": {"enabled": False}},
        "autoscaler": {"enabled": False},
    },
    "pdb.enabled": {"cpuWorkers": {"minReplicas": 3}},
    "pdb.maxUnavailable": {"cpuWorkers": {"minReplicas": 3}},
    "redis.enabled": {"gcsFaultTolerance": {"redisAddress": "a:6379"}},
    **{
        f"upgrade.incremental.{key}": INCREMENTAL
        for key in ("gatewayClassName", "stepSizePercent", "intervalSeconds", "maxSurgePercent")
    },
    "upgrade.type": INCREMENTAL,
}
OTHER: dict[str, Any] = {
    "global.imagePullSecrets": ["other"],
    "image.pullPolicy": "Always",
    "image.pullSecrets": ["other"],
    "upgrade.type": "NewCluster",
    "upgrade.incremental.maxSurgePercent": 50,
    "rayVersion": "2.61.0",
    "acceleratorNodes": [{"type": "L40S", "nodeSelector": {"a": "b"}}],
    "workerGroups": [{"name": "one", "accelerator": "L40S", "gpus": 1}],
    "autoscaler.upscalingMode": "Aggressive",
    "service.type": "NodePort",
    "ingress.hosts": ["b.example.org"],
    "gateway.parentRefs": [{"name": "other"}],
    "httpRoute.hostnames": ["b.example.org"],
    "grpcRoute.hostnames": ["b.example.org"],
    "httpRoute.timeout": "60s",
    "podMonitor.interval": "60s",
    "networkPolicy.operator": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}],
    "networkPolicy.clients": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}],
    "networkPolicy.monitoring": [],
    "networkPolicy.egress.httpsTo": ["10.0.0.0/8"],
    "networkPolicy.egress.extra": [{"ports": [{"port": 1}]}],
    "pod.env": [{"name": "A", "value": "b"}],
    "pod.volumes": [{"name": "v", "emptyDir": {}}],
    "pod.volumeMounts": [{"name": "tmp", "mountPath": "/v"}],
    "pod.securityContext": {"runAsUser": 2000},
    "pod.containerSecurityContext": {"readOnlyRootFilesystem": False},
    "redis.resources": {"limits": {"memory": "1Gi"}},
    "autoscaler.resources": {"limits": {"memory": "2Gi"}},
    "loadTest.hook": "test",
    "loadTest.url": "http://other",
    "loadTest.scenario": {"duration": "1m"},
    "loadTest.gates": {"error_rate": 0.5},
    "loadTest.resources": {"limits": {"memory": "1Gi"}},
    "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}],
    "gcsFaultTolerance.redisAddress": "other:6379",
    "objectStore.endpoint": "https://s3.example.org",
    "cpuWorkers.minReplicas": 3,
    "dashboards.labels": {"other": "1"},
    "platform.models": [{"name": "other", "variants": [{"name": "stable", "source": "org/m", "accelerator": "L40S"}]}],
    "platform.auth.keys_file": "/etc/manta/keys/other.yaml",
    "tests.url": "http://other.example.org",
    "modelCache.mountPath": "/other",
    "modelCache.persistence.accessModes": ["ReadWriteMany", "ReadOnlyMany"],
    "data.accessModes": ["ReadWriteMany", "ReadOnlyMany"],
    "data.mountPath": "/other",
    "apiKeys.mountPath": "/other",
    "gpuWorkers.resourceName": "amd.com/gpu",
    "prometheusRule.errorRatio": 0.5,
    "prometheusRule.limitsRatio": 0.5,
    "prometheusRule.kvCacheRatio": 0.5,
    "prometheusRule.emptyRatio": 0.6,
}
QUANTITIES = ("memory", "sharedMemory", "size", "sizeLimit")


def merged(values: Json, more: Json) -> Json:
    made = copy.deepcopy(values)
    for key, part in more.items():
        made[key] = (
            merged(made[key], part) if isinstance(part, dict) and isinstance(made.get(key), dict) else copy.deepcopy(part)
        )
    return made


def at(path: tuple[str, ...], value: Any) -> Json:
    for key in reversed(path):
        value = {key: value}
    found: Json = value
    return found


def other(value: Value, now: Any) -> Any:
    """Return another value that the schema allows."""
    by_key = {"affinity": {"nodeAffinity": {"a": 1}}, "tolerations": [{"operator": "Exists"}], "digest": f"sha256:{'0' * 64}"}
    by_key |= dict.fromkeys(QUANTITIES, "7Gi")
    if value.name in OTHER:
        return OTHER[value.name]
    if value.path[-1] in by_key:
        return by_key[value.path[-1]]
    if isinstance(now, bool):
        return not now
    if isinstance(now, int | float):
        return now + 1
    return "another" if isinstance(now, str) else {"another": "one"}


def current(values: Json, value: Value) -> Any:
    found: Any = values
    for key in value.path:
        if not isinstance(found, dict) or key not in found:
            return value.default
        found = found[key]
    return found


LEAVES = {value.name: value for value in leaves(documented())}


@pytest.mark.parametrize("name", LEAVES)
def test_a_value_is_used(name: str) -> None:
    value = LEAVES[name]
    values = merged(BASE, NEEDS.get(name, {}))
    assert files(values) != files(merged(values, at(value.path, other(value, current(values, value)))))


def test_no_exception_is_kept_for_a_value_that_is_gone() -> None:
    assert (set(OTHER) | set(NEEDS)) - set(LEAVES) == set()
