"""Inference: what a client may ask of the platform, the same behind REST and gRPC. Free of Ray and of web frameworks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serve_app import rag
from serve_app.config import ApiKeyConfig
from serve_app.contracts import EmbeddingFingerprint, Hit, SearchQuery
from serve_app.errors import BadRequest
from serve_app.gateway import Call, Gateway, Reply, require_text
from serve_app.model_cards import embedder_card, model_cards
from serve_app.view import RoutingView


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One vector per text, and how many tokens the texts had."""

    model: str
    vectors: Sequence[Sequence[float]]
    tokens: int


class Inference:
    """Each front parses, calls the method here, and encodes what comes back."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    @property
    def view(self) -> RoutingView:
        """What is served now."""
        return self.gateway.view

    def authenticate(self, authorization: str | None, x_api_key: str | None = None) -> ApiKeyConfig:
        """Return who calls. Raises Unauthenticated when keys are asked for and this is none of them."""
        return self.view.authenticate(authorization)

    async def answer(self, call: Call) -> Reply:
        """Return the answer of the model or pipeline that the body names.

        Raises:
            BadRequest: the body names nothing, asks for too many answers, or names an embedder.
            UnknownModel, Forbidden: the caller cannot use what it names.
            PlatformError: as ``Gateway.relay`` and ``rag.ask`` say.
        """
        name = model_of(call.body)
        view = self.view
        check_choices(call.body, most=view.document.limits.max_choices)
        view.authorize(call.caller, name)
        if name in view.embedders:
            raise BadRequest("this is an embedder; call it through /v1/embeddings", param="model")
        if (pipeline := view.pipelines.get(name)) is not None:
            return await rag.ask(self.gateway, call, pipeline)
        return await self.gateway.relay(call, view.models[name])

    async def embed(
        self, caller: ApiKeyConfig, model: str, texts: Sequence[str], *, dimensions: int | None = None
    ) -> Embeddings:
        """Return the vectors of an embedder.

        Raises:
            BadRequest: no text, an empty one, or another number of dimensions than the embedder has.
            UnknownModel, Forbidden: the caller cannot use it.
        """
        self.view.authorize(caller, model)
        texts = _texts(texts)
        if dimensions is not None:
            await self._check_dimensions(model, dimensions)
        vectors, tokens = await asyncio.gather(self.gateway.embed(model, texts), self.gateway.count_tokens(model, texts))
        return Embeddings(model, vectors, tokens)

    async def search(self, caller: ApiKeyConfig, query: SearchQuery) -> list[Hit]:
        """Return the best passages of a collection.

        Raises:
            BadRequest: an empty query.
            UnknownModel, Forbidden: the caller cannot use the embedder or the collection.
            EmptyCollection, EmbeddingMismatch, DeadlineExceeded: the collection cannot be searched.
        """
        self.view.authorize(caller, query.embedder)
        require_text(query.text, "query")
        return await self.gateway.stages.retriever.search(query)

    def models(self, caller: ApiKeyConfig) -> list[dict[str, Any]]:
        """Return a card for everything the caller may name as ``model``."""
        return model_cards(self.view, caller)

    async def model(self, caller: ApiKeyConfig, name: str) -> dict[str, Any]:
        """Return one card, an embedder's with what its vectors are. Raises UnknownModel, Forbidden."""
        self.view.authorize(caller, name)
        card = next(card for card in self.models(caller) if card["id"] == name)
        return embedder_card(card, await self.describe_embedder(name)) if name in self.view.embedders else card

    async def describe_embedder(self, name: str) -> EmbeddingFingerprint:
        """Return what an embedder's vectors are. Raises UnknownModel."""
        return await self.gateway.describe_embedder(name)

    def is_ready(self, model: str | None = None) -> bool:
        """Whether the model or pipeline, or anything if none is named, takes work. Raises UnknownModel."""
        return self.gateway.is_ready(model)

    async def _check_dimensions(self, model: str, dimensions: int) -> None:
        fingerprint = await self.gateway.describe_embedder(model)
        if dimensions != fingerprint.dimension:
            raise BadRequest(f"dimensions must be {fingerprint.dimension} or left out", param="dimensions")


def _texts(texts: Sequence[str]) -> list[str]:
    if not texts:
        raise BadRequest("input must be a non-empty string or a list of non-empty strings", param="input")
    return [require_text(text, "input") for text in texts]


def model_of(body: Mapping[str, Any]) -> str:
    """Return what the body asks for. Raises BadRequest when it names nothing."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest("model must name what is to answer; GET /v1/models lists it", param="model")
    return model


def check_choices(body: Mapping[str, Any], *, most: int) -> None:
    """Raise BadRequest when one request asks for so many answers that it would hold up everyone else's."""
    for param in ("n", "best_of"):
        count = body.get(param)
        if isinstance(count, int) and count > most:
            raise BadRequest(f"{param} must be at most {most} here, got {count}", param=param)
