"""A platform for tests: a local Ray cluster with simulated engines, deployed as the REST API of Serve deploys it."""

from __future__ import annotations

import time
from typing import Any

import httpx

from serve_app.apps import build_schema, cpus_needed
from serve_app.cluster import LocalCluster, free_ports
from serve_app.config import PlatformConfig

READY_TIMEOUT_S = 240.0
LOGICAL_GPUS = 8


def simulated(name: str = "stable", **variant: Any) -> dict[str, Any]:
    """Return a variant on the simulated engine, cheap enough to run several on two cores."""
    latency = variant.pop("latency", {})
    base = {"name": name, "source": "simulated", "cpus": 0.01, "drain_timeout_s": 60}
    return {**base, "engine": {"kind": "simulated", "simulated": latency}, **variant}


class Platform:
    """A running platform and how to reach it."""

    def __init__(self, config: dict[str, Any], *, spare_cpus: float = 4) -> None:
        self.port, self.grpc_port = free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}"
        self.grpc_target = f"127.0.0.1:{self.grpc_port}"
        schema = self.schema(config)
        # Simulated engines reserve accelerators as real ones do, and use none.
        self.cluster = LocalCluster(num_cpus=cpus_needed(schema) + spare_cpus, num_gpus=LOGICAL_GPUS)

    def schema(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return the Serve schema of a configuration, on this platform's port."""
        made = PlatformConfig.model_validate(config)
        return build_schema(made, http_port=self.port, http_host="127.0.0.1", grpc_port=self.grpc_port)

    def deploy(self, config: dict[str, Any], *, wait: bool = True) -> None:
        """Deploy, and wait until every application runs."""
        schema = self.schema(config)
        self.cluster.deploy(schema)
        if wait:
            self.wait_running({app["name"] for app in schema["applications"]})

    def wait_running(self, names: set[str]) -> None:
        """Wait until exactly these applications run and the Router answers."""
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline_s:
            states = {name: app["status"] for name, app in self.cluster.applications().items()}
            failed = [n for n, status in states.items() if status == "DEPLOY_FAILED"]
            assert not failed, f"failed to deploy: {failed}"
            if {n for n, status in states.items() if status == "RUNNING"} >= names and self._answers():
                return
            time.sleep(0.5)
        raise AssertionError(f"not running after {READY_TIMEOUT_S} s: {states}")

    def wait_failure(self, name: str, *, timeout_s: float = 180.0) -> str:
        """Wait until an application has failed to deploy and return what its deployments say."""
        deadline_s = time.monotonic() + timeout_s
        while (app := self.cluster.applications().get(name, {})).get("status") != "DEPLOY_FAILED":
            assert time.monotonic() < deadline_s, f"{name} is {app.get('status')}"
            time.sleep(0.5)
        return "\n".join([app["message"], *(d["message"] for d in app["deployments"].values())])

    def status(self) -> dict[str, Any]:
        """Return the Router's status report."""
        report: dict[str, Any] = httpx.get(f"{self.url}/admin/status", timeout=30).json()
        return report

    def scaling(self) -> dict[str, Any]:
        """Return what is decided on every application's number of replicas, by its name, and the budget under ``budget``."""
        report = httpx.get(f"{self.url}/admin/scaling", timeout=30).json()
        return {**{app["name"]: app for app in report["apps"]}, "budget": report["budget"]}

    def variant(self, model: str = "chat", variant: str = "stable") -> dict[str, Any]:
        """Return one variant's line of the status report."""
        found = next(m for m in self.status()["models"] if m["name"] == model)
        line: dict[str, Any] = next(v for v in found["variants"] if v["name"] == variant)
        return line

    def wait_replicas(self, count: int, *, timeout_s: float = 120.0, **of: str) -> None:
        """Wait until the Router sees this many ready replicas of a variant and none that starts or drains."""
        deadline_s = time.monotonic() + timeout_s
        while (seen := self.variant(**of)["replicas"]) != {"starting": 0, "ready": count, "draining": 0}:
            assert time.monotonic() < deadline_s, f"replicas: {seen}, wanted {count}"
            time.sleep(0.5)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False
