"""Manta in front of an engine outside Ray: Serve's HAProxy, the Routers and Rollouts as `manta run` starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import psutil

from benchmarks.data_path.contracts import Endpoint, Engine
from benchmarks.data_path.systems.program import wait_for_chat
from deployments.names import llm_app
from serve_app.apps import build_schema, cpus_needed
from serve_app.cluster import LocalCluster, free_ports
from serve_app.config import PlatformConfig
from serve_app.credentials import hash_of, new_key

START_TIMEOUT_S = 240.0
# As in ray_serve_llm: Serve's own proxy stands by behind HAProxy and counts with it.
ROLES = {"ray::HAProxyManager": "proxy", "ray::ProxyActor": "proxy", "ray::ServeReplica:router": "router"}


class Manta:
    """The platform with its own defaults; ``settings`` replace parts of the document for a study."""

    def __init__(self, name: str = "manta", *, router: Mapping[str, Any] | None = None, key: str | None = None) -> None:
        self.name = name
        self._router = dict(router or {})
        self._key = key

    @contextmanager
    def running(self, engine: Engine) -> Iterator[Endpoint]:
        """Start Ray and the platform; yield once a chat is answered."""
        with self.platform(
            [f"http://{engine.endpoint.host}:{engine.endpoint.port}"], engine.endpoint, kind=engine.kind
        ) as running:
            yield running.endpoint

    @contextmanager
    def platform(self, urls: Sequence[str], engine: Endpoint, *, kind: str = "fake") -> Iterator[Running]:
        """Start the platform in front of several engines that serve the same model."""
        port = free_ports(1)[0]
        outside = Outside(engine.model, tuple(urls), kind, key=self._key)
        schema = outside.schema(port=port, router=self._router)
        with LocalCluster(num_cpus=cpus_needed(schema) + 1) as cluster:
            cluster.deploy(schema)
            headers = {} if self._key is None else {"authorization": f"Bearer {self._key}"}
            endpoint = Endpoint("127.0.0.1", port, engine.model, headers=headers)
            # As every peer is waited for, and warmed up.
            wait_for_chat(endpoint, is_alive=cluster.is_alive, timeout_s=START_TIMEOUT_S)
            roles = {**ray_roles(ROLES), **engine.pids}
            yield Running(cluster, outside, replace(endpoint, pids=roles))


@dataclass(frozen=True, slots=True)
class Running:
    """A running platform."""

    cluster: LocalCluster
    outside: Outside
    endpoint: Endpoint

    def set_router(self, router: Mapping[str, Any]) -> None:
        """Change the Router's settings in place."""
        self.cluster.deploy(self.outside.schema(port=self.endpoint.port, router=router))


@dataclass(frozen=True, slots=True)
class Outside:
    """Engines outside Ray that serve one model."""

    model: str
    urls: Sequence[str]
    kind: str  # fake or vllm
    key: str | None = None  # the only one that is let in, with limits that are counted and never reached

    def schema(self, *, port: int, router: Mapping[str, Any]) -> dict[str, Any]:
        """Return the platform's own schema, with a stand-in where its replicas would be."""
        variant = {"name": "stable", "source": "outside", "engine": {"kind": "simulated"}, "max_leases": 100_000}
        document = {"models": [{"name": self.model, "variants": [variant]}], "router": dict(router), "auth": self._auth()}
        made = build_schema(PlatformConfig.model_validate(document), http_port=port, http_host="127.0.0.1", grpc_port=None)
        for app in made["applications"]:
            if app["name"] == llm_app(self.model, "stable"):
                app["import_path"] = "benchmarks.data_path.systems.manta_engine:build"
                app["args"] = {"model": self.model, "urls": list(self.urls), "kind": self.kind}
        return made

    def _auth(self) -> dict[str, Any]:
        if self.key is None:
            return {}
        limits = dict.fromkeys(("requests_per_minute", "tokens_per_minute", "concurrent_requests"), 100_000_000)
        return {"keys": [{"name": "load", "hash": hash_of(self.key), **limits}]}


def manta_with_limits() -> Manta:
    """Return the platform with a key whose requests, tokens and open requests are counted."""
    return Manta("manta-limits", key=new_key("load"))


def ray_roles(roles: Mapping[str, str]) -> dict[str, list[int]]:
    """Return the processes below this one by role: by the start of a Ray worker's title, else ``control``."""
    found: dict[str, list[int]] = {role: [] for role in (*roles.values(), "control")}
    for process in psutil.Process(os.getpid()).children(recursive=True):
        title = " ".join(process.cmdline()[:1]) if process.is_running() else ""
        role = next((role for start, role in roles.items() if title.startswith(start)), None)
        if role is not None:
            found[role].append(process.pid)
        elif "watchdog" in " ".join(process.cmdline()):
            found["control"].append(process.pid)
    return found
