"""Servers that answer as they are told, on gevent, in the test's own thread; nothing is patched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
from gevent import socket
from gevent.server import StreamServer

Script = Callable[[Any, bytes], None]  # takes the connection and a request's bytes


def answered(body: bytes, *, status: str = "200 OK", headers: str = "content-type: application/json\r\n") -> bytes:
    """Return a whole answer."""
    return f"HTTP/1.1 {status}\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body


def streamed(*events: bytes, headers: str = "", is_whole: bool = True) -> list[bytes]:
    """Return a chunked stream of events, piece by piece."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{headers}transfer-encoding: chunked\r\n\r\n".encode()
    return [head, *(f"{len(each):x}\r\n".encode() + each + b"\r\n" for each in events), *([b"0\r\n\r\n"] if is_whole else [])]


def content(text: str) -> bytes:
    """Return an event with a piece of text."""
    return f'data: {{"choices":[{{"index":0,"delta":{{"content":"{text}"}}}}]}}\n\n'.encode()


DONE = b"data: [DONE]\n\n"
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}\n\n'


@contextmanager
def serving(script: Script, **tls: Any) -> Iterator[str]:
    """Run a server; yields its URL. The script is called with each request, headers and body."""

    def handle(sock: Any, _: Any) -> None:
        with sock:
            while request := _request(sock):
                try:
                    script(sock, request)
                except _Leave:
                    return

    server = StreamServer(("127.0.0.1", 0), handle, **tls)
    server.start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"
    finally:
        server.stop(timeout=0)


class _Leave(Exception):
    pass


def leave(*_: Any) -> None:
    """Close the connection; a script."""
    raise _Leave


def sending(*pieces: bytes, every_s: float = 0.0) -> Script:
    """Return a script that sends the same to everyone."""

    def script(sock: Any, _: bytes) -> None:
        for piece in pieces:
            sock.sendall(piece)
            gevent.sleep(every_s)

    return script


def _request(sock: Any) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        try:
            piece = sock.recv(65536)
        except OSError:
            return b""
        if not piece:
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    size = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), 0)
    while len(body) < size:
        body += sock.recv(65536)
    return head + b"\r\n\r\n" + body


def closed_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
