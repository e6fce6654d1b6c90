"""The REST front: plain ASGI. It parses, calls the gateway, encodes."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

from serve_app import rag
from serve_app.errors import BadRequest, PlatformError, Unavailable, UnknownRoute
from serve_app.gateway import Call, Gateway, Reply
from serve_app.rest.errors import STATUS, error_body, error_headers
from serve_app.rest.http import (
    ClientGone,
    Receive,
    Scope,
    Send,
    answer_lifespan,
    header,
    parse_object,
    read_body,
    send_bytes,
    send_stream,
    while_connected,
)
from serve_app.rest.openai import embedder_card, embeddings_body, model_cards, parse_embeddings

logger = logging.getLogger("ray.serve")

JSON = (b"content-type", b"application/json")
REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
# No dot segments and no escaped `?`: a replica's other paths are nobody's business.
RELAYED_PATH = re.compile(r"/v1(/[A-Za-z0-9_-][A-Za-z0-9_.:-]*)+")
# vLLM's management of adapters, which it opens when an operator sets an environment variable.
NOT_RELAYED = frozenset({"/v1/load_lora_adapter", "/v1/unload_lora_adapter"})
StatusReport = Callable[[], Any]


class RestApp:
    """ASGI application over a gateway."""

    def __init__(self, gateway: Gateway, *, report: StatusReport | None = None) -> None:
        self._gateway = gateway
        self._report = report
        self._get = {
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/v1/models": self._models,
            "/admin/status": self._status,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        request_id = request_id_for(header(scope, b"x-request-id"))
        answer = _Answer(send, request_id)
        try:
            await self._route(scope, receive, answer)
        except ClientGone:
            return
        except PlatformError as err:
            await answer.error(err)
        except Exception:
            logger.exception("request %s failed", request_id)
            await answer.error(PlatformError("internal error; quote the request id when you report it"))

    async def _route(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        method, path = scope["method"], scope["path"]
        is_get = method in ("GET", "HEAD")  # servers leave the body of a HEAD's answer out
        if is_get and path in self._get:
            await self._get[path](scope, answer)
        elif is_get and path.startswith("/v1/models/"):
            await self._model(scope, answer, path.removeprefix("/v1/models/"))
        elif method == "POST" and is_relayed(path):
            await self._post(scope, receive, answer)
        else:
            raise UnknownRoute(f"unknown request URL: {method} {path[:200]}")

    async def _healthz(self, _: Scope, answer: _Answer) -> None:
        await answer.json({"status": "ok"})

    async def _readyz(self, scope: Scope, answer: _Answer) -> None:
        model = parse_qs(scope["query_string"].decode("latin-1")).get("model", [None])[0]
        if not self._gateway.is_ready(model):
            raise Unavailable(f"no replica of {model or 'any model'} is ready yet", retry_after_s=5)
        await answer.json({"status": "ready"})

    async def _models(self, scope: Scope, answer: _Answer) -> None:
        view = self._gateway.view
        caller = view.authenticate(header(scope, b"authorization"))
        await answer.json({"object": "list", "data": model_cards(view, caller)})

    async def _model(self, scope: Scope, answer: _Answer, name: str) -> None:
        view = self._gateway.view
        caller = view.authenticate(header(scope, b"authorization"))
        view.authorize(caller, name)
        card = next(c for c in model_cards(view, caller) if c["id"] == name)
        if name in view.embedders:
            card = embedder_card(card, await self._gateway.describe_embedder(name))
        await answer.json(card)

    async def _status(self, scope: Scope, answer: _Answer) -> None:
        view = self._gateway.view
        view.authorize_admin(view.authenticate(header(scope, b"authorization")))
        if self._report is None:
            raise UnknownRoute("this Router reports no status")
        await answer.json(await self._report())

    async def _post(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        view = self._gateway.view
        caller = view.authenticate(header(scope, b"authorization"))
        raw = await read_body(scope, receive, limit_bytes=view.document.limits.max_body_bytes)
        body = parse_object(raw)
        model = model_of(body)
        check_choices(body, most=view.document.limits.max_choices)
        query = scope["query_string"].decode("latin-1")
        path = scope["path"] + (f"?{query}" if query else "")
        session_id = header(scope, b"x-session-id")
        call = Call(path, body, raw, caller, answer.request_id, session_id)
        await while_connected(receive, self._dispatch(call, model, answer))

    async def _dispatch(self, call: Call, model: str, answer: _Answer) -> None:
        view = self._gateway.view
        view.authorize(call.caller, model)  # by the view of now: the body may have taken a while
        if model in view.pipelines:
            await answer.reply(await rag.ask(self._gateway, call, view.pipelines[model]))
        elif model in view.embedders:
            await self._embed(call, answer)
        else:
            await answer.reply(await self._gateway.relay(call, view.models[model]))

    async def _embed(self, call: Call, answer: _Answer) -> None:
        if call.path.partition("?")[0] != "/v1/embeddings":
            raise BadRequest("this is an embedder; call it through /v1/embeddings", param="model")
        request = parse_embeddings(dict(call.body))
        if request.dimensions is not None:
            fingerprint = await self._gateway.describe_embedder(request.model)
            if request.dimensions != fingerprint.dimension:
                raise BadRequest(f"dimensions must be {fingerprint.dimension} or left out", param="dimensions")
        vectors, tokens = await asyncio.gather(
            self._gateway.embed(request.model, request.texts), self._gateway.count_tokens(request.model, request.texts)
        )
        await answer.json(embeddings_body(request, vectors, tokens))


class _Answer:
    """Sends at most one answer, with the headers that every answer has."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self._is_started = False

    async def json(self, document: object) -> None:
        """Send a JSON document."""
        await self._bytes(200, json.dumps(document).encode(), [JSON])

    async def error(self, error: PlatformError) -> None:
        """Send an error; when the answer has begun already, only the log can tell."""
        if self._is_started:
            logger.error("request %s failed after its answer had begun: %s", self.request_id, error.message)
            return
        await self._bytes(STATUS[error.kind], error_body(error), error_headers(error))

    async def reply(self, reply: Reply) -> None:
        """Send what the gateway answered."""
        headers = [
            (b"content-type", reply.content_type.encode()),
            (b"x-manta-model", reply.model.encode()),
            (b"x-manta-variant", reply.variant.encode()),
        ]
        if reply.pipeline_version is not None:
            headers.append((b"x-manta-pipeline-version", reply.pipeline_version.encode()))
        self._is_started = True
        if isinstance(reply.body, bytes):
            await send_bytes(self._send, 200, reply.body, headers=headers)
        else:
            headers += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
            await send_stream(self._send, reply.body, headers)

    async def _bytes(self, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self._is_started = True
        await send_bytes(self._send, status, body, headers=headers)


def request_id_for(offered: str | None) -> str:
    """Return the client's id, or a new one: it goes into logs and headers, so only harmless ones are kept."""
    # Serve gives every request one and puts it on the answer.
    return offered if offered is not None and REQUEST_ID.fullmatch(offered) else uuid.uuid4().hex


def is_relayed(path: str) -> bool:
    """Whether a POST to the path goes to a model."""
    return RELAYED_PATH.fullmatch(path) is not None and path not in NOT_RELAYED


def model_of(body: Mapping[str, Any]) -> str:
    """Return what the body asks for. Raises BadRequest when it names nothing."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest("model must name what is to answer; GET /v1/models lists it", param="model")
    return model


def check_choices(body: dict[str, Any], *, most: int) -> None:
    """Raise BadRequest when one request asks for so many answers that it would hold up everyone else's."""
    for param in ("n", "best_of"):
        count = body.get(param)
        if isinstance(count, int) and count > most:
            raise BadRequest(f"{param} must be at most {most} here, got {count}", param=param)
