from __future__ import annotations

import json
from typing import Any

import pytest

from loadtests.scenario import Target
from loadtests.users.sampler import Sample, Sampler
from loadtests.wire.client import HttpClient
from tests.unit.loadtests.servers import Script, answered, closed_port, sending, serving

STATUS = {
    "waiting_in_router": 2,
    "models": [
        {
            "name": "chat",
            "variants": [
                {"name": "stable", "queue_depth": 3, "running": 8, "weight": 90, "replicas": {"ready": 2, "starting": 1}}
            ],
        }
    ],
    "pipelines": [{"name": "docs", "versions": [{"name": "v1", "weight": 100}]}],
}


def looked(script: Script, *, times: int = 1) -> tuple[Sample, Sampler]:
    with serving(script) as url:
        http = HttpClient(Target(url=url), None)
        sampler = Sampler(http)
        for _ in range(times):
            sample = sampler.look(Sample(1.0, 5, 1))
        http.close()
    return sample, sampler


def test_a_look_has_queues_replicas_and_weights() -> None:
    sample, sampler = looked(sending(answered(json.dumps(STATUS).encode())))
    assert sample.to_json() == {
        "at_s": 1.0,
        "open": 5,
        "users": 1,
        "waiting": {"chat/stable": 3},
        "held": 2,
        "running": {"chat/stable": 8},
        "replicas": {"chat/stable": 2},
        "weights": {"chat/stable": 90, "docs/v1": 100},
    }
    assert sampler.why_not == ""


@pytest.mark.parametrize(
    ("status", "said"),
    [("403 No", "status 403; set MANTA_API_KEY to a key with `admin: true`"), ("404 No", "status 404")],
)
def test_whoever_is_refused_asks_no_more(status: str, said: str) -> None:
    asked: list[bytes] = []

    def script(sock: Any, request: bytes) -> None:
        asked.append(request)
        sock.sendall(answered(b"", status=status))

    sample, sampler = looked(script, times=3)
    assert (len(asked), sample.held, sampler.why_not) == (1, None, f"/admin/status: {said}")


def test_what_is_not_mantas_is_told() -> None:
    _, sampler = looked(sending(answered(b'{"models": 1}')))
    assert sampler.why_not == "/admin/status: not what Manta answers"


def test_a_look_that_fails_once_is_tried_again() -> None:
    left = iter([b"", b"", json.dumps(STATUS).encode()])

    def script(sock: Any, _: bytes) -> None:
        body = next(left)
        sock.sendall(answered(body, status="200 OK" if body else "503 Later"))

    sample, sampler = looked(script, times=3)
    assert (sample.held, sampler.why_not) == (2, "")


def test_a_platform_that_is_down_is_told() -> None:
    sampler = Sampler(HttpClient(Target(url=f"http://127.0.0.1:{closed_port()}"), None))
    sampler.look(Sample(1.0, 5, 1))
    assert "connection refused" in sampler.why_not
