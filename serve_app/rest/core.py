"""Routes of the REST front that models, pipelines and embedders answer, and those of operators."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from serve_app.answerer import Answerer
from serve_app.errors import Unavailable, UnknownRoute
from serve_app.gateway import Call
from serve_app.inference import Inference, model_of
from serve_app.rest.answer import Answer
from serve_app.rest.console import ConsoleRoutes
from serve_app.rest.http import while_connected
from serve_app.rest.keep_alive import KeepAlive
from serve_app.rest.openai import MODEL_CARD, anthropic_list, embeddings_body, parse_embeddings
from serve_app.rest.operation import JSON_TYPE, Operation
from serve_app.rest.relayed import RELAYED, RELAYED_PATHS, STREAMED_PATHS
from serve_app.rest.request import Request
from serve_app.rest.routing import Route

EMBEDDINGS_PATH = "/v1/embeddings"
EMBEDDER = "embedder"  # the variant that answers of embedders name: they have none
StatusReport = Callable[[], Awaitable[Any]]


_SAYS_STATUS = {"type": "object", "properties": {"status": {"type": "string"}}, "required": ["status"]}
HEALTHZ = Operation("Whether this Router runs", "operations", answers={JSON_TYPE: _SAYS_STATUS})
READYZ = Operation(
    "Whether a model or pipeline, or anything if none is named, takes work",
    "operations",
    "A probe needs no key, unless it names a model.",
    answers={JSON_TYPE: _SAYS_STATUS},
    query={"model": {"type": "string"}},
    errors=(401, 403, 404, 503),
)
MODELS = Operation(
    "List models, pipelines and embedders",
    "models",
    "To clients that send `anthropic-version` the list comes in Anthropic's form.",
    answers={JSON_TYPE: {"type": "object", "properties": {"data": {"type": "array", "items": MODEL_CARD}}}},
)
MODEL = Operation(
    "Show one model, pipeline or embedder", "models", answers={JSON_TYPE: MODEL_CARD}, errors=(403, 404, 503, 504)
)
STATUS = Operation("Show how the platform is doing", "operations", "For keys with `admin: true`.", errors=(403, 404))


class CoreRoutes:
    """Handlers over an Inference."""

    def __init__(self, inference: Inference, *, report: StatusReport | None = None) -> None:
        self._inference = inference
        self._report = report

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("GET", "/v1/models", self._models, operation=MODELS),
            Route("GET", "/v1/models/{model}", self._model, operation=MODEL),
            *(Route("POST", each.path, self._post, operation=each.operation) for each in RELAYED),
            Route("GET", "/healthz", self._healthz, is_open=True, operation=HEALTHZ),
            Route("GET", "/readyz", self._readyz, is_open=True, operation=READYZ),
            Route("GET", "/admin/status", self._status, operation=STATUS),
            *ConsoleRoutes(has_keys=lambda: self._inference.view.document.auth.is_on).routes(),
        ]

    async def _healthz(self, _: Request, answer: Answer) -> None:
        await answer.json({"status": "ok"})

    async def _readyz(self, request: Request, answer: Answer) -> None:
        model = request.query().get("model")
        if model is not None:  # what is deployed is told to callers only
            caller = self._inference.authenticate(*request.credentials())
            self._inference.view.authorize(caller, model)
        if not self._inference.is_ready(model):
            raise Unavailable(f"no replica of {model or 'any model'} is ready yet", retry_after_s=5)
        await answer.json({"status": "ready"})

    async def _models(self, request: Request, answer: Answer) -> None:
        cards = self._inference.models(request.caller)
        is_anthropic = request.header("anthropic-version") is not None
        await answer.json(anthropic_list(cards) if is_anthropic else {"object": "list", "data": cards})

    async def _model(self, request: Request, answer: Answer) -> None:
        await answer.json(await self._inference.model(request.caller, request.params["model"]))

    async def _status(self, request: Request, answer: Answer) -> None:
        self._inference.view.authorize_admin(request.caller)
        if self._report is None:
            raise UnknownRoute("this Router reports no status")
        await answer.json(await self._report())

    async def _post(self, request: Request, answer: Answer) -> None:
        raw = await request.body(limit_bytes=self._inference.view.document.limits.max_body_bytes)
        call = Call(
            path=request.target,
            body=request.parse_relayed(raw),
            raw=raw,
            caller=request.caller,
            request_id=request.request_id,
            session_id=request.header("x-session-id"),
            content_type=request.header("content-type") or JSON_TYPE,
            answerer=request.record.answerer,
            record=request.record,
        )
        await while_connected(request.receive, self._work(request, call, answer))

    def _work(self, request: Request, call: Call, answer: Answer) -> Coroutine[Any, Any, None]:
        view = self._inference.view
        if request.path == EMBEDDINGS_PATH and model_of(call.body) in view.embedders:
            return self._embed(request, call, answer)
        answer.answerer = call.answerer
        every_s = view.document.keep_alive_s
        if every_s and call.body.get("stream") is True and request.path in STREAMED_PATHS:
            return self._relay_alive(call, answer, every_s)
        return self._relay(call, answer)

    async def _relay(self, call: Call, answer: Answer) -> None:
        await answer.reply(await self._inference.answer(call))

    async def _relay_alive(self, call: Call, answer: Answer, every_s: float) -> None:
        alive = KeepAlive(answer, lambda: self._inference.settle(call), every_s=every_s)
        await answer.reply(await alive.wait(self._inference.answer(call)))

    async def _embed(self, asked: Request, call: Call, answer: Answer) -> None:
        asked.require_json()
        request = parse_embeddings(dict(call.body))
        answer.answerer = Answerer(request.model, EMBEDDER)
        embeddings = await self._inference.embed(
            call.caller,
            request.model,
            request.texts,
            dimensions=request.dimensions,
            may_cut=request.truncate_prompt_tokens is not None,
        )
        await answer.json(embeddings_body(request, embeddings), headers=embeddings.headers)


def is_relayed(path: str) -> bool:
    """Whether a POST to the path goes to a model."""
    return path in RELAYED_PATHS
