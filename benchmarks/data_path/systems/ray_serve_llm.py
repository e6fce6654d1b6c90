"""ray.serve.llm (Ray 2.60) on a Ray node of its own: out of the box, tuned, and with direct streaming."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import httpx
import psutil

from benchmarks.data_path import vllm_engine
from benchmarks.data_path.contracts import Endpoint, Engine, FakeSpec
from benchmarks.data_path.systems.program import StartError, wait_for_chat
from serve_app.cluster import LocalCluster, free_ports
from serve_app.serve_settings import SERVE_SETTINGS

Mode = Literal["default", "tuned", "direct"]

APP = "llm"
REPLICA = re.compile(rf"ray::.*\bServeReplica:{APP}:(?P<deployment>\w+)")
NUM_CPUS = 8  # what Ray may count on, so that it places everything; the processes share the machine's real cores
START_TIMEOUT_S = 900.0  # several processes import vLLM
ANSWER_TIMEOUT_S = 120.0

# Ray's own defaults where LocalCluster sets, or once did, what Manta wants.
RAY_DEFAULTS = {
    "RAY_SERVE_ENABLE_HA_PROXY": "0",
    "RAY_SERVE_HAPROXY_MAXCONN": "4096",
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "120",
    "RAY_SERVE_HAPROXY_STARTUP_TIMEOUT_S": "300",  # not its default of 30: patience on a busy machine, and no speed
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "30",
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "10",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "10",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "",
}
# https://docs.ray.io/en/master/kuberay/user-guides/serve-high-throughput.html. Its VLLM_USE_RAY_V2_EXECUTOR_BACKEND is
# for GPUs: on a CPU ray.serve.llm runs vLLM with its multiprocessing executor.
HIGH_THROUGHPUT = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
# https://docs.ray.io/en/master/serve/llm/user-guides/direct-streaming.html
DIRECT_STREAMING = {"RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1"}
ENVIRONMENTS: Mapping[Mode, Mapping[str, str]] = {
    "default": RAY_DEFAULTS,
    "tuned": {**RAY_DEFAULTS, **HIGH_THROUGHPUT},
    "direct": {**RAY_DEFAULTS, **HIGH_THROUGHPUT, **DIRECT_STREAMING},
}
NAMES: Mapping[Mode, str] = {
    "default": "ray-serve-llm-default",
    "tuned": "ray-serve-llm",
    "direct": "ray-serve-llm-direct",
}


class RayServeLLM:
    """One model behind `build_openai_app`; one ingress replica, as that and one engine replica fill two cores."""

    def __init__(self, mode: Mode = "tuned") -> None:
        self.name = NAMES[mode]
        self._mode = mode

    @contextmanager
    def running(self, engine: Engine) -> Iterator[Endpoint]:
        """Start it with the same engine inside; yield it once it answers."""
        if kept := SERVE_SETTINGS.keys() - RAY_DEFAULTS.keys():
            raise StartError(f"{self.name} would run with Manta's own {', '.join(sorted(kept))}: name Ray's default here")
        (port,) = free_ports(1)
        env = {**ENVIRONMENTS[self._mode], **(vllm_engine.ENVIRONMENT if engine.kind == "vllm" else {})}
        with LocalCluster(num_cpus=NUM_CPUS, env=env) as cluster:
            cluster.deploy(render_schema(self._mode, engine, port=port))
            try:
                _wait_until_running(cluster)
                endpoint = replace(engine.endpoint, host="127.0.0.1", port=port, headers={}, pids={})
                wait_for_chat(endpoint, is_alive=cluster.is_alive, timeout_s=ANSWER_TIMEOUT_S)
            except StartError as err:
                raise StartError(f"{self.name}: {err}") from err
            yield replace(endpoint, pids=find_roles(_watchdog(cluster)))


class RayServeLLMDefault(RayServeLLM):
    """Out of the box."""

    def __init__(self) -> None:
        super().__init__("default")


class RayServeLLMDirect(RayServeLLM):
    """Tuned, and from HAProxy straight to the engine's replica."""

    def __init__(self) -> None:
        super().__init__("direct")


def render_schema(mode: Mode, engine: Engine, *, port: int) -> dict[str, Any]:
    """Return the ServeDeploySchema of one model."""
    schema: dict[str, Any] = {
        "http_options": {"host": "127.0.0.1", "port": port},
        "applications": [
            {
                "name": APP,
                "route_prefix": "/",
                "import_path": "ray.serve.llm:build_openai_app",
                "args": {"llm_configs": [render_llm_config(mode, engine)]},
            }
        ],
    }
    if mode != "default":
        schema["logging_config"] = {"enable_access_log": False}
    return schema


def render_llm_config(mode: Mode, engine: Engine) -> dict[str, Any]:
    """Return the LLMConfig of the model."""
    loading: dict[str, Any] = {"model_id": engine.endpoint.model}
    config: dict[str, Any] = {"model_loading_config": loading, "accelerator_config": {"kind": "cpu"}}
    experiments: dict[str, Any] = {} if mode == "default" else {"stream_batching_interval_ms": 0}
    if engine.kind == "vllm":
        loading["model_source"] = str(engine.model_folder)
        config["engine_kwargs"] = dict(engine.vllm_args)
    else:
        spec = engine.spec or FakeSpec()
        config["server_cls"] = "benchmarks.data_path.systems.ray_fake_engine:FakeServer"
        # The names are those in ray_fake_engine, which is not to be imported here.
        experiments |= {"fake_ttft_ms": spec.ttft_ms, "fake_itl_ms": spec.itl_ms}
    return {**config, "experimental_configs": experiments}


def find_roles(watchdog: int) -> dict[str, list[int]]:
    """Return the process ids of a cluster by role; what is not named counts with the watchdog, above them all."""
    roles: dict[str, list[int]] = {"control": [watchdog]}
    for process in psutil.Process(watchdog).children(recursive=True):
        title = " ".join(process.cmdline())
        if role := role_of(title):
            roles.setdefault(role, []).append(process.pid)
    return roles


def role_of(title: str) -> str | None:
    """Return the role of a Ray worker by its process title, which Ray keeps at the actor's class and method."""
    if title.startswith(("ray::HAProxyManager", "ray::ProxyActor")):
        return "proxy"
    replica = REPLICA.match(title)
    if not replica:
        return None
    return "router" if replica["deployment"] in {"OpenAiIngress", "LLMRouter"} else "engine"


def _watchdog(cluster: LocalCluster) -> int:
    for child in psutil.Process(os.getpid()).children():
        if str(cluster.folder) in child.cmdline():
            return child.pid
    raise StartError("the cluster's watchdog is gone")


def _wait_until_running(cluster: LocalCluster) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    app: dict[str, Any] = {}
    while time.monotonic() < deadline_s and cluster.is_alive():
        with contextlib.suppress(httpx.HTTPError):  # a busy node answers late
            app = cluster.applications().get(APP, {})
        if app.get("status") == "RUNNING":
            return
        if app.get("status") in {"DEPLOY_FAILED", "UNHEALTHY"}:
            break
        time.sleep(1.0)
    raise StartError(f"the application is {app.get('status')}: {app.get('message', '')[-3000:]}")
