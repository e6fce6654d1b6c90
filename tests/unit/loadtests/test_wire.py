from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.server import StreamServer

from loadtests.outcomes import Outcome, RequestFailed
from loadtests.scenario import Target
from loadtests.streaming import EventReader
from loadtests.wire.address import address_of
from loadtests.wire.answer import retry_after_s
from loadtests.wire.client import Call, HttpClient
from tests.unit.loadtests.servers import DONE, answered, closed_port, content, leave, sending, serving, streamed

OK = answered(b'{"ok": true}')


OPENED: list[HttpClient] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


def client(url: str, **fields: Any) -> HttpClient:
    OPENED.append(HttpClient(Target.model_validate({"url": url, **fields}), "the-key"))
    return OPENED[-1]


def call(http: HttpClient, *, within_s: float = 5.0, is_stream: bool = False, path: str = "/v1/x") -> Call:
    made = Call(path, b"{}", reader=EventReader() if is_stream else None)
    http.run(made, deadline_s=time.perf_counter() + within_s)
    return made


def failure(http: HttpClient, **fields: Any) -> RequestFailed:
    with pytest.raises(RequestFailed) as caught:
        call(http, **fields)
    return caught.value


def test_a_request_has_its_key_and_its_body() -> None:
    seen: list[bytes] = []

    def script(sock: Any, request: bytes) -> None:
        seen.append(request)
        sock.sendall(OK)

    with serving(script) as url:
        assert call(client(url)).json() == {"ok": True}
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/x HTTP/1.1\r\nhost: 127.0.0.1:")
    assert b"authorization: Bearer the-key" in head
    assert body == b"{}"


def test_a_stream_is_timed_event_by_event() -> None:
    pieces = streamed(b": waking\n\n", content("a"), content("b"), content("c"), DONE)
    with serving(sending(*pieces, every_s=0.02)) as url:
        done = call(client(url), is_stream=True)
    assert done.reader is not None
    assert len(done.reader.stamps) == 3
    assert done.sent_s is not None
    assert done.answer is not None
    assert done.answer.ended_s is not None
    assert done.sent_s < done.reader.stamps[0] < done.reader.stamps[1] < done.reader.stamps[2] < done.answer.ended_s


def test_a_connection_takes_the_next_request() -> None:
    peers: list[Any] = []

    def script(sock: Any, _: bytes) -> None:
        peers.append(sock.getpeername())
        sock.sendall(OK)

    with serving(script) as url:
        http, apart = client(url), client(url, reuse_connections=False)
        for each in (http, http, apart, apart):
            call(each)
        http.close()
    assert peers[0] == peers[1]
    assert len(set(peers)) == 3


def test_a_connection_that_was_closed_meanwhile_is_no_failure() -> None:
    left = iter([False, True, False])

    def script(sock: Any, _: bytes) -> None:
        if next(left):
            leave()
        sock.sendall(OK)

    with serving(script) as url:
        http = client(url)
        call(http)
        assert call(http).json() == {"ok": True}  # the kept one was closed without an answer


def test_a_kept_connection_that_the_server_has_closed_is_thrown_away() -> None:
    def script(sock: Any, _: bytes) -> None:
        sock.sendall(OK)
        leave()

    with serving(script) as url:
        http = client(url)
        call(http)
        gevent.sleep(0.01)
        assert call(http).json() == {"ok": True}


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("400 Bad Request", Outcome.CLIENT_ERROR),
        ("401 Unauthorized", Outcome.UNAUTHENTICATED),
        ("429 Too Many Requests", Outcome.RATE_LIMITED),
        ("503 Service Unavailable", Outcome.SERVER_ERROR),
        ("302 Found", Outcome.CLIENT_ERROR),
    ],
)
def test_statuses_have_their_classes(status: str, outcome: Outcome) -> None:
    body = b'{"error": {"message": "because"}}'
    with serving(sending(answered(body, status=status, headers="retry-after: 3\r\n"))) as url:
        found = failure(client(url), is_stream=True)
    assert (found.outcome, str(found), found.status, found.retry_after_s) == (outcome, "because", int(status[:3]), 3.0)


def test_an_error_without_words_has_its_status() -> None:
    with serving(sending(answered(b"<html>", status="502 Bad Gateway"))) as url:
        assert str(failure(client(url))) == "status 502"


