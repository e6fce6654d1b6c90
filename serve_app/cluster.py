"""LocalCluster: a Ray head node with Serve on this machine, on free ports, that ends with its owner."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from serve_app.haproxy import BINARY_PATH, write_starter
from serve_app.ports import free_ports as free_ports
from serve_app.ports import promise
from serve_app.serve_settings import SERVE_SETTINGS
from serve_app.settings import INTERNAL_TOKEN, REPLICA_HOST, new_token

START_TIMEOUT_S = 180.0
MAX_FOLDER_CHARS = 13
MOST_CONNECTIONS = 20_000
OBJECT_STORE_BYTES = 256 * 2**20
ROOT = Path(__file__).resolve().parent.parent


class ClusterError(RuntimeError):
    """The cluster did not start, or stopped."""


def short_folder(wanted: str) -> str:
    """Return the folder for temporary files, or /tmp when its path is too long.

    HAProxy takes socket paths of at most 97 characters, and Serve puts 84 of its own below this folder.
    """
    return wanted if len(wanted) <= MAX_FOLDER_CHARS else "/tmp"  # noqa: S108  (mkdtemp makes a private folder in it)


def require_free(port: int, host: str, *, option: str = "--port") -> None:
    """Promise the port to the caller: `free_ports` gives it to nobody else.

    Raises ClusterError when something listens on the port already, or the host is no address of this machine.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as err:
            if isinstance(err, socket.gaierror) or err.errno == errno.EADDRNOTAVAIL:
                raise ClusterError(
                    f"{host} cannot be listened on; --host takes an IPv4 address of this machine, such as 0.0.0.0 or "
                    f"127.0.0.1, or a name that has one"
                ) from err
            raise ClusterError(
                f"port {port} is in use ({err.strerror}); stop what listens there or choose another with {option}"
            ) from err
    promise(port)


def most_connections(open_files: int) -> int:
    """Return how many clients HAProxy may have.

    It wants 2.5 files for each, the pipes that it splices through included, and does not start without them.
    """
    if open_files == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(100, min(MOST_CONNECTIONS, int((open_files - 200) / 2.5)))


