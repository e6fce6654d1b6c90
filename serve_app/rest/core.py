"""Routes of the REST front that models, pipelines and embedders answer, and those of operators."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from serve_app.errors import Unavailable, UnknownRoute
from serve_app.gateway import Call
from serve_app.inference import Inference, model_of
from serve_app.rest.answer import Answer
from serve_app.rest.http import while_connected
from serve_app.rest.openai import embeddings_body, parse_embeddings
from serve_app.rest.request import Request
from serve_app.rest.routing import Route

EMBEDDINGS_PATH = "/v1/embeddings"
# Every endpoint of vLLM 0.29's app that names a model and computes with it. A closed set: its app has others (adapters,
# sleep, weights, profiles), which are nobody's business from outside.
RELAYED_PATHS = (
    "/v1/chat/completions",
    "/v1/chat/completions/batch",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    EMBEDDINGS_PATH,
    "/v1/score",
    "/v1/rerank",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v2/embed",
    "/v2/rerank",
    "/score",
    "/rerank",
    "/classify",
    "/pooling",
    "/tokenize",
    "/detokenize",
)
StatusReport = Callable[[], Awaitable[Any]]


class CoreRoutes:
    """Handlers over an Inference."""

    def __init__(self, inference: Inference, *, report: StatusReport | None = None) -> None:
        self._inference = inference
        self._report = report

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("GET", "/healthz", self._healthz, is_open=True),
            Route("GET", "/readyz", self._readyz, is_open=True),
            Route("GET", "/v1/models", self._models),
            Route("GET", "/v1/models/{model}", self._model),
            Route("GET", "/admin/status", self._status),
            *(Route("POST", path, self._post) for path in RELAYED_PATHS),
        ]

    async def _healthz(self, _: Request, answer: Answer) -> None:
        await answer.json({"status": "ok"})

    async def _readyz(self, request: Request, answer: Answer) -> None:
        model = request.query().get("model")
        if not self._inference.is_ready(model):
            raise Unavailable(f"no replica of {model or 'any model'} is ready yet", retry_after_s=5)
        await answer.json({"status": "ready"})

    async def _models(self, request: Request, answer: Answer) -> None:
        await answer.json({"object": "list", "data": self._inference.models(request.caller)})

    async def _model(self, request: Request, answer: Answer) -> None:
        await answer.json(await self._inference.model(request.caller, request.params["model"]))

    async def _status(self, request: Request, answer: Answer) -> None:
        self._inference.view.authorize_admin(request.caller)
        if self._report is None:
            raise UnknownRoute("this Router reports no status")
        await answer.json(await self._report())

    async def _post(self, request: Request, answer: Answer) -> None:
        view = self._inference.view
        raw = await request.body(limit_bytes=view.document.limits.max_body_bytes)
        body = request.parse(raw)
        call = Call(
            path=request.target,
            body=body,
            raw=raw,
            caller=request.caller,
            request_id=request.request_id,
            session_id=request.header("x-session-id"),
        )
        is_for_embedder = request.path == EMBEDDINGS_PATH and model_of(body) in view.embedders
        work = self._embed(call, answer) if is_for_embedder else self._relay(call, answer)
        await while_connected(request.receive, work)

    async def _relay(self, call: Call, answer: Answer) -> None:
        await answer.reply(await self._inference.answer(call))

    async def _embed(self, call: Call, answer: Answer) -> None:
        request = parse_embeddings(dict(call.body))
        embeddings = await self._inference.embed(call.caller, request.model, request.texts, dimensions=request.dimensions)
        await answer.json(embeddings_body(request, embeddings))


def is_relayed(path: str) -> bool:
    """Whether a POST to the path goes to a model."""
    return path in RELAYED_PATHS
