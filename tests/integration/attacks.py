"""Attempts to get past the keys over a bare socket: bytes that no client library would send."""

from __future__ import annotations

import re
import socket
from typing import NamedTuple

IDLE_S = 3.0  # a server that says nothing for so long waits for more
CHAT = b"/v1/chat/completions"
JSON = b"Content-Type: application/json"
H2C = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")
WEBSOCKET = (
    b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
)  # fmt: skip
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


class Attack(NamedTuple):
    """What is sent, and how many answers of it may rightly be 200."""

    name: str
    sent: bytes
    served: int = 0


def talk(port: int, sent: bytes, *, host: str = "127.0.0.1", idle_s: float = IDLE_S) -> bytes:
    """Return what comes back until the server closes or falls silent."""
    parts = []
    with socket.create_connection((host, port), timeout=idle_s) as opened:
        try:
            opened.sendall(sent)
            while part := opened.recv(65536):
                parts.append(part)
        except OSError:
            pass
    return b"".join(parts)


def statuses(answer: bytes) -> list[int]:
    """Return the status of every answer that came over a connection; "100 Continue" is none."""
    return [int(found) for found in _STATUS.findall(answer) if found != b"100"]


def message(line: bytes, *headers: bytes, body: bytes = b"", host: bytes = b"Host: manta", end: bytes = b"\r\n") -> bytes:
    """Return a request; with a body and no word on its length, the length is added."""
    said = b"\n".join(headers).lower()
    length = [b"Content-Length: %d" % len(body)] if body and b"content-length" not in said and b"chunked" not in said else []
    return end.join([line, *([host] if host else []), *headers, *length, b"", b""]) + body


def chunked(body: bytes) -> bytes:
    """Return a body in one chunk."""
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


def attacks(body: bytes, *, right: bytes, wrong: bytes = b"Authorization: Bearer wrong") -> list[Attack]:
    """Return all attacks with a chat as their body; ``right`` is the header with a key that may list models only."""
    chat, post = b"POST %s HTTP/1.1" % CHAT, b"POST %s HTTP/1.1"
    listing = message(b"GET /v1/models HTTP/1.1", right)
    inner = message(chat, JSON, body=body)  # without a key
    return [
        *_smuggled(inner, body, chat=chat, right=right),
        Attack("pipelined-after-a-key", listing + inner, served=1),
        Attack("pipelined-after-a-wrong-key", message(b"GET /v1/models HTTP/1.1", wrong) + inner),
        Attack("pipelined-after-health", message(b"GET /healthz HTTP/1.1") + inner, served=1),
        Attack("absolute-form", message(b"POST http://evil.example%s HTTP/1.1" % CHAT, JSON, body=body)),
        Attack("absolute-form-of-an-open-path", message(b"POST http://manta/healthz%s HTTP/1.1" % CHAT, JSON, body=body)),
        Attack("authority-with-a-user", message(b"POST http://ann:secret@manta%s HTTP/1.1" % CHAT, JSON, body=body)),
        Attack("no-host", message(chat, JSON, body=body, host=b"")),
        Attack("two-hosts", message(chat, b"Host: other", JSON, body=body)),
        Attack("http-1.0", message(b"POST %s HTTP/1.0" % CHAT, JSON, body=body, host=b"")),
        Attack("http-0.9", b"GET /v1/models\r\n\r\n"),
        Attack("http-2.0-said-in-1", message(b"POST %s HTTP/2.0" % CHAT, JSON, body=body)),
        Attack("http-1.7", message(b"POST %s HTTP/1.7" % CHAT, JSON, body=body)),
        Attack("h2c-upgrade", message(chat, *H2C, JSON, body=body)),
        Attack("websocket", message(b"GET %s HTTP/1.1" % CHAT, *WEBSOCKET)),
        Attack("connect", message(b"CONNECT manta:80 HTTP/1.1") + inner),
        Attack("trace", message(b"TRACE /v1/models HTTP/1.1", b"Max-Forwards: 0", right)),
        Attack("lower-case-method", message(b"post %s HTTP/1.1" % CHAT, JSON, body=body)),
        Attack("unknown-method", message(b"MODELS /v1/models HTTP/1.1", right)),
        Attack("expect-continue", message(chat, b"Expect: 100-continue", JSON, body=body)),
        *(Attack(f"header-{i}", message(chat, header, JSON, body=body)) for i, header in enumerate(_odd_headers(right))),
        *(Attack(f"both-{name}", message(chat, *pair, JSON, body=body)) for name, pair in {
            "right-first": (right, wrong), "wrong-first": (wrong, right),
            "folded": (b"Authorization:", b" " + right.partition(b": ")[2]),
            "removed-by-connection": (b"Connection: close, Authorization", right, wrong),
        }.items()),
        *(Attack(f"path-{i}", message(post % path, JSON, body=body)) for i, path in enumerate(_odd_paths())),
        *(Attack(f"get-{i}", message(b"GET %s HTTP/1.1" % path)) for i, path in enumerate(_odd_lists())),
        Attack("many-headers", message(chat, *(b"x-%d: y" % i for i in range(300)), JSON, body=body)),
        Attack("long-header", message(chat, b"x-long: " + b"y" * 60_000, JSON, body=body)),
        Attack("long-key", message(chat, b"Authorization: Bearer manta_ann_" + b"y" * 60_000, JSON, body=body)),
        Attack("long-path", message(post % (CHAT + b"?" + b"y" * 60_000), JSON, body=body)),
        Attack("forged-request-id", message(chat, b"X-Request-Id: a\rX-Evil: 1", JSON, body=body)),
    ]  # fmt: skip


