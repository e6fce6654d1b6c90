"""Answer: at most one HTTP answer, with the headers that every answer has."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

from serve_app.answerer import Answerer
from serve_app.call import SKIPPED_HEADER, Reply
from serve_app.errors import Headers, PlatformError
from serve_app.rest.errors import STATUS, error_body, error_event, error_headers
from serve_app.rest.http import HeaderList, Send, send_bytes, send_chunks
from serve_app.rest.operation import JSON_TYPE, STREAM_TYPE

logger = logging.getLogger("ray.serve")

STREAM_HEADERS = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
COMMENT = b": keep-alive\n\n"
NOBODY = Answerer()
Body = bytes  # in the class, the name is a method's


class Answer:
    """Sends one answer; what is sent after it has begun can only be logged, or said in a stream of events.

    ``names_request`` is off where Serve puts ``x-request-id`` on the answer, so that it stands there once.
    """

    def __init__(self, send: Send, request_id: str, *, path: str = "", names_request: bool = True) -> None:
        self._send = send
        self._path = path
        self._names_request = names_request
        self._is_streaming = False
        self.headers: Headers = ()  # of whoever handles the request: what goes with its answer, an error's apart
        self.request_id = request_id
        self.answerer = NOBODY  # who answers, as far as it is known; set by whoever handles the request
        self.is_started = False
        self.status = 0  # what was answered

    async def json(self, document: object, *, status: int = 200, headers: Headers = ()) -> None:
        """Send a JSON document."""
        await self.bytes(json.dumps(document).encode(), content_type=JSON_TYPE, status=status, headers=headers)

    async def bytes(self, body: bytes, *, content_type: str, status: int = 200, headers: Headers = ()) -> None:
        """Send bytes."""
        await self._bytes(status, body, [(b"content-type", content_type.encode()), *_encoded((*headers, *self.headers))])

    async def error(self, error: PlatformError) -> None:
        """Send an error: as the last event of a stream that is kept alive, or to the log where an answer has begun."""
        if self._is_streaming:
            event = error_event(error, path=self._path, request_id=self.request_id)
            await self._send({"type": "http.response.body", "body": event})
        elif self.is_started:
            logger.error("request %s failed after its answer had begun: %s", self.request_id, error.message)
        else:
            body = error_body(error, path=self._path, request_id=self.request_id)
            await self._bytes(STATUS[error.kind], body, error_headers(error))

    async def reply(self, reply: Reply) -> None:
        """Send what the gateway answered."""
        is_named = self.answerer.variant is not None
        self.answerer = Answerer(reply.model, reply.variant, reply.pipeline_version, reply.adapter_version)
        headers = [(b"content-type", reply.content_type.encode()), *_encoded(reply.headers)]
        if reply.skipped:
            headers.append((SKIPPED_HEADER.encode(), ", ".join(reply.skipped).encode()))
        if self._is_streaming:
            await self._go_on(reply, is_named=is_named)
        elif isinstance(reply.body, bytes):
            await self._bytes(200, reply.body, headers)
        else:
            try:
                await self._start(200, [*headers, *STREAM_HEADERS])
            except BaseException:
                await reply.body.aclose()
                raise
            await send_chunks(self._send, reply.body)

    async def begin_stream(self) -> None:
        """Begin a stream of events whose first one is still to come. Its headers name a variant only if that is certain."""
        self.answerer = replace(self.answerer, variant=self.answerer.told_variant, adapter_version=None)
        await self._start(200, [(b"content-type", STREAM_TYPE.encode()), *STREAM_HEADERS])
        self._is_streaming = True

    async def keep_alive(self) -> None:
        """Send a comment, which every reader of events skips, down a stream that has begun."""
        await self._send_comment(COMMENT)

    async def _send_comment(self, comment: Body) -> None:
        await self._send({"type": "http.response.body", "body": comment, "more_body": True})

    async def _go_on(self, reply: Reply, *, is_named: bool) -> None:
        self._is_streaming = False  # what fails from here on has been told by the stream itself, or cannot be
        if not is_named:
            try:
                await self._send_comment(f": x-manta-variant: {reply.variant}\n\n".encode())
            except BaseException:
                if not isinstance(reply.body, bytes):
                    await reply.body.aclose()
                raise
        if isinstance(reply.body, bytes):  # an engine that does not stream this endpoint
            await self._send({"type": "http.response.body", "body": b"data: " + reply.body + b"\n\n"})
        else:
            await send_chunks(self._send, reply.body)

    async def _bytes(self, status: int, body: Body, headers: HeaderList) -> None:
        self.is_started, self.status = True, status
        await send_bytes(self._send, status, body, headers=[*headers, *self._own_headers()])

    async def _start(self, status: int, headers: HeaderList) -> None:
        self.is_started, self.status = True, status
        await self._send({"type": "http.response.start", "status": status, "headers": [*headers, *self._own_headers()]})

    def _own_headers(self) -> HeaderList:
        """Return the headers that say what answered, and to which request."""
        answerer = self.answerer
        said = (
            ("x-request-id", self.request_id if self._names_request else None),
            ("x-manta-model", answerer.model),
            ("x-manta-variant", answerer.variant),
            ("x-manta-pipeline-version", answerer.pipeline_version),
            ("x-manta-adapter-version", answerer.adapter_version),
        )
        return [(name.encode(), value.encode()) for name, value in said if value is not None]


def _encoded(headers: Headers) -> HeaderList:
    return [(name.encode(), value.encode()) for name, value in headers]
