"""What KubeRay's operator 1.7 does with a RayService, by the rules of scripts/chart_effects.py, with a real Ray behind it.

There is one Ray on this machine: it stands for the first cluster. A second one is begun and never becomes ready, so what the
operator does not send while one is pending can be seen.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import yaml

from scripts.chart_effects import Cluster, effect
from serve_app.cluster import ClusterError
from tests.chart.cluster.kinds import KINDS
from tests.chart.cluster.store import Key, Store

Json = dict[str, Any]
LOOP_S = 0.5  # KubeRay's is 2
RAYSERVICE = next(kind for kind in KINDS if kind.name == "RayService")


class Ray(Protocol):
    """A Ray cluster's Serve API."""

    def deploy(self, schema: Mapping[str, Any]) -> None:
        """PUT a configuration."""
        ...

    def applications(self) -> dict[str, Any]:
        """Return Serve's report."""
        ...


class Operator:
    """Reconciles the one RayService. Use as a context manager."""

    def __init__(self, store: Store, ray: Ray) -> None:
        self._store = store
        self._ray = ray
        self._active: Json | None = None  # the RayService as the running cluster was last told
        self._is_pending = False
        self._stop = threading.Event()
        self.puts = 0
        self.refused = ""

    def __enter__(self) -> Operator:
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=30)

    def has_seen(self, name: str, namespace: str) -> bool:
        """Whether a RayService is as it was when it was last looked at, and what it says has been acted upon."""
        found = self._store.get(Key(RAYSERVICE, namespace, name)) or {}
        return bool(found.get("status", {}).get("observedGeneration") == found["metadata"]["generation"])

    def _loop(self) -> None:
        while not self._stop.wait(LOOP_S):
            for service in self._store.objects(RAYSERVICE):
                self._reconcile(service)

    def _reconcile(self, service: Json) -> None:
        if self._active is None:
            self._send(service)
        elif not self._is_pending:
            cluster = effect([self._active], [service]).cluster
            self._is_pending = cluster is Cluster.REPLACED
            # The text is compared, not its meaning.
            if not self._is_pending and service["spec"]["serveConfigV2"] != self._active["spec"]["serveConfigV2"]:
                self._send(service)
        metadata = service["metadata"]
        self._store.put_status(Key(RAYSERVICE, metadata["namespace"], metadata["name"]), self._status(service))

    def _send(self, service: Json) -> None:
        config = yaml.load(service["spec"]["serveConfigV2"], yaml.CSafeLoader)
        config["http_options"]["host"] = "127.0.0.1"  # a pod has its own network, this machine is shared
        try:
            self._ray.deploy(config)
        except ClusterError as err:
            self.refused = str(err)
            return
        self._active, self.puts, self.refused = service, self.puts + 1, ""

    def _status(self, service: Json) -> Json:
        statuses = {name: app["status"] for name, app in self._ray.applications().items()}
        is_ready = bool(statuses) and set(statuses.values()) == {"RUNNING"}
        name = service["metadata"]["name"]
        return {
            "observedGeneration": service["metadata"]["generation"],
            "activeServiceStatus": {
                "rayClusterName": f"{name}-first",
                "applicationStatuses": {app: {"status": status} for app, status in statuses.items()},
            },
            "pendingServiceStatus": {"rayClusterName": f"{name}-second"} if self._is_pending else {},
            "conditions": [
                condition("Ready", is_true=is_ready, reason="NonZeroServeEndpoints" if is_ready else "Initializing"),
                condition("UpgradeInProgress", is_true=self._is_pending, reason="BothActivePendingClustersExist"),
            ],
        }


def condition(kind: str, *, is_true: bool, reason: str) -> Json:
    """Return a condition of a status."""
    return {"type": kind, "status": str(is_true), "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}


def until(is_so: Callable[[], bool], *, timeout_s: float, what: str) -> None:
    """Wait until something is so. Raises AssertionError when it is not in time."""
    pause = threading.Event()
    for _ in range(int(timeout_s / 0.2)):
        if is_so():
            return
        pause.wait(0.2)
    raise AssertionError(f"not after {timeout_s:.0f} s: {what}")