def _smuggled(inner: bytes, body: bytes, *, chat: bytes, right: bytes) -> list[Attack]:
    """Return requests whose end two servers might see in different places; what may lie behind it has no key."""
    listing = b"GET /v1/models HTTP/1.1"
    both = (b"Content-Length: %d" % (5 + len(inner)), b"Transfer-Encoding: chunked")
    made = {
        "cl-te": message(chat, JSON, *both) + b"0\r\n\r\n" + inner,
        "te-cl": message(chat, JSON, b"Transfer-Encoding: chunked", b"Content-Length: 4") + chunked(inner),
        "two-lengths": message(chat, JSON, b"Content-Length: 0", b"Content-Length: %d" % len(inner)) + inner,
        "joined-lengths": message(chat, JSON, b"Content-Length: 0, %d" % len(inner)) + inner,
        "signed-length": message(chat, JSON, b"Content-Length: +%d" % len(body)) + body + inner,
        "hex-length": message(chat, JSON, b"Content-Length: 0x%x" % len(body)) + body + inner,
        "negative-length": message(chat, JSON, b"Content-Length: -1") + inner,
        "bare-lf": message(chat, JSON, body=body, end=b"\n"),
        "bare-cr": message(chat, b"X: y\rAuthorization: z", JSON, body=body),
        "chunk-extension": message(chat, JSON, b"Transfer-Encoding: chunked") + b"2;\n" + chunked(inner),
        "chunk-sign": message(chat, JSON, b"Transfer-Encoding: chunked") + b"-1\r\n" + inner,
        "chunk-huge": message(chat, JSON, b"Transfer-Encoding: chunked") + b"10000000000000002\r\n{}\r\n0\r\n\r\n" + inner,
        "trailer-with-a-key": message(chat, JSON, b"Transfer-Encoding: chunked", b"Trailer: Authorization")
        + chunked(body)[:-2] + right + b"\r\n\r\n",
    }  # fmt: skip
    for i, header in enumerate((
        b"Transfer-Encoding : chunked", b"Transfer-Encoding: xchunked", b"Transfer-Encoding:\x0bchunked",
        b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding: identity, chunked", b"Transfer_Encoding: chunked",
        b" Transfer-Encoding: chunked", b"X: y\nTransfer-Encoding: chunked", b"Transfer-Encoding\n: chunked",
        b"Transfer-Encoding: \"chunked\"", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    )):  # fmt: skip
        made[f"te-{i}"] = message(chat, JSON, header, b"Content-Length: 5") + b"0\r\n\r\n" + inner
    found = [Attack(name, sent) for name, sent in made.items()]
    # The same behind a request with a key, where what follows could come to be taken for a part of it.
    found += [
        Attack("listing-cl-te", message(listing, right, *both) + b"0\r\n\r\n" + inner, served=1),
        Attack("listing-with-a-body", message(listing, right, b"Content-Length: %d" % len(inner)) + inner, served=1),
        Attack("listing-short-length", message(listing, right, b"Content-Length: 0") + inner, served=1),
    ]  # fmt: skip
    return found


def _odd_headers(right: bytes) -> list[bytes]:
    """Return headers that hold a key nearly as they should."""
    name, _, value = right.partition(b": ")
    key = value.removeprefix(b"Bearer ")
    return [
        name + b" : " + value, b" " + right, b"\t" + right, name + b"\x00: " + value, right + b"\x00", name + b"_: " + value,
        b"X-Authorization: " + value, b"x_api_key: " + key, b"Proxy-Authorization: " + value, b"Cookie: api_key=" + key,
        name + b": Bearer\x00" + key, name + b": Bearer\xa0" + key, name + b": Bearer\t" + key,
        name + b": " + value + b", Bearer wrong",
        name + b": Basic " + key, name + b": Bearer " + b"wrong" + b"\r" + right, b"\xef\xbb\xbf" + right,
    ]  # fmt: skip


def _odd_paths() -> list[bytes]:
    """Return paths near that of a chat."""
    return [
        b"/" + CHAT, b"/healthz/.." + CHAT, b"/-/healthz/.." + CHAT, b"/-/routes;" + CHAT, CHAT + b";x=/healthz", CHAT + b"/",
        CHAT + b"%00", CHAT + b"#/healthz", CHAT + b"?x=/healthz", b"/v1/../v1/chat/completions", b"/v1/chat%2fcompletions",
        b"/%76%31/chat/completions", b"/v1\\chat\\completions", b"/v1/./chat/completions", b"/V1/CHAT/COMPLETIONS", b"*", b"v1",
        b"/v1/chat/completions\x0bx", b"/v1/chat/completions\xff", b"/\xc0\xafv1/chat/completions", b"?/v1/chat/completions",
    ]  # fmt: skip


def _odd_lists() -> list[bytes]:
    """Return paths near those that list what is deployed."""
    return [
        b"/v1/models", b"//v1/models", b"/v1/../admin/status", b"/docs/../admin/status", b"/healthz/%2e%2e/admin/status",
        b"/admin%2fstatus", b"/admin/status;", b"/%2fadmin/status", b"/admin/status/..%2fstatus", b"/v1/models/vault",
        b"/readyz?model=vault", b"/readyz?model=chat&model=vault", b"/metrics", b"/stats", b"/-/nothing",
        b"/api/serve/applications/",
    ]  # fmt: skip
