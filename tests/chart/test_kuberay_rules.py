"""The ported rules find what they are for: each is broken once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.chart import crd_schema, kuberay_rules
from tests.chart.helm import CHART, Json, ci_values, rayservice

pytestmark = pytest.mark.chart

Edit = Callable[[Json], Any]


def cluster(service: Json) -> Json:
    found: Json = service["spec"]["rayClusterConfig"]
    return found


def head_env(service: Json) -> list[Json]:
    found: list[Json] = cluster(service)["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]
    return found


def head_labels(service: Json) -> Json:
    found: Json = cluster(service)["headGroupSpec"]["template"]["metadata"]["labels"]
    return found


BREAKS: dict[str, tuple[Edit, str]] = {
    "long-name": (lambda s: s["metadata"].update(name="a" * 48), "47 characters"),
    "digit": (lambda s: s["metadata"].update(name="1manta"), "DNS-1035"),
    "no-serve-port": (
        lambda s: cluster(s)["headGroupSpec"]["template"]["spec"]["containers"][0]["ports"].pop(0),
        "no port `serve`",
    ),
    "two-groups": (lambda s: cluster(s)["workerGroupSpecs"].append(cluster(s)["workerGroupSpecs"][0]), "repeat"),
    "resources-twice": (lambda s: cluster(s)["headGroupSpec"]["rayStartParams"].update({"num-cpus": "0"}), "resources stand"),
    "lost-parameters": (lambda s: cluster(s)["workerGroupSpecs"][0].update(rayStartParams={}), "gets lost"),
    "name-of-pods": (lambda s: head_labels(s).update({"app.kubernetes.io/name": "manta"}), "finds no pod"),
    "gang-of-pods": (lambda s: head_labels(s).update({"volcano.sh/queue-name": "q"}), "not of pods"),
    "bounds": (lambda s: cluster(s)["workerGroupSpecs"][0].update(minReplicas=9), "not in order"),
    "redis-by-env": (lambda s: head_env(s).append({"name": "RAY_REDIS_ADDRESS", "value": "r"}), "Redis is set up by"),
    "shared-namespace": (
        lambda s: cluster(s).update(gcsFaultToleranceOptions={"externalStorageNamespace": "x"}),
        "share one namespace",
    ),
    "autoscaler-by-env": (
        lambda s: head_env(s).append({"name": "RAY_enable_autoscaler_v2", "value": "1"}),
        "environment variable",
    ),
    "restart": (lambda s: cluster(s)["headGroupSpec"]["template"]["spec"].update(restartPolicy="Always"), "restartPolicy"),
    "old-ray": (lambda s: cluster(s).update(rayVersion="2.51.0"), "needs Ray 2.52"),
    "strategy": (lambda s: s["spec"]["upgradeStrategy"].update(type="RollingUpdate"), "upgradeStrategy.type"),
    "delay": (lambda s: s["spec"].update(rayClusterDeletionDelaySeconds=-1), "under 0"),
}


@pytest.mark.parametrize("case", BREAKS)
def test_a_broken_rule_is_found(case: str) -> None:
    edit, words = BREAKS[case]
    service = copy.deepcopy(rayservice())
    assert kuberay_rules.violations(service) == []
    edit(service)
    assert any(words in violation for violation in kuberay_rules.violations(service))


def test_steps_over_the_surge_are_found() -> None:
    service = rayservice(ci_values(CHART / "ci" / "tp-pp-multi-host-values.yaml"))
    service["spec"]["upgradeStrategy"]["clusterUpgradeOptions"]["stepSizePercent"] = 90
    assert kuberay_rules.violations(service) == ["stepSizePercent must be at most maxSurgePercent"]


TYPOS: dict[str, Edit] = {
    "unknown": lambda s: cluster(s).update(headGroupSpecs={}),
    "missing": lambda s: cluster(s).pop("headGroupSpec"),
    "enum": lambda s: cluster(s)["autoscalerOptions"].update(upscalingMode="Fast"),
    "type": lambda s: cluster(s)["workerGroupSpecs"][0].update(maxReplicas="3"),
    "nested": lambda s: cluster(s)["headGroupSpec"]["template"]["spec"]["containers"][0].update(imagePolicy="Always"),
}


@pytest.mark.parametrize("case", TYPOS)
def test_what_does_not_fit_the_definition_is_found(case: str) -> None:
    service = copy.deepcopy(rayservice())
    assert crd_schema.problems(service) == []
    TYPOS[case](service)
    assert crd_schema.problems(service) != []
