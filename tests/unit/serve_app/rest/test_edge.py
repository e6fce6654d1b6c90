from __future__ import annotations

import json
from typing import Any

import pytest

from serve_app.rest.edge import MAX_HEADER_BYTES, MAX_HEADERS, HeaderGate, middlewares

Header = tuple[bytes, bytes]
PLAIN: list[Header] = [(b"host", b"manta"), (b"x-request-id", b"q1"), (b"x-session-id", b"s1"), (b"x-stainless-os", b"Linux")]


class Behind:
    """The app behind the gate: it knows with what it was called."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.sent: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)

    async def send(self, message: Any) -> None:
        self.sent.append(message)


async def receive() -> Any:
    raise AssertionError


async def passed(headers: list[Header]) -> tuple[Behind, dict[str, Any]]:
    behind, scope = Behind(), {"type": "http", "path": "/", "headers": headers}
    await HeaderGate(behind)(scope, receive, behind.send)
    return behind, scope


async def test_a_request_without_such_headers_goes_on_as_it_came() -> None:
    behind, scope = await passed(PLAIN)
    assert behind.scopes[0] is scope


@pytest.mark.parametrize(
    "name",
    [
        b"x-request-timeout-seconds",
        b"x_request_timeout_seconds",
        b"x-request-disconnect-disabled",
        b"serve_multiplexed_model_id",
        b"serve-multiplexed-model-id",
        b"serve-multiplexed_model_id",
        b"x-serve-router-deny",
    ],
)
async def test_what_ray_would_obey_is_taken_out(name: bytes) -> None:
    behind, scope = await passed([PLAIN[0], (name, b"1"), *PLAIN[1:], (name, b"2")])
    assert behind.scopes[0] == {**scope, "headers": PLAIN}


@pytest.mark.parametrize("offered", [b"\xe9", b"a b", b"", b"x" * 129], ids=["no-ascii", "space", "empty", "long"])
async def test_a_request_id_that_is_not_kept_is_replaced_before_ray_sends_it_back(offered: bytes) -> None:
    behind, _ = await passed([(b"x-request-id", offered)])
    [(name, value)] = behind.scopes[0]["headers"]
    assert (name, len(value), value.isalnum()) == (b"x-request-id", 32, True)


async def test_a_session_id_that_ray_cannot_read_becomes_one_that_it_can() -> None:
    behind, _ = await passed([(b"x-session-id", b"\xff\xe9")])
    assert behind.scopes[0]["headers"] == [(b"x-session-id", b"ffe9")]


@pytest.mark.parametrize(
    "headers",
    [[(b"a", b"1")] * (MAX_HEADERS + 1), [(b"a", b"1" * MAX_HEADER_BYTES)], [(b"x-serve-a", b"1" * MAX_HEADER_BYTES)]],
    ids=["many", "long", "long-and-refused"],
)
async def test_too_much_of_headers_is_refused(headers: list[Header]) -> None:
    behind, _ = await passed(headers)
    start, body = behind.sent
    assert (behind.scopes, start["status"]) == ([], 431)
    assert json.loads(body["body"])["error"]["code"] == "headers_too_large"


async def test_as_many_headers_as_allowed_pass() -> None:
    behind, _ = await passed([(b"a", b"1")] * MAX_HEADERS)
    assert len(behind.scopes) == 1


async def test_other_connections_pass() -> None:
    behind = Behind()
    await HeaderGate(behind)({"type": "websocket"}, receive, behind.send)
    assert len(behind.scopes) == 1


def test_ray_gets_the_gate() -> None:
    classes: list[object] = [each.cls for each in middlewares()]
    assert classes == [HeaderGate]
