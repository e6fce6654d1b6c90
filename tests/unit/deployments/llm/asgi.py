"""One request to an ASGI app, driven by hand."""

from __future__ import annotations

import asyncio
from typing import Any

from deployments.llm.engine import AsgiApp


class Exchange:
    """A request, and what was sent in answer to it."""

    def __init__(
        self,
        body: bytes = b"{}",
        *,
        path: str = "/v1/chat/completions",
        token: str | None = None,
        method: str = "POST",
        size: bytes | None = None,
    ) -> None:
        headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
        headers += [(b"content-length", size)] if size is not None else []
        self.scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": headers,
            "http_version": "1.1",
            "scheme": "http",
            "server": None,
            "client": None,
            "root_path": "",
        }
        self._body: bytes | None = body
        self.leaves = asyncio.Event()
        self.sent: list[Any] = []

    async def receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def run(self, app: AsgiApp) -> Exchange:
        await app(self.scope, self.receive, self.send)
        return self

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(m.get("body", b"") for m in self.sent[1:])
