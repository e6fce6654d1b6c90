"""Inference: what a client may ask of the platform, the same behind REST and gRPC. Free of Ray and of web frameworks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from serve_app import rag
from serve_app.config import ApiKeyConfig
from serve_app.contracts import SEARCH_BUDGET_S, EmbeddingFingerprint, Hit, SearchQuery
from serve_app.deadline import in_time
from serve_app.deadlined import deadlined
from serve_app.errors import BadRequest, Forbidden, Headers, UnknownCollection, UnknownModel
from serve_app.filters import Filter
from serve_app.gateway import Call, Gateway, Reply, require_text
from serve_app.limits.permit import UNLIMITED, Admission, Permit
from serve_app.limits.permitted import PermittedStream, Unlimited
from serve_app.model_cards import embedder_card, model_cards
from serve_app.observing.record import RequestRecord, current_record
from serve_app.observing.recorder import Recorder
from serve_app.usage import Usage
from serve_app.view import RoutingView

MOST_PASSAGES = 100


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One vector per text, and how many tokens the texts had."""

    model: str
    vectors: Sequence[Sequence[float]]
    tokens: int
    headers: Headers = ()  # what the caller's limits still allow


class Inference:
    """Each front parses, calls the method here, and encodes what comes back."""

    def __init__(self, gateway: Gateway, *, admission: Admission | None = None, recorder: Recorder | None = None) -> None:
        self.gateway = gateway
        self.recorder = recorder or Recorder()
        self._admission = admission or Unlimited()

    @property
    def view(self) -> RoutingView:
        """What is served now."""
        return self.gateway.view

    def authenticate(self, authorization: str | None, x_api_key: str | None = None) -> ApiKeyConfig:
        """Return who calls. Raises Unauthenticated when keys are asked for and this is none of them."""
        record = current_record()
        with record.stage("authenticate"):
            caller = self.view.authenticate(authorization, x_api_key)
        record.tenant, record.key = caller.tenant_name, caller.name
        return caller

    async def answer(self, call: Call) -> Reply:
        """Return the answer of the model, adapter or pipeline that the body names.

        Raises:
            BadRequest: the body names nothing, asks for too many answers, or names an embedder.
            UnknownModel, Forbidden: the caller cannot use what it names.
            RateLimited: a limit of the caller's key is reached.
            DeadlineExceeded: the call's deadline passed before the answer began.
            PlatformError: as ``Gateway.relay`` and ``rag.ask`` say.
        """
        return deadlined(await in_time(self._replied(call), call.deadline, stages=call.record), call)

    async def _replied(self, call: Call) -> Reply:
        name = model_of(call.body)
        view = self.view
        check_choices(call.body, most=view.document.limits.max_choices)
        view.authorize(call.caller, name)
        call.record.asked = name
        self._keep(call.record, call.body)
        if name in view.embedders:
            raise BadRequest("this is an embedder; call it through /v1/embeddings", param="model")
        if name in view.models or name in view.adapters:
            call.answerer.model = name
        permit = await self._admit(call.caller)
        if permit is UNLIMITED:
            return await self._answer(call, name)
        return await _within(permit, self._answer(replace(call, permit=permit), name))

    def _keep(self, record: RequestRecord, body: Mapping[str, Any]) -> None:
        """Let the log have what is asked, if that is configured; else nobody who looks on ever sees it."""
        if self.view.document.logs.prompts:
            record.body = body

    async def _admit(self, caller: ApiKeyConfig) -> Permit:
        with current_record().stage("admit"):
            return await self._admission.admit(caller)

    async def _answer(self, call: Call, name: str) -> Reply:
        view = self.view  # of now: admission may have taken a while
        if (pipeline := view.pipelines.get(name)) is not None:
            return await rag.ask(self.gateway, call, pipeline)
        if (callee := view.callee(name)) is None:
            raise UnknownModel(name)
        return await self.gateway.relay(call, *callee)

    def settle(self, call: Call) -> bool:
        """Fix who answers a call that has not been answered yet, so that its client can be told.

        It is the variant whose replica has the request already, else the one that owns the conversation; where another
        may stand in for it, the variant stays open. Returns False while nobody can be named: what the call is for has
        gone, and whoever works on it will say so.
        """
        view, answerer = self.view, call.answerer
        name: str | None = model_of(call.body)
        pinned = call.variant
        if (pipeline := view.pipelines.get(str(name))) is not None:
            chosen = answerer.pipeline_version or view.version(pipeline, call.affinity)[0].name
            version = next((v for v in pipeline.versions if v.name == chosen), None)
            name, pinned = (version.model, version.variant) if version is not None else (None, None)
            answerer.pipeline_version = chosen
        called = answerer.model or str(name)
        if (callee := view.callee(called)) is None:
            return False
        model = callee.model
        if not answerer.is_taken:
            answerer.variant = pinned or view.variant(model, call.affinity)
        if pinned is not None or len(model.variants) == 1 or not model.fallback:
            answerer.told_variant = answerer.variant
        answerer.model = called
        return True

    async def embed(
        self, caller: ApiKeyConfig, model: str, texts: Sequence[str], *, dimensions: int | None = None, may_cut: bool = False
    ) -> Embeddings:
        """Return the vectors of an embedder; where it ``may_cut``, of a long text's beginning.

        Raises:
            BadRequest: no text, an empty one, one that is too long, or another number of dimensions than the embedder has.
            UnknownModel, Forbidden: the caller cannot use it.
            DeadlineExceeded: the request's deadline passed.
        """
        record = current_record()
        work = self._embed(caller, model, texts, dimensions=dimensions, may_cut=may_cut)
        return await in_time(work, record.deadline, stages=record)

    async def _embed(
        self, caller: ApiKeyConfig, model: str, texts: Sequence[str], *, dimensions: int | None, may_cut: bool
    ) -> Embeddings:
        self.view.authorize(caller, model)
        record = current_record()
        record.asked = model
        texts = _texts(texts)
        self._keep(record, {"input": texts})
        if dimensions is not None:
            await self._check_dimensions(model, dimensions)
        permit = await self._admit(caller)
        try:
            with record.stage("embed"):
                vectors, tokens = await self._embedded(model, texts, must_fit=not may_cut)
        finally:
            permit.release()
        permit.charge(tokens)
        record.usage = Usage(tokens, 0)
        return Embeddings(model, vectors, tokens, permit.headers)

    async def _embedded(self, model: str, texts: list[str], *, must_fit: bool) -> tuple[list[list[float]], int]:
        """Return vectors and tokens; a text that is refused ends the work on all."""
        budget_s = current_record().deadline.left_or_none()
        try:
            async with asyncio.TaskGroup() as both:
                vectors = both.create_task(self.gateway.embed(model, texts, budget_s=budget_s))
                tokens = both.create_task(self.gateway.count_tokens(model, texts, must_fit=must_fit))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        return vectors.result(), tokens.result()

    async def search(
        self, caller: ApiKeyConfig, *, collection: str, query: str, top_k: int, filters: Filter | None = None
    ) -> list[Hit]:
        """Return the best passages of a pipeline's collection or of a vector store of the caller's tenant.

        Raises:
            BadRequest: an empty query, or a number of passages out of bounds.
            UnknownCollection, Forbidden: there is none of that name for this caller.
            EmptyCollection, EmbeddingMismatch, DeadlineExceeded: it cannot be searched.
        """
        record = current_record()
        work = self._search(caller, collection=collection, query=query, top_k=top_k, filters=filters)
        return await in_time(work, record.deadline, stages=record)

    async def _search(
        self, caller: ApiKeyConfig, *, collection: str, query: str, top_k: int, filters: Filter | None
    ) -> list[Hit]:
        require_text(query, "query")
        if not 1 <= top_k <= MOST_PASSAGES:
            raise BadRequest(f"top_k must be between 1 and {MOST_PASSAGES}, got {top_k}", param="top_k")
        embedder = await self._embedder_of(caller, collection)
        self._keep(current_record(), {"query": query})
        permit = await self._admit(caller)
        try:
            with current_record().stage("retrieve"):
                budget_s = current_record().deadline.bound(SEARCH_BUDGET_S)
                wanted = SearchQuery(collection, embedder, query, top_k, budget_s=budget_s, filters=filters)
                return await self.gateway.stages.retriever.search(wanted)
        finally:
            permit.release()

    @contextlib.asynccontextmanager
    async def admitted(self, caller: ApiKeyConfig) -> AsyncIterator[Headers]:
        """Hold a permit while something works that is no model, and say what the limits still allow. Raises RateLimited."""
        permit = await self._admit(caller)
        try:
            yield permit.headers
        finally:
            permit.release()

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
        """Whether the model, adapter or pipeline, or anything if none is named, takes work. Raises UnknownModel."""
        return self.gateway.is_ready(model)

    async def _embedder_of(self, caller: ApiKeyConfig, collection: str) -> str:
        """Return the embedder that a collection is searched with, if the caller may search it."""
        bound = (v for p in self.view.pipelines.values() for v in p.versions if collection in v.collections)
        if (version := next(bound, None)) is not None:
            embedder = version.embedder
        elif (stores := self.view.document.vector_stores) is not None and await self._owns(caller, collection):
            embedder = stores.embedder
        else:
            raise UnknownCollection(collection)
        if not self.view.may_search(caller, collection):
            raise Forbidden(f"this API key may not search collection {collection!r}", param="collection")
        return embedder

    async def _owns(self, caller: ApiKeyConfig, store_id: str) -> bool:
        documents = self.gateway.stages.documents
        return documents is not None and await documents.owns(caller.tenant_name, store_id)

    async def _check_dimensions(self, model: str, dimensions: int) -> None:
        fingerprint = await self.gateway.describe_embedder(model)
        if dimensions != fingerprint.dimension:
            raise BadRequest(f"dimensions must be {fingerprint.dimension} or left out", param="dimensions")


async def _within(permit: Permit, work: Awaitable[Reply]) -> Reply:
    """Return the reply; the permit is given back when the answer has ended, however it does."""
    try:
        reply = await work
    except BaseException:
        permit.release()
        raise
    if isinstance(reply.body, bytes):
        permit.release()
        return replace(reply, headers=permit.headers)
    return replace(reply, body=PermittedStream(reply.body, permit), headers=permit.headers)


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
