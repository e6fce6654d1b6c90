"""HAProxy listens for clients once it knows where to send them, and not before."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_app.haproxy import BINARY_PATH, write_starter
from serve_app.ports import free_ports

GRPC_FALLBACK = "use_backend grpc_fallback_backend if is_list_applications"
APP = "use_backend http-router if is_http-router"


def config(folder: Path, ports: list[int], *, http: str, grpc: str) -> str:
    """Return a configuration as Serve writes it, as far as it matters here."""
    return f"""
global
    stats socket {folder / "admin.sock"} mode 666 level admin
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
frontend prometheus
    bind :{ports[0]}
frontend http_frontend
    bind 127.0.0.1:{ports[1]}
    acl is_http-router path_beg /
    {http}
    default_backend default_backend
backend default_backend
    http-request return status 404
backend http-router
    server s 127.0.0.1:1
frontend grpc_frontend
    bind 127.0.0.1:{ports[2]} proto h2
    acl is_list_applications path /list
    acl is_http-router req.hdr(application) -m str router
    {grpc}
    default_backend default_backend
backend grpc_fallback_backend
    server s 127.0.0.1:1 proto h2
"""


class Node:
    """HAProxy, started by the wrapper."""

    def __init__(self, folder: Path) -> None:
        self.ports = free_ports(3)
        self._folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, http: str = "", grpc: str = "") -> list[bool]:
        """Return which ports listen: for Prometheus, HTTP and gRPC."""
        starter, file = self._folder / "haproxy", self._folder / "haproxy.cfg"
        write_starter(starter)
        file.write_text(config(self._folder, self.ports, http=http, grpc=grpc), encoding="utf-8")
        self.process = subprocess.Popen([starter, "-db", "-f", file], stderr=subprocess.DEVNULL)
        deadline_s = time.monotonic() + 20
        while not self.listens(self.ports[0]) and time.monotonic() < deadline_s:
            time.sleep(0.05)
        return [self.listens(port) for port in self.ports]

    def listens(self, port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    found = Node(tmp_path_factory.mktemp("h"))
    yield found
    if found.process is not None:
        found.process.kill()
        found.process.wait()


@pytest.mark.parametrize("grpc", ["", GRPC_FALLBACK], ids=["nothing", "serves-own-fallback"])
def test_a_proxy_that_knows_no_application_listens_for_prometheus_only(node: Node, grpc: str) -> None:
    assert node.start(grpc=grpc) == [True, False, False]


@pytest.mark.parametrize("grpc", ["", APP], ids=["http", "http-and-grpc"])
def test_one_that_knows_an_application_listens(node: Node, grpc: str) -> None:
    assert node.start(http=APP, grpc=grpc) == [True, True, True]


def test_the_process_that_serve_started_is_haproxy(node: Node) -> None:
    node.start(http=APP)
    assert node.process is not None
    command = Path(f"/proc/{node.process.pid}/cmdline").read_bytes().split(b"\0")
    assert command[0].endswith(b"/haproxy")
    assert command[1:3] == [b"-db", b"-f"]


def test_what_is_no_start_of_a_configuration_is_passed_on(tmp_path: Path) -> None:
    write_starter(tmp_path / "it's here")
    for arguments in (["-v"], ["-f", "absent.cfg", "-v"]):
        done = subprocess.run([tmp_path / "it's here", *arguments], capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.startswith("HAProxy version")


def test_the_haproxy_that_an_operator_chose_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "it's mine"
    own.write_text("#!/bin/sh\necho mine $*\n", encoding="utf-8")
    own.chmod(0o755)
    monkeypatch.setenv(BINARY_PATH, str(own))
    write_starter(tmp_path / "starter")
    done = subprocess.run([tmp_path / "starter", "-v"], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "mine -v\n"


def test_an_empty_choice_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BINARY_PATH, "")
    assert write_starter(tmp_path / "starter")


def test_the_wrapper_is_not_its_own_haproxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_starter(tmp_path / "starter")
    monkeypatch.setenv(BINARY_PATH, str(tmp_path / "starter"))
    with pytest.raises(ValueError, match=f"{BINARY_PATH} names .*/starter already; unset it"):
        write_starter(tmp_path / "starter")


def test_a_folder_from_which_nothing_can_be_run_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: "starter" not in str(path))
    assert not write_starter(tmp_path / "starter")


def test_an_image_writes_it_by_a_command(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "serve_app.haproxy", str(tmp_path / "haproxy")], timeout=60, check=True)
    assert (tmp_path / "haproxy").stat().st_mode & 0o111
