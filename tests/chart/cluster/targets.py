"""Where the release goes: to the loopback cluster with a real Ray behind it, or to the cluster that KUBECONFIG names."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
from helm_python import Config

from serve_app.cluster import LocalCluster, free_ports
from tests.chart.cluster.api_server import ApiServer
from tests.chart.cluster.kubelet import Kubelet
from tests.chart.cluster.operator import Operator, until

Json = dict[str, Any]
NAMESPACE, RELEASE = "ml", "demo"
SERVICE = f"{RELEASE}-manta"
TOKEN = "internal-token-of-the-tests"


@dataclass
class Target:
    """A cluster, and how to reach the platform on it."""

    config: Config
    url: str
    values: Json  # of this cluster, under those of the test
    serve_url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    local: Local | None = None

    def applications(self) -> dict[str, Any]:
        """Return Serve's own report."""
        answer = httpx.get(f"{self.serve_url}/api/serve/applications/", headers=self.headers, timeout=60)
        found: dict[str, Any] = answer.raise_for_status().json()["applications"]
        return found


@dataclass
class Local:
    """What stands for a cluster on this machine."""

    api: ApiServer
    operator: Operator
    kubelet: Kubelet


@contextlib.contextmanager
def target() -> Iterator[Target]:
    """Yield the cluster that the tests run on."""
    with real() if os.environ.get("KUBECONFIG") else loopback() as found:
        yield found


@contextlib.contextmanager
def loopback() -> Iterator[Target]:
    """Yield the loopback API with its operator and kubelet, and a real Ray on this machine."""
    # The chart refuses ports that Ray's workers may have.
    http_port, grpc_port = [port for port in free_ports(64) if port >= 20_000][:2]
    values = {"ports": {"http": http_port, "grpc": grpc_port}}
    with contextlib.ExitStack() as stack:
        ray = stack.enter_context(LocalCluster(num_cpus=6))
        api = stack.enter_context(ApiServer())
        local = Local(api, stack.enter_context(Operator(api.store, ray)), stack.enter_context(Kubelet(api)))
        config = stack.enter_context(Config(kubeconfig_content=kubeconfig(api.url), namespace=NAMESPACE))
        headers = {"authorization": f"Bearer {ray.token}"}
        yield Target(config, f"http://127.0.0.1:{http_port}", values, ray.dashboard_url, headers, local)


def kubeconfig(url: str) -> str:
    """Return a kubeconfig of the loopback API."""
    context = {"cluster": "loopback", "user": "nobody", "namespace": NAMESPACE}
    made = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "loopback", "cluster": {"server": url}}],
        "contexts": [{"name": "loopback", "context": context}],
        "users": [{"name": "nobody", "user": {}}],
        "current-context": "loopback",
    }
    return json.dumps(made)


@contextlib.contextmanager
def real() -> Iterator[Target]:
    """Yield the cluster of KUBECONFIG, which has KubeRay's operator and MANTA_CHART_IMAGE (repository:tag, for CPU)."""
    repository, _, tag = os.environ["MANTA_CHART_IMAGE"].rpartition(":")
    values = {
        "image": {"cpu": {"repository": repository, "tag": tag}},
        "rayAuth": {"enabled": False},  # the tests ask Ray's API for the replicas
        "head": {"cpus": 1, "memory": "3Gi", "sharedMemory": "512Mi"},
        "cpuWorkers": {"cpus": 2, "memory": "4Gi", "sharedMemory": "512Mi"},
    }
    kubectl("create", "namespace", NAMESPACE, check=False)
    kubectl("create", "secret", "generic", "manta-internal-token", f"--from-literal=token={TOKEN}", check=False)
    http_port, serve_port = free_ports(2)
    with contextlib.ExitStack() as stack:
        config = stack.enter_context(Config(kubeconfig_path=os.environ["KUBECONFIG"], namespace=NAMESPACE))
        found = Target(config, f"http://127.0.0.1:{http_port}", values, f"http://127.0.0.1:{serve_port}")
        stack.callback(kubectl, "delete", "namespace", NAMESPACE, "--wait=false", check=False)
        stack.enter_context(forwarded(f"{SERVICE}-serve-svc", http_port, 8000))
        stack.enter_context(forwarded(f"{SERVICE}-head-svc", serve_port, 8265))
        yield found


def kubectl(*arguments: str, check: bool = True) -> None:
    """Run kubectl in the tests' namespace."""
    subprocess.run(["kubectl", "--namespace", NAMESPACE, *arguments], check=check, timeout=120)  # noqa: S607


@contextlib.contextmanager
def forwarded(service: str, here: int, there: int) -> Iterator[None]:
    """Forward a port to a Service, again and again: it does not exist before the first installation is ready."""
    line = f"while true; do kubectl -n {NAMESPACE} port-forward service/{service} {here}:{there} >/dev/null 2>&1; sleep 1; done"
    process = subprocess.Popen(["bash", "-c", line], start_new_session=True)  # noqa: S607
    try:
        yield
    finally:
        os.killpg(process.pid, 15)
        until(lambda: process.poll() is not None, timeout_s=10, what=f"the forward to {service} ends")
