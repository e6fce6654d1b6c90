from __future__ import annotations

import resource
import socket
from pathlib import Path

import pytest

from serve_app.cluster import (
    ClusterError,
    free_ports,
    most_connections,
    require_free,
    serve_environment,
    short_folder,
)
from serve_app.serve_settings import SERVE_SETTINGS


def test_free_ports_are_distinct_and_below_the_ephemeral_range() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert max(ports) < 32_768


def test_a_port_is_given_once_and_never_when_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.ports.PORTS", range(28_000, 28_200))
    before = free_ports(20)
    asked = next(port for port in range(28_000, 28_200) if port not in before and not in_use(port))
    require_free(asked, "127.0.0.1")
    rest = free_ports(100)
    assert not {*before, asked} & {*rest}
    with pytest.raises(OSError, match="fewer than 90 TCP ports from 28000 to 28199 are free"):
        free_ports(90)


def in_use(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_port_in_use_is_refused_by_name() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ClusterError, match=rf"port {port} is in use .*--port"):
            require_free(port, "127.0.0.1")
        with pytest.raises(ClusterError, match="choose another with --grpc-port"):
            require_free(port, "127.0.0.1", option="--grpc-port")


@pytest.mark.parametrize("host", ["::", "::1", "203.0.113.7"], ids=["ipv6", "ipv6-loopback", "another-machine"])
def test_a_host_that_cannot_be_listened_on_is_no_port_in_use(host: str) -> None:
    with pytest.raises(ClusterError, match=f"{host} cannot be listened on; --host takes an IPv4 address of this machine"):
        require_free(free_ports(1)[0], host)


def test_two_runs_share_neither_ports_nor_files() -> None:
    one, other = serve_environment(Path("/one")), serve_environment(Path("/other"))
    same = {name for name in one if one[name] == other[name]}
    assert same == {*SERVE_SETTINGS, "RAY_SERVE_HAPROXY_NBTHREAD", "RAY_SERVE_HAPROXY_MAXCONN"}


def test_the_replicas_ports_are_apart_from_all_others() -> None:
    env = serve_environment(Path("/one"))
    grpc, http = (
        range(*(int(env[f"RAY_SERVE_DIRECT_INGRESS_{end}_{kind}_PORT"]) for end in ("MIN", "MAX"))) for kind in ("GRPC", "HTTP")
    )
    assert len(grpc) == len(http) == 600
    assert 9_000 < grpc[0] < grpc[-1] < 12_000 < 30_000 <= http[0]


def test_a_long_folder_for_temporary_files_is_not_used_for_sockets() -> None:
    assert [short_folder(f) for f in ("/tmp", "/var/tmp", "/home/somebody/tmp")] == ["/tmp", "/var/tmp", "/tmp"]


@pytest.mark.parametrize(
    ("open_files", "connections"),
    [
        pytest.param(1024, 329, id="a-laptop"),
        pytest.param(20_000, 7_920, id="a-workstation"),
        pytest.param(1_048_576, 20_000, id="a-server"),
        pytest.param(resource.RLIM_INFINITY, 20_000, id="no-limit"),
        pytest.param(64, 100, id="too-few-for-anything"),
    ],
)
def test_haproxy_takes_as_many_clients_as_its_files_allow(open_files: int, connections: int) -> None:
    assert most_connections(open_files) == connections
