"""A Kubernetes API on a loopback port: as much of it as Helm 4 needs to install, upgrade, roll back, test and uninstall.

Real: discovery, OpenAPI, server-side apply with strict validation against the CRDs and Kubernetes' own schemas, watches with
bookmarks, Secrets in protobuf. Not there: field ownership of several managers, webhooks, access rules, garbage collection.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import yaml

from tests.chart.cluster import admission, protobuf
from tests.chart.cluster.kinds import KINDS, ROOTS, Kind, discovery
from tests.chart.cluster.store import Event, Key, Store

Json = dict[str, Any]
LONGEST_WATCH_S = 300.0


class ApiServer:
    """The API on a free port. Use as a context manager."""

    def __init__(self) -> None:
        self.store = Store()
        self.logs: dict[Key, str] = {}  # of pods
        self.calls: list[str] = []
        handler = type("Handler", (_Handler,), {"api": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.is_closing = threading.Event()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> ApiServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_closing.set()
        self._server.shutdown()
        self._server.server_close()


class Refused(Exception):
    """A request that the API does not accept."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "code": code,
            "reason": reason,
            "message": message,
        }
        self.code = code


class _Handler(BaseHTTPRequestHandler):
    api: ClassVar[ApiServer]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._create)

    def do_PUT(self) -> None:
        self._answer(self._write)

    def do_PATCH(self) -> None:
        self._answer(self._write)

    def do_DELETE(self) -> None:
        self._answer(self._delete)

    def _answer(self, method: Any) -> None:
        url = urllib.parse.urlsplit(self.path)
        self.query = dict(urllib.parse.parse_qsl(url.query))
        self.api.calls.append(f"{self.command} {url.path}")
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        try:
            method(url.path, body)
        except Refused as err:
            self._send(err.status, code=err.code)

    def _send(self, body: Json, *, code: int = 200) -> None:
        self._send_bytes(json.dumps(body).encode(), "application/json", code=code)

    def _send_bytes(self, data: bytes, kind: str, *, code: int = 200) -> None:
        self.send_response(code)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _get(self, path: str, _: bytes) -> None:
        if (found := discovery(path)) is not None:
            self._send(found)
            return
        kind, namespace, name, rest = located(path)
        if rest == "log":
            self._send_bytes(self.api.logs.get(Key(kind, namespace, name), "").encode(), "text/plain")
        elif name:
            self._send(self._existing(Key(kind, namespace, name)))
        elif self.query.get("watch") in ("true", "1"):
            self._watch(kind, namespace)
        else:
            items = self.api.store.objects(kind, namespace, labels=labels(self.query))
            metadata = {"resourceVersion": str(self.api.store.version)}
            self._send({"kind": f"{kind.name}List", "apiVersion": kind.api, "metadata": metadata, "items": items})

    def _existing(self, key: Key) -> Json:
        found = self.api.store.get(key)
        if found is None:
            group = f".{key.kind.group}" if key.kind.group else ""
            raise Refused(404, "NotFound", f'{key.kind.plural}{group} "{key.name}" not found')
        return found

    def _create(self, path: str, data: bytes) -> None:
        kind, namespace, _, _ = located(path)
        body = parsed(data, kind)
        key = Key(kind, namespace, body["metadata"]["name"])
        if self.api.store.get(key) is not None:
            raise Refused(409, "AlreadyExists", f'{kind.plural} "{key.name}" already exists')
        self._keep(key, body, code=201)

    def _write(self, path: str, data: bytes) -> None:
        kind, namespace, name, _ = located(path)
        key = Key(kind, namespace, name)
        if self.command == "PATCH" and self.headers.get_content_type() != "application/apply-patch+yaml":
            raise Refused(415, "UnsupportedMediaType", "only server-side apply is known here")
        is_new = self.api.store.get(key) is None
        if is_new and self.command == "PUT":
            self._existing(key)
        self._keep(key, parsed(data, kind), code=201 if is_new else 200)

    def _keep(self, key: Key, body: Json, *, code: int) -> None:
        body["metadata"] = {**body["metadata"], **({"namespace": key.namespace} if key.namespace else {})}
        if why := admission.refusal(body):
            raise Refused(422, "Invalid", why)
        is_trial = "dryRun" in self.query
        self._send(body if is_trial else self.api.store.put(key, body), code=code)

    def _delete(self, path: str, _: bytes) -> None:
        kind, namespace, name = located(path)[:3]
        key = Key(kind, namespace, name)
        self._send(self.api.store.delete(key) or self._existing(key))

    def _watch(self, kind: Kind, namespace: str) -> None:
        """Stream what happens; a client that asks for initial events first gets what there is, and a bookmark."""
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        since = int(self.query.get("resourceVersion") or 0)
        try:
            if self.query.get("sendInitialEvents") == "true":
                since = self._initial(kind, namespace)
            self._follow(kind, namespace, since)
        except OSError:
            self.close_connection = True

    def _initial(self, kind: Kind, namespace: str) -> int:
        version = self.api.store.version
        for body in self.api.store.objects(kind, namespace, labels=labels(self.query)):
            if self._is_asked_for(body):
                self._chunk("ADDED", body)
        metadata = {"resourceVersion": str(version), "annotations": {"k8s.io/initial-events-end": "true"}}
        self._chunk("BOOKMARK", {"kind": kind.name, "apiVersion": kind.api, "metadata": metadata})
        return version

    def _follow(self, kind: Kind, namespace: str, since: int) -> None:
        ends_s = time.monotonic() + float(self.query.get("timeoutSeconds") or LONGEST_WATCH_S)
        while time.monotonic() < ends_s and not self.api.is_closing.is_set():
            for event in self.api.store.since(since):
                since = event.version
                if self._concerns(event, kind, namespace):
                    self._chunk(event.type, event.body)
        self.wfile.write(b"0\r\n\r\n")

    def _concerns(self, event: Event, kind: Kind, namespace: str) -> bool:
        return event.key.kind == kind and namespace in ("", event.key.namespace) and self._is_asked_for(event.body)

    def _is_asked_for(self, body: Json) -> bool:
        field, _, wanted = self.query.get("fieldSelector", "").partition("=")
        found = (body["metadata"].get("labels") or {}).items()
        return (field != "metadata.name" or body["metadata"]["name"] == wanted) and labels(self.query).items() <= found

    def _chunk(self, change: str, body: Json) -> None:
        data = json.dumps({"type": change, "object": body}).encode() + b"\n"
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()


def located(path: str) -> tuple[Kind, str, str, str]:
    """Return (kind, namespace, name, subresource) of a path. Raises Refused where there is nothing like it."""
    root = next((root for root in ROOTS if path.startswith(f"{root}/")), "")
    parts = path.removeprefix(f"{root}/").split("/")
    namespace = ""
    if len(parts) > 2 and parts[0] == "namespaces":
        namespace, parts = parts[1], parts[2:]
    kind = next((each for each in KINDS if each.root == root and each.plural == parts[0]), None)
    if kind is None:
        raise Refused(404, "NotFound", f"the server could not find the requested resource {path}")
    name, rest = [*parts[1:], "", ""][:2]
    return kind, namespace, name, rest


def labels(query: dict[str, str]) -> dict[str, str]:
    """Return the labels that a query asks for."""
    pairs = (part.partition("=") for part in query.get("labelSelector", "").split(",") if "=" in part)
    return {key: value for key, _, value in pairs}


def parsed(data: bytes, kind: Kind) -> Json:
    """Return the object that a request sends."""
    if data.startswith(protobuf.MAGIC):
        return protobuf.secret(data)
    found: Json = yaml.load(data, yaml.CSafeLoader)
    return {"apiVersion": kind.api, "kind": kind.name, **found}
