"""An OTLP receiver on this machine: what comes by http/protobuf or gRPC is decoded by OpenTelemetry's own messages and kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)


@dataclass(frozen=True)
class ReceivedSpan:
    """One span as it came, with the process that sent it."""

    name: str
    component: str
    trace_id: str
    span_id: str
    parent_id: str
    is_error: bool
    attributes: dict[str, Any]
    resource: dict[str, Any]


@dataclass
class Receiver:
    """What has come so far. ``status`` is what HTTP requests are answered."""

    status: int = 200
    spans: list[ReceivedSpan] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    url: str = ""
    _news: threading.Condition = field(default_factory=threading.Condition)

    def take(self, request: Any, headers: dict[str, str], path: str) -> None:
        """Keep a request's spans."""
        with self._news:
            self.headers.append(headers)
            self.paths.append(path)
            if self.status == 200:
                self.spans += decoded(request)
            self._news.notify_all()

    def wait(self, count: int, *, timeout_s: float = 30.0) -> list[ReceivedSpan]:
        """Return all spans when there are at least so many, or as many as came in time."""
        with self._news:
            self._news.wait_for(lambda: len(self.spans) >= count, timeout_s)
            return list(self.spans)

    def wait_asked(self, count: int, *, timeout_s: float = 30.0) -> int:
        """Return how many requests came, when there are at least so many."""
        with self._news:
            self._news.wait_for(lambda: len(self.paths) >= count, timeout_s)
            return len(self.paths)


def decoded(request: Any) -> Iterator[ReceivedSpan]:
    """Yield the spans of an ExportTraceServiceRequest."""
    for group in request.resource_spans:
        resource = attributes_of(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                yield ReceivedSpan(
                    name=span.name,
                    component=str(resource.get("manta.component")),
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    is_error=span.status.code == 2,
                    attributes=attributes_of(span.attributes),
                    resource=resource,
                )


def attributes_of(pairs: Any) -> dict[str, Any]:
    """Return OTLP's attributes as plain values."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


@contextmanager
def http_receiver(receiver: Receiver | None = None) -> Iterator[Receiver]:
    """Receive by http/protobuf."""
    kept = receiver or Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            kept.take(ExportTraceServiceRequest.FromString(body), dict(self.headers.items()), self.path)
            self.send_response(kept.status)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    kept.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@contextmanager
def grpc_receiver() -> Iterator[Receiver]:
    """Receive by gRPC."""
    kept = Receiver()

    class Service(TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:
            kept.take(request, dict(context.invocation_metadata()), "Export")
            return ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    add_TraceServiceServicer_to_server(Service(), server)  # type: ignore[no-untyped-call]  # generated
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    kept.url = f"http://127.0.0.1:{port}"
    try:
        yield kept
    finally:
        server.stop(None).wait(10)
