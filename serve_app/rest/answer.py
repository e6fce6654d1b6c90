"""Answer: at most one HTTP answer, with the headers that every answer has."""

from __future__ import annotations

import json
import logging

from serve_app.errors import PlatformError
from serve_app.gateway import Reply
from serve_app.rest.errors import STATUS, error_body, error_headers
from serve_app.rest.http import Send, send_bytes, send_stream

logger = logging.getLogger("ray.serve")

JSON = (b"content-type", b"application/json")
STREAM_HEADERS = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


class Answer:
    """Sends one answer; what is sent after it has begun can only be logged."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self.is_started = False

    async def json(self, document: object, *, status: int = 200) -> None:
        """Send a JSON document."""
        await self.bytes(json.dumps(document).encode(), content_type="application/json", status=status)

    async def bytes(
        self, body: bytes, *, content_type: str, status: int = 200, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        """Send bytes."""
        more = [(name.encode(), value.encode()) for name, value in headers]
        await self._bytes(status, body, [(b"content-type", content_type.encode()), *more])

    async def error(self, error: PlatformError) -> None:
        """Send an error; when the answer has begun already, only the log can tell."""
        if self.is_started:
            logger.error("request %s failed after its answer had begun: %s", self.request_id, error.message)
            return
        await self._bytes(STATUS[error.kind], error_body(error), error_headers(error))

    async def reply(self, reply: Reply) -> None:
        """Send what the gateway answered."""
        headers = [(b"content-type", reply.content_type.encode()), *manta_headers(reply)]
        self.is_started = True
        if isinstance(reply.body, bytes):
            await send_bytes(self._send, 200, reply.body, headers=headers)
        else:
            await send_stream(self._send, reply.body, [*headers, *STREAM_HEADERS])

    async def _bytes(self, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self.is_started = True
        await send_bytes(self._send, status, body, headers=headers)


def manta_headers(reply: Reply) -> list[tuple[bytes, bytes]]:
    """Return the headers that say what answered, and what the caller's limits still allow."""
    said = [("x-manta-model", reply.model), ("x-manta-variant", reply.variant)]
    if reply.pipeline_version is not None:
        said.append(("x-manta-pipeline-version", reply.pipeline_version))
    return [(name.encode(), value.encode()) for name, value in (*said, *reply.headers)]
