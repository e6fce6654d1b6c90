"""A release of the chart with simulated engines, and what happens to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
from helm_python import Chart

from benchmarks.canary_switch.switch import replica_pids
from scripts.chart_effects import Effect, effect
from scripts.chart_upgrades import CHART, rendered, with_set
from tests.chart.cluster.operator import until
from tests.chart.cluster.targets import NAMESPACE, RELEASE, SERVICE, Json, Target

START_S = 240.0
SETTLE_S = 120.0
HELM_S = 300
# 0.2 s a chat of four tokens: some are always open while a release changes.
ENGINE = {"kind": "simulated", "simulated": {"prefill_s_per_token": 0.001, "decode_s_per_token": 0.05}}


def variant(name: str, weight: int) -> Json:
    """Return a variant on the simulated engine."""
    return {"name": name, "source": "simulated", "cpus": 0.01, "weight": weight, "engine": ENGINE, "drain_timeout_s": 60}


def values(weights: Mapping[str, int]) -> Json:
    """Return the values of a model whose variants have these weights."""
    return {
        "platform": {
            "models": [{"name": "chat", "variants": [variant(name, weight) for name, weight in weights.items()]}],
            "router": {"replicas": 1, "cpus": 0.5, "drain_timeout_s": 60},
            "auth": {"keys_file": None, "allow_anonymous": True},
        },
        "apiKeys": {"existingSecret": ""},
        "tests": {"apiKey": {"existingSecret": ""}, "timeoutSeconds": 120},
    }


class Installation:
    """The release. It is a platform that the canary benchmark can switch: every PUT is a `helm upgrade`."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.chart = Chart.load(CHART)
        self.values: Json = {}

    @property
    def url(self) -> str:
        """Where the API listens."""
        return self.target.url

    @property
    def applications(self) -> Mapping[str, Any]:
        """Serve's own report."""
        return self.target.applications()

    def install(self) -> None:
        """`helm install --wait`."""
        self.values = self._on_this_cluster(values({"stable": 90, "canary": 10}))
        release = self.target.config.install(self.chart, RELEASE, self.values, wait="watcher", timeout=HELM_S)
        assert release["status"] == "deployed"
        until(self.answers, timeout_s=START_S, what="the API answers")
        self._settle({"stable": 90, "canary": 10})

    def put(self, weights: Mapping[str, int]) -> None:
        """`helm upgrade --wait` to these weights and no others, and wait until Serve has what is declared."""
        self.upgrade(self._on_this_cluster(values(weights)))
        until(self.is_sent, timeout_s=SETTLE_S, what="the operator has seen the new values")
        self._settle(weights)

    def have(self, weights: Mapping[str, int]) -> None:
        """`put`, where the last upgrade that worked had other values."""
        if self.values != self._on_this_cluster(values(weights)):
            self.put(weights)

    def set(self, sets: Mapping[str, Any]) -> Effect:
        """`helm upgrade -f VALUES --set ...`; return what it is told to do."""
        old, wanted = self.values, with_set(self.values, sets)
        self.upgrade(wanted)
        until(self.is_sent, timeout_s=SETTLE_S, what="the operator has seen the new values")
        return effect(rendered(old), rendered(wanted))

    def upgrade(self, wanted: Json) -> None:
        """`helm upgrade --wait`."""
        self.target.config.upgrade(self.chart, RELEASE, wanted, wait="watcher", timeout=HELM_S)
        self.values = wanted

    def rollback(self, revision: int | None = None) -> None:
        """`helm rollback --wait`."""
        self.target.config.rollback(RELEASE, version=revision, wait="watcher", timeout=HELM_S)
        self.values = self.target.config.get_values(RELEASE)

    def history(self) -> list[str]:
        """Return the status of every revision, the oldest first."""
        return [each["status"] for each in self.target.config.history(RELEASE)]

    def pids(self) -> dict[str, frozenset[int]]:
        """Return the processes of every application's replicas."""
        return replica_pids(self.applications)

    def weights(self) -> dict[str, int]:
        """Return the weights in force, as the platform says."""
        report = httpx.get(f"{self.url}/admin/rollouts", timeout=30).raise_for_status().json()
        found: dict[str, int] = next(split["weights"] for split in report["splits"] if split["name"] == "chat")
        return found

    def _on_this_cluster(self, wanted: Json) -> Json:
        return {**wanted, **self.target.values}

    def is_running(self) -> bool:
        """Whether every application runs."""
        return {app["status"] for app in self.applications.values()} == {"RUNNING"}

    def is_sent(self) -> bool:
        """Whether the platform has been sent the values, as far as that can be seen."""
        local = self.target.local
        return local is None or local.operator.has_seen(SERVICE, NAMESPACE)

    def answers(self) -> bool:
        """Whether the API answers."""
        try:
            return httpx.get(f"{self.url}/v1/models", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def _settle(self, weights: Mapping[str, int]) -> None:
        until(lambda: self._runs(weights), timeout_s=SETTLE_S, what=f"weights {dict(weights)} in force and their variants run")

    def _runs(self, weights: Mapping[str, int]) -> bool:
        variants = {name.rpartition(".")[2] for name, app in self.applications.items() if app["status"] == "RUNNING"}
        is_all = set(weights) == variants & {"stable", "canary", "next"} and self.is_running()
        return is_all and self.answers() and self.weights() == dict(weights)