@pytest.mark.parametrize(
    ("pieces", "outcome", "said"),
    [
        pytest.param(streamed(content("a"), is_whole=False), Outcome.BROKEN, "the connection broke before", id="cut"),
        pytest.param(streamed(content("a")), Outcome.BROKEN, r"ended without \[DONE\]", id="no-done"),
        pytest.param(
            streamed(content("a"), b'data: {"error": {"message": "replica left"}}\n\n'),
            Outcome.ERROR_EVENT,
            "replica left",
            id="error",
        ),
        pytest.param([OK], Outcome.BROKEN, "expected a stream of events, got application/json", id="no-stream"),
        pytest.param(streamed(b"data: {\n\n"), Outcome.BROKEN, "Expecting", id="no-json"),
        pytest.param([b"SSH-2.0-OpenSSH\r\n"], Outcome.BROKEN, "not valid", id="no-http"),
        pytest.param([], Outcome.BROKEN, "no answer came", id="silence"),
    ],
)
def test_broken_answers_have_their_classes(pieces: list[bytes], outcome: Outcome, said: str) -> None:
    def script(sock: Any, _: bytes) -> None:
        for piece in pieces:
            sock.sendall(piece)
        leave()

    with serving(script) as url:
        found = failure(client(url), is_stream=True)
    assert found.outcome is outcome
    assert re.search(said, str(found))


def test_an_answer_that_ends_with_its_connection_is_whole() -> None:
    def script(sock: Any, _: bytes) -> None:
        sock.sendall(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{"ok": 1}')
        leave()

    with serving(script) as url:
        assert call(client(url)).json() == {"ok": 1}


def test_what_takes_too_long_is_a_timeout() -> None:
    with serving(lambda *_: gevent.sleep(5)) as url:
        assert failure(client(url), within_s=0.05).outcome is Outcome.TIMEOUT


def test_a_port_on_which_nobody_listens_is_told() -> None:
    found = failure(client(f"http://127.0.0.1:{closed_port()}"))
    assert (found.outcome, found.status) == (Outcome.CONNECT, None)
    assert "connection refused" in str(found)


def test_a_host_without_an_address_is_told() -> None:
    found = failure(client("http://no-such-host.invalid"), within_s=20)
    assert found.outcome is Outcome.DNS


def test_a_server_without_tls_is_told() -> None:
    def plain(sock: Any, _: Any) -> None:
        sock.recv(1024)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    server = StreamServer(("127.0.0.1", 0), plain)
    server.start()
    found = failure(client(f"https://127.0.0.1:{server.server_port}"))
    server.stop(timeout=0)
    assert found.outcome is Outcome.CONNECT


def test_a_stream_over_tls_is_timed_too(trusted_by_nobody: ssl.SSLContext) -> None:
    with serving(sending(*streamed(content("a"), content("b"), DONE), every_s=0.01), ssl_context=trusted_by_nobody) as url:
        done = call(client(url, verify_tls=False), is_stream=True)
        untrusted = failure(client(url))
    assert done.reader is not None
    assert len(done.reader.stamps) == 2
    assert untrusted.outcome is Outcome.CONNECT


def test_an_answer_that_is_no_json_object_is_broken() -> None:
    for body in (b"[1]", b"nothing"):
        with serving(sending(answered(body))) as url, pytest.raises(RequestFailed, match="JSON") as caught:
            call(client(url)).json()
        assert caught.value.outcome is Outcome.BROKEN


@pytest.mark.parametrize(
    ("url", "port", "is_tls", "authority"),
    [
        ("http://example.org", 80, False, "example.org"),
        ("https://example.org", 443, True, "example.org"),
        ("https://example.org:8443/", 8443, True, "example.org:8443"),
        ("http://[::1]:8000", 8000, False, "[::1]:8000"),
    ],
)
def test_a_url_has_an_address(url: str, port: int, is_tls: bool, authority: str) -> None:
    found = address_of(url)
    assert (found.port, found.is_tls, found.authority) == (port, is_tls, authority)


def test_a_url_without_a_host_is_refused() -> None:
    with pytest.raises(ValueError, match="names no host"):
        address_of("http://")


@pytest.mark.parametrize(
    ("header", "seconds"), [("2", 2.0), ("1.5", 1.5), ("-1", 0.0), ("Thu, 01 Jan 2026 00:00:00 GMT", None)]
)
def test_retry_after_is_seconds(header: str, seconds: float | None) -> None:
    assert retry_after_s({"retry-after": header}) == seconds
    assert retry_after_s({}) is None
