"""The RAG chain: find passages for a question, let the pipeline's model answer over them, add the citations."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from serve_app.config_pipelines import PipelineConfig, PipelineVersionConfig
from serve_app.contracts import Hit
from serve_app.errors import BadRequest, NoPassages, UnknownCollection, UnknownModel
from serve_app.gateway import Call, Gateway, Reply
from serve_app.rag.chat import ChatForm, CompletionsForm
from serve_app.rag.citations import Citations
from serve_app.rag.cited import Findings, cited
from serve_app.rag.condense import search_query
from serve_app.rag.inner import inner_call
from serve_app.rag.messages import MessagesForm
from serve_app.rag.observed import observed
from serve_app.rag.overrides import SearchPlan, search_plan, wished_collection, without_retrieval
from serve_app.rag.refusals import refused
from serve_app.rag.responses import ResponsesForm
from serve_app.rag.retrieval import RETRIEVAL, retrieve
from serve_app.rag.wire import WireForm
from serve_app.view import Prompt

STORE_PREFIX = "vs_"  # of a vector store's identifier

FORMS: Mapping[str, WireForm] = MappingProxyType(
    {
        "/v1/chat/completions": ChatForm(),
        "/v1/responses": ResponsesForm(),
        "/v1/messages": MessagesForm(),
        "/v1/completions": CompletionsForm(),
    }
)


async def ask(gateway: Gateway, call: Call, pipeline: PipelineConfig, *, clock: Callable[[], float] = time.time) -> Reply:
    """Return the answer of the pipeline's model over passages that were found for the question, with ``citations``.

    Raises:
        BadRequest: the endpoint is none of a pipeline's, the request has no question, or its ``retrieval`` is wrong.
        Forbidden: the caller's key does not cover the collection.
        EmptyCollection, NoPassages: nothing was found, and the pipeline says that this is an error.
        EmbeddingMismatch, DeadlineExceeded, Unavailable: the collection cannot be searched, or not in time.
        PlatformError: what ``Gateway.relay`` raises.
    """
    form = _form(call.path, pipeline.name)
    # The conversation's affinity is that of the request as sent: version and variant are chosen by the same key.
    version, prompt = gateway.view.version(pipeline, call.affinity)
    call.answerer.pipeline_version = version.name
    attempts = gateway.attempts
    is_stream = call.body.get("stream") is True
    attempt = attempts.begin((pipeline.name, version.name), began_s=attempts.clock(), is_stream=is_stream)
    work = _answer(gateway, call, _Asked(pipeline, version, prompt, form), created=int(clock()))
    return await observed(attempt, work, is_own_collection=wished_collection(call.body) in (None, version.collection))


@dataclasses.dataclass(frozen=True, slots=True)
class _Asked:
    """What a question was put to."""

    pipeline: PipelineConfig
    version: PipelineVersionConfig
    prompt: Prompt
    form: WireForm


async def _answer(gateway: Gateway, call: Call, to: _Asked, *, created: int) -> Reply:
    pipeline, version, prompt, form = to.pipeline, to.version, to.prompt, to.form
    plan = await _plan(gateway, call, version)
    asked = form.read(without_retrieval(call.body))
    query = await search_query(gateway, call, version=version, prompt=prompt, asked=asked)
    record = call.record
    found = await retrieve(gateway, call, version, query=query, plan=plan)
    record.passages = None if found.skipped else len(found.hits)
    if not found.hits and not found.skipped and version.no_passages == "error":
        raise NoPassages(plan.collection)
    if not found.hits and not found.skipped and version.no_passages == "refuse":
        findings = Findings(pipeline.name, query, plan, Citations((), ""))
        return refused(call, form, version=version, findings=findings, created=created)
    # Templates are the operator's and may be slow, passages may be long; other callers' streams go on meanwhile.
    with record.stage("prompt"):
        text, citations = await asyncio.to_thread(_prepared, prompt, asked.question, found.hits)
    callee = gateway.view.callee(version.model)
    if callee is None:  # gone while the passages were searched
        raise UnknownModel(pipeline.name)
    inner = inner_call(call, {**asked.put(text), "model": version.model}, variant=version.variant)
    reply = await gateway.relay(inner, *callee)
    body = cited(reply.body, form, Findings(pipeline.name, query, plan, citations, found.skipped))
    skipped = (RETRIEVAL,) if found.skipped else ()
    return dataclasses.replace(reply, body=body, pipeline_version=version.name, skipped=skipped)


def _form(path: str, pipeline: str) -> WireForm:
    form = FORMS.get(path.partition("?")[0])
    if form is None:
        raise BadRequest(f"pipeline {pipeline!r} is called through one of: {', '.join(FORMS)}", param="model")
    return form


async def _plan(gateway: Gateway, call: Call, version: PipelineVersionConfig) -> SearchPlan:
    view, wished = gateway.view, wished_collection(call.body)
    own_store = wished if await _is_own_store(gateway, call, version, wished=wished) else None
    return search_plan(call.body, version, lambda collection: view.may_search(call.caller, collection), own_store=own_store)


async def _is_own_store(gateway: Gateway, call: Call, version: PipelineVersionConfig, *, wished: str | None) -> bool:
    """Whether a store of the caller's tenant is named that the version is open to. Raises UnknownCollection for another's."""
    stores, documents = gateway.view.document.vector_stores, gateway.stages.documents
    may_choose = version.overrides.vector_stores and stores is not None and stores.embedder == version.embedder
    if wished is None or wished in version.collections or not may_choose or documents is None:
        return False
    if await documents.owns(call.caller.tenant_name, wished):
        return True
    if wished.startswith(STORE_PREFIX):
        raise UnknownCollection(wished)
    return False


def _prepared(prompt: Prompt, question: str, hits: Sequence[Hit]) -> tuple[str, Citations]:
    return prompt.render(question, hits), Citations(hits, question)
