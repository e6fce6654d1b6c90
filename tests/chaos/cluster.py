"""A Ray cluster of several nodes on this machine, each in a network namespace of its own, that can be broken in parts."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import psutil

from serve_app.apps import build_schema
from serve_app.cluster import OBJECT_STORE_BYTES, ROOT, serve_environment
from serve_app.config import PlatformConfig
from serve_app.haproxy import BINARY_PATH, write_starter
from serve_app.settings import INTERNAL_TOKEN, new_token
from tests.chaos.disk import Disk
from tests.chaos.network import Network
from tests.chaos.processes import Node, command_line

START_TIMEOUT_S = 180.0
# Ray gives a node's agent 15 s to import what it needs, which a busy machine of two cores may miss. A pod is started again.
STARTS = 4
RUNNING_TIMEOUT_S = 420.0
HTTP_PORT, GRPC_PORT, GCS_PORT, DASHBOARD_PORT, REDIS_PORT = 8000, 9000, 6379, 8265, 6390
HEAD = "head"
# Ray takes what runs on its machine for its own: each node sees its own processes only, and the first of them is its life.
# Its own machinery has the share of the processors that a machine of its own would give it, before its workers.
NICER_BY = 6
OWN_PROCESSES = ("nice", "-n", f"-{NICER_BY}", "unshare", "--pid", "--fork", "--mount-proc")
WATCHDOG = (sys.executable, "-m", "serve_app.watchdog")
# What KubeRay and the chart give the pods of a cluster whose head has a Redis, so that what is found here holds there.
AS_PODS = {
    "RAY_external_storage_namespace": "manta",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "120",
}


class ChaosCluster:
    """A head without room for replicas, its Redis, and worker nodes, all under watchdogs. Use as a context manager."""

    def __init__(self, workers: int = 2, *, cpus: int = 8) -> None:
        self.token = new_token()
        self._network = Network()
        self._folder = Path(tempfile.mkdtemp(prefix="mc-", dir="/tmp"))
        self._folders: list[Path] = [self._folder]
        self.disk = Disk(self._folder / "ray")
        self._redis: subprocess.Popen[bytes] | None = None
        self.deployed: dict[str, Any] = {}
        self.nodes: dict[str, Node] = {}
        self._serve: dict[str, str] = {}
        self._plan = [(HEAD, 0), *((f"w{number}", cpus) for number in range(1, workers + 1))]

    def __enter__(self) -> ChaosCluster:
        self._network.__enter__()
        try:
            self.disk.__enter__()
            for name, cpus in self._plan:
                self.nodes[name] = Node(name, self._network.add(name), cpus)
            self.start_redis()
            for name, _ in self._plan:
                self.start(name)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end_nodes()
        if self._redis is not None:
            self._redis.kill()
            self._redis.wait()
        self._network.__exit__(kind, error, trace)
        self.disk.__exit__(kind, error, trace)
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _end_nodes(self) -> None:
        for node in self.nodes.values():
            self._network.mend(node.name)
            for process in node.processes():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()
        for node in reversed(self.nodes.values()):
            _close(node)
        for node in self.nodes.values():
            if node.process is not None:
                node.process.wait(timeout=90)

    @property
    def head(self) -> Node:
        """The head node."""
        return self.nodes[HEAD]

    @property
    def workers(self) -> list[Node]:
        """The nodes that replicas run on."""
        return [node for node in self.nodes.values() if node.name != HEAD]

    def urls(self) -> list[str]:
        """Return where clients reach the platform: the proxy of every worker node."""
        return [f"http://{node.address}:{HTTP_PORT}" for node in self.workers]

    def start_redis(self) -> None:
        """Start the head's memory; it keeps what it had when it is started again."""
        folder = self._folder / "redis"
        folder.mkdir(exist_ok=True)
        options = ["--bind", self._network.gateway, "--port", str(REDIS_PORT), "--dir", str(folder)]
        options += ["--appendonly", "yes", "--protected-mode", "no", "--save", ""]
        self._redis = subprocess.Popen([shutil.which("redis-server") or "redis-server", *options], stdout=subprocess.DEVNULL)

    def revive(self, name: str) -> None:
        """Start a node again if it has ended by itself, as its pod would be."""
        process = self.nodes[name].process
        if process is not None and process.poll() is not None:
            self.start(name)

    def stop_redis(self) -> None:
        """Kill the head's memory."""
        assert self._redis is not None
        self._redis.kill()
        self._redis.wait()

    def start(self, name: str) -> None:
        """Start a node, also one that was lost, and wait until it is part of the cluster."""
        for _ in range(STARTS):
            if self._has_started(name):
                return
        raise AssertionError((self._folder / f"{name}.log").read_text()[-3000:])

    def _has_started(self, name: str) -> bool:
        """Start a node; return whether it joined rather than ended by itself."""
        node = self.nodes[name]
        _close(node)
        folder = Path(tempfile.mkdtemp(prefix="mc-", dir="/tmp"))
        self._folders.append(folder)
        before = 0 if name == HEAD else len(self.living())
        with (self._folder / f"{name}.log").open("ab") as log:
            node.process = subprocess.Popen(
                [*self._network.inside(name), *OWN_PROCESSES, *WATCHDOG, str(folder), *self._command(node)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment(folder),
                cwd=ROOT,
                start_new_session=True,
            )
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not (joined := self._has_joined(before, is_head=name == HEAD)) and node.process.poll() is None:
            assert time.monotonic() < deadline_s, f"node {name} did not join"
            time.sleep(0.5)
        return joined

    def lose(self, name: str) -> None:
        """Kill a whole node, as a machine that loses its power."""
        node = self.nodes[name]
        assert node.process is not None
        [watchdog] = psutil.Process(node.process.pid).children()
        watchdog.kill()
        node.process.wait()
        _close(node)

    def cut(self, name: str) -> None:
        """Cut a node off the network."""
        self._network.cut(name)

    def mend(self, name: str) -> None:
        """Undo ``cut``."""
        self._network.mend(name)

    def find(self, title: str, *, node: str | None = None) -> list[psutil.Process]:
        """Return the processes of the cluster, or of one node, whose command line holds a text; the longest running first."""
        nodes = self.nodes.values() if node is None else [self.nodes[node]]
        found = [process for each in nodes for process in each.processes() if title in command_line(process)]
        return sorted(found, key=lambda process: process.create_time())

    def node_of(self, process: psutil.Process) -> Node:
        """Return where a process runs."""
        return next(node for node in self.nodes.values() if process in node.processes())

    def living(self) -> list[dict[str, Any]]:
        """Return what the head says of the nodes that live."""
        answer = self._api("GET", "/api/v0/nodes?detail=1")
        answer.raise_for_status()
        return [node for node in answer.json()["data"]["result"]["result"] if node["state"] == "ALIVE"]

    def actors(self) -> int:
        """Return how many actors live."""
        query = "limit=10000&filter_keys=state&filter_predicates=%3D&filter_values=ALIVE"
        answer = self._api("GET", f"/api/v0/actors?{query}")
        answer.raise_for_status()
        return len(answer.json()["data"]["result"]["result"])

    def deploy(self, config: dict[str, Any]) -> None:
        """Have Serve run a configuration."""
        made = PlatformConfig.model_validate(config)
        schema = build_schema(made, http_port=HTTP_PORT, http_host="0.0.0.0", grpc_port=GRPC_PORT)  # noqa: S104
        answer = self._api("PUT", "/api/serve/applications/", json=schema)
        assert answer.status_code == 200, answer.text[-2000:]
        self.deployed = config

    def applications(self) -> dict[str, Any]:
        """Return Serve's report of the applications."""
        answer = self._api("GET", "/api/serve/applications/")
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()["applications"]
        return found

    def wait_running(self, *, timeout_s: float = RUNNING_TIMEOUT_S) -> None:
        """Wait until every application runs with all its replicas."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            with contextlib.suppress(httpx.HTTPError):
                found = self.applications()
                assert not [name for name, app in found.items() if app["status"] == "DEPLOY_FAILED"], found
                if found and all(app["status"] == "RUNNING" for app in found.values()):
                    return
            time.sleep(1.0)
        raise AssertionError({name: (app["status"], app["deployments"]) for name, app in self.applications().items()})

    def running(self, app: str, deployment: str) -> list[str]:
        """Return the ids of the replicas of a deployment that Serve calls running."""
        details = self.applications()[app]["deployments"][deployment]["replicas"]
        return [replica["replica_id"] for replica in details if replica["state"] == "RUNNING"]

    def _has_joined(self, before: int, *, is_head: bool) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            if is_head:
                return self._api("GET", "/api/serve/applications/").status_code == 200
            return len(self.living()) > before
        return False

    def _api(self, method: str, path: str, *, json: Any = None) -> httpx.Response:
        url = f"http://{self.head.address}:{DASHBOARD_PORT}{path}"
        return httpx.request(method, url, json=json, headers={"authorization": f"Bearer {self.token}"}, timeout=60)

    def _command(self, node: Node) -> list[str]:
        options: dict[str, Any] = {
            "node-ip-address": node.address,
            "num-cpus": node.cpus,
            "object-store-memory": OBJECT_STORE_BYTES,
        }
        if node.name == HEAD:
            options |= {"port": GCS_PORT, "dashboard-host": node.address, "dashboard-port": DASHBOARD_PORT}
            options |= {"temp-dir": self.disk.folder}
        else:
            options |= {"address": f"{self.head.address}:{GCS_PORT}"}
        flags = [f"--{name}={value}" for name, value in options.items()]
        flags += ["--head"] if node.name == HEAD else []
        return [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", *flags]

    def _environment(self, folder: Path) -> dict[str, str]:
        for name in ("h", "t"):
            (folder / name).mkdir()
        assert write_starter(folder / "h" / "haproxy")
        # Ports are the same on every node, as in pods; each has its own files.
        self._serve = self._serve or serve_environment(folder)
        files = {key: value for key, value in serve_environment(folder).items() if str(folder) in value}
        return {
            **os.environ,
            **self._serve,
            **files,
            BINARY_PATH: str(folder / "h" / "haproxy"),
            **AS_PODS,
            "RAY_REDIS_ADDRESS": f"{self._network.gateway}:{REDIS_PORT}",
            "RAY_worker_niceness": str(NICER_BY),
            "RAY_DEDUP_LOGS": "0",
            "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "180",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            INTERNAL_TOKEN: self.token,
            "TMPDIR": str(folder / "t"),
            "PYTHONPATH": str(ROOT),
        }


def _close(node: Node) -> None:
    """Let go of a node: its watchdog ends it when nobody holds its standard input."""
    if node.process is not None and node.process.stdin is not None:
        node.process.stdin.close()
