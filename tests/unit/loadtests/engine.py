"""A platform in a thread, for tests that run the whole instrument: two variants, one of which may be bad."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

PIECE = b'data: {"choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'


class _Handler(BaseHTTPRequestHandler):
    canary_fails = False
    asked = 0
    status = 200
    published: ClassVar[list[Any]] = []  # results of load tests
    takes_results = True

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._answer(self.status, {"data": [{"id": "chat"}]})
        elif self.path == "/admin/status":
            replicas = {"ready": 1}
            variants = [
                {"name": name, "weight": weight, "queue_depth": 0, "running": 1, "replicas": replicas, "revision": name}
                for name, weight in (("stable", 50), ("canary", 50))
            ]
            models = [{"name": "chat", "variants": variants, "adapters": []}]
            traffic = {"version": 3, "digest": "d"}
            self._answer(200, {"waiting_in_router": 0, "models": models, "pipelines": [], "traffic": traffic})
        else:
            self._answer(404, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path.startswith("/admin/load-tests/"):
            self._take(body)
            return
        _Handler.asked += 1
        is_canary = _Handler.asked % 2 == 0
        if is_canary and self.canary_fails:
            self._answer(500, {"error": {"message": "the canary is bad"}}, variant="canary")
            return
        self.send_response(200)
        self._head("text/event-stream", "canary" if is_canary else "stable")
        self.end_headers()
        for _ in range(body["max_tokens"]):
            self.wfile.write(PIECE)
        self.wfile.write(b"data: [DONE]\n\n")

    def _take(self, result: dict[str, Any]) -> None:
        if self.takes_results:
            self.published.append(result)
        self._answer(200 if self.takes_results else 409, {} if self.takes_results else {"error": {"message": "a later run"}})

    def _answer(self, status: int, document: dict[str, Any], *, variant: str = "stable") -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self._head("application/json", variant)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _head(self, kind: str, variant: str) -> None:
        self.send_header("content-type", kind)
        self.send_header("x-manta-model", "chat")
        self.send_header("x-manta-variant", variant)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def platform(*, canary_fails: bool = False, status: int = 200, published: list[Any] | None = None) -> Iterator[str]:
    """Run one; yields its URL. It takes results of load tests into ``published``, and none without."""
    results = {"published": published, "takes_results": published is not None}
    handler = type("Handler", (_Handler,), {"canary_fails": canary_fails, "status": status, **results})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