def serve_environment(folder: Path) -> dict[str, str]:
    """Return the Serve settings of a local node: HAProxy in front of the Routers, on ports of its own."""
    haproxy, (stats, metrics, fallback_http, fallback_grpc) = folder / "h", free_ports(4)
    low = random.SystemRandom().randrange(30_000, 32_000)
    low_grpc = low - 20_600  # below the ports that `free_ports` chooses from
    return {
        **SERVE_SETTINGS,
        # Serve's defaults are 4 threads, whatever the machine has, and 4,096 clients. One thread feeds several Routers; more
        # than it needs only take their cores (docs/benchmarks.md).
        "RAY_SERVE_HAPROXY_NBTHREAD": str(max(1, min(4, (os.cpu_count() or 1) // 4))),
        "RAY_SERVE_HAPROXY_MAXCONN": str(most_connections(resource.getrlimit(resource.RLIMIT_NOFILE)[1])),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback_http),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(fallback_grpc),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(low),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(low + 600),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(low_grpc),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(low_grpc + 600),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(haproxy / "metrics.sock"),
    }


class LocalCluster:
    """A Ray head node under a watchdog. Use as a context manager."""

    def __init__(self, *, num_cpus: float, num_gpus: int | None = None, env: Mapping[str, str] | None = None) -> None:
        """``num_gpus``: how many Ray is to believe in; None: those that there are."""
        self.token = new_token()
        self._num_cpus = num_cpus
        self._num_gpus = num_gpus
        self._env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None
        self.environment: dict[str, str] = {}  # of the node's processes, once it starts
        self._take_place()

    def _take_place(self) -> None:
        """Choose a folder and ports; a second attempt to start needs others."""
        self.folder = Path(tempfile.mkdtemp(prefix="mt-", dir=short_folder(tempfile.gettempdir())))
        self._gcs_port, self._dashboard_port, *self._more_ports = free_ports(8)

    @property
    def dashboard_url(self) -> str:
        """Where Ray's API listens."""
        return f"http://127.0.0.1:{self._dashboard_port}"

    @property
    def metrics_url(self) -> str:
        """Where Prometheus finds the metrics of every process of the head node, Ray's and ours."""
        return f"http://127.0.0.1:{self._more_ports[3]}/metrics"

    def __enter__(self) -> LocalCluster:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start Ray and wait until its Serve API answers. Raises ClusterError when it does not, twice."""
        try:
            self._start()
        except ClusterError:
            # Some of Ray's own time limits are fixed and short for a machine that is busy at this moment.
            self._take_place()
            self._start()

    def _start(self) -> None:
        command = [sys.executable, "-m", "serve_app.watchdog", str(self.folder), *self._ray_command()]
        environment = self.environment = self._environment()
        with tempfile.TemporaryFile() as log:
            self._process = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=ROOT,
                start_new_session=True,  # Ctrl-C and a closed terminal are for the owner
            )
            deadline_s = time.monotonic() + START_TIMEOUT_S
            while not self._answers():
                if not self.is_alive() or time.monotonic() > deadline_s:
                    self.stop()
                    log.seek(0)
                    raise ClusterError(f"Ray did not start:\n{log.read().decode(errors='replace')[-2000:]}")
                time.sleep(0.3)

    def stop(self) -> None:
        """End every process of the cluster and delete its folder."""
        if self._process is None:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        if self._process.stdin is not None:
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=60)
        if self._process.poll() is None:
            self._process.kill()
        self._process = None

    def is_alive(self) -> bool:
        """Whether the watchdog still runs."""
        return self._process is not None and self._process.poll() is None

    def deploy(self, schema: Mapping[str, Any]) -> None:
        """Send a ServeDeploySchema to Serve, as KubeRay does. Raises ClusterError when Serve refuses it."""
        answer = self._serve_api("PUT", timeout_s=120.0, json=schema)
        if answer.status_code != 200:
            raise ClusterError(f"Serve refused the configuration: {answer.text[-2000:]}")

    def applications(self) -> dict[str, Any]:
        """Return Serve's own report of the applications, by name."""
        answer = self._serve_api("GET", timeout_s=60.0)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()["applications"]
        return found

    def nodes(self) -> list[dict[str, float]]:
        """Return the total resources of every living node, by Ray's names."""
        answer = self._api("GET", "/api/v0/nodes?detail=1", timeout_s=60.0)
        answer.raise_for_status()
        found = answer.json()["data"]["result"]["result"]
        return [node["resources_total"] for node in found if node["state"] == "ALIVE"]

    def _serve_api(self, method: str, *, timeout_s: float, json: Any = None) -> httpx.Response:
        return self._api(method, "/api/serve/applications/", timeout_s=timeout_s, json=json)

    def _api(self, method: str, path: str, *, timeout_s: float, json: Any = None) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.token}"}
        return httpx.request(method, self.dashboard_url + path, json=json, headers=headers, timeout=timeout_s)

    def _answers(self) -> bool:
        try:
            return self._serve_api("GET", timeout_s=5.0).status_code == 200
        except httpx.HTTPError:
            return False

    def _ray_command(self) -> list[str]:
        agent, agent_grpc, client, metrics, node_manager, object_manager = self._more_ports
        options = {
            "port": self._gcs_port,
            "node-ip-address": "127.0.0.1",
            "dashboard-host": "127.0.0.1",
            "dashboard-port": self._dashboard_port,
            "dashboard-agent-listen-port": agent,
            "dashboard-agent-grpc-port": agent_grpc,
            "ray-client-server-port": client,
            "metrics-export-port": metrics,
            "node-manager-port": node_manager,
            "object-manager-port": object_manager,
            "min-worker-port": 0,
            "max-worker-port": 0,
            "num-cpus": max(os.cpu_count() or 1, int(self._num_cpus) + 1),
            **({} if self._num_gpus is None else {"num-gpus": self._num_gpus}),
            "object-store-memory": OBJECT_STORE_BYTES,
            "temp-dir": self.folder / "ray",
        }
        return _start_command("--head", options=options)

    def join_command(self, num_cpus: int) -> list[str]:
        """Return the command of a further node of the running cluster on this machine; it needs ``environment``."""
        agent, agent_grpc, metrics, node_manager, object_manager = free_ports(5)
        options = {
            "address": f"127.0.0.1:{self._gcs_port}",
            "dashboard-agent-listen-port": agent,
            "dashboard-agent-grpc-port": agent_grpc,
            "metrics-export-port": metrics,
            "node-manager-port": node_manager,
            "object-manager-port": object_manager,
            "min-worker-port": 0,
            "max-worker-port": 0,
            "num-cpus": num_cpus,
            "object-store-memory": OBJECT_STORE_BYTES,
        }
        return _start_command(options=options)

    def _haproxy(self) -> dict[str, str]:
        path = self.folder / "h" / "haproxy"
        try:
            return {BINARY_PATH: str(path)} if write_starter(path) else {}
        except FileNotFoundError as err:
            raise ClusterError(f"no HAProxy can be started: {err}") from err

    def _environment(self) -> dict[str, str]:
        for name in ("h", "t"):
            (self.folder / name).mkdir()
        haproxy = self._haproxy()
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        return {
            **os.environ,
            **serve_environment(self.folder),
            **haproxy,
            # Ray lowers its workers to nice 15; a busy machine then starves health checks.
            "RAY_worker_niceness": "0",
            "RAY_DEDUP_LOGS": "0",
            # Time limits of Ray's own start, which a busy machine outruns.
            "RAY_NUM_REDIS_GET_RETRIES": "120",
            "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "180",
            # Ray's API runs code for whoever reaches it. A token of our own also keeps a token that the user may have
            # in ~/.ray, or RAY_AUTH_MODE, from locking us out.
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            INTERNAL_TOKEN: self.token,
            REPLICA_HOST: "127.0.0.1",  # Ray takes no loopback address for a node's
            "TMPDIR": str(self.folder / "t"),  # what killed processes leave goes with the folder
            "PYTHONPATH": path,
            **self._env,
        }


def _start_command(*flags: str, options: Mapping[str, Any]) -> list[str]:
    told = (f"--{name}={value}" for name, value in options.items())
    return [sys.executable, "-m", "ray.scripts.scripts", "start", *flags, "--block", "--disable-usage-stats", *told]
