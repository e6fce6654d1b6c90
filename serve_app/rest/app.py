"""The REST front: plain ASGI. It parses, calls the core, encodes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from serve_app.deadline import TIMEOUT_HEADER, Deadline, deadline_from, wished_timeout
from serve_app.errors import PlatformError
from serve_app.inference import Inference
from serve_app.request_ids import request_id_for
from serve_app.rest.answer import Answer
from serve_app.rest.core import CoreRoutes, StatusReport
from serve_app.rest.cors import Cors
from serve_app.rest.docs import DocsRoutes
from serve_app.rest.http import ClientGone, Receive, Scope, Send, answer_lifespan, header
from serve_app.rest.request import Request
from serve_app.rest.routing import Route, RouteTable

logger = logging.getLogger("ray.serve")

# An open console asks for five of these every two seconds: what goes well with them is no news.
LOOKS = ("/admin/", "/metrics")


class RestApp:
    """ASGI application over an Inference; ``more`` are routes of other parts.

    ``names_requests`` is off behind Serve, which puts ``x-request-id`` on every answer itself.
    """

    def __init__(
        self,
        inference: Inference,
        *,
        report: StatusReport | None = None,
        more: Iterable[Route] = (),
        names_requests: bool = True,
    ) -> None:
        self._inference = inference
        self._names_requests = names_requests
        described = [*CoreRoutes(inference, report=report).routes(), *more]
        docs = DocsRoutes(described, has_keys=lambda: inference.view.document.auth.is_on)
        self.table = RouteTable([*described, *docs.routes()])
        self._cors = Cors(self._serve_http)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
        elif scope["type"] == "http":
            if origins := self._inference.view.document.cors_origins:
                await self._cors.app(origins)(scope, receive, send)
            else:
                await self._serve_http(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # before it is accepted: 403

    async def _serve_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        recorder = self._inference.recorder
        request_id = request_id_for(header(scope, b"x-request-id"))
        parent, state = header(scope, b"traceparent"), header(scope, b"tracestate")
        record = recorder.begin("rest", request_id=request_id, traceparent=parent, tracestate=state)
        request = Request(scope, receive, record=record)
        answer = Answer(send, request_id, path=request.path, names_request=self._names_requests)
        try:
            await self._serve(request, answer)
        finally:
            record.status = answer.status
            recorder.end(record)

    async def _serve(self, request: Request, answer: Answer) -> None:
        record = request.record
        try:
            await self._handle(request, answer)
        except (ClientGone, asyncio.CancelledError) as gone:
            record.leave()
            if not isinstance(gone, ClientGone):
                raise
        except PlatformError as err:
            record.fail(err)
            await answer.error(err)
        except Exception:
            logger.exception("request %s failed", request.request_id)
            internal = PlatformError("internal error; quote the request id when you report it")
            record.fail(internal)
            await answer.error(internal)

    async def _handle(self, request: Request, answer: Answer) -> None:
        route, params = self.table.match(request.method, request.path)
        request.params = params
        request.record.endpoint, request.record.method = route.template, request.method
        request.record.is_counted = not route.is_open
        if not route.is_open:
            request.caller = self._inference.authenticate(*request.credentials())
            request.record.deadline = self._deadline(request)
        await route.handle(request, answer)
        if request.method in ("GET", "HEAD") and route.template.startswith(LOOKS):
            request.record.is_counted = False

    def _deadline(self, request: Request) -> Deadline:
        """Return until when the request may take. Raises BadRequest when its header says nothing that can be read."""
        wished_s = wished_timeout(request.header(TIMEOUT_HEADER))
        own_s = self._inference.view.document.limits.deadline_s
        return deadline_from(request.record.began_s, own_s, wished_s, clock=request.record.clock)
