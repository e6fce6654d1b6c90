"""Answers: from the JSON that engines and pipelines give to proto messages."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from google.protobuf.struct_pb2 import Struct

from serve_app.contracts import Hit
from serve_app.gateway import Reply
from serve_app.protos.manta.v1 import chat_pb2, common_pb2, inference_pb2
from serve_app.rpc.convert import ROLES
from serve_app.rpc.errors import error_of_event
from serve_app.sse import EventBuffer, event_document

Json = Mapping[str, Any]

FINISH_REASONS: dict[str, common_pb2.FinishReason] = {
    "stop": common_pb2.FINISH_REASON_STOP,
    "length": common_pb2.FINISH_REASON_LENGTH,
    "tool_calls": common_pb2.FINISH_REASON_TOOL_CALLS,
    "content_filter": common_pb2.FINISH_REASON_CONTENT_FILTER,
}
_ROLES: dict[str, Any] = {name: role for role, name in ROLES.items()}
_KINDS = {
    "model": inference_pb2.MODEL_KIND_MODEL,
    "pipeline": inference_pb2.MODEL_KIND_PIPELINE,
    "embedder": inference_pb2.MODEL_KIND_EMBEDDER,
    "adapter": inference_pb2.MODEL_KIND_ADAPTER,
}


async def whole(reply: Reply) -> Json:
    """Return the document that a reply is, or its stream's first, and close the stream. Raises PlatformError."""
    async with aclosing(documents(reply)) as said:
        return await anext(said)


async def documents(reply: Reply) -> AsyncGenerator[Json]:
    """Yield what a reply says, event by event, and close its stream. Raises PlatformError for an event that reports one."""
    if isinstance(reply.body, bytes):
        yield json.loads(reply.body)
        return
    events = EventBuffer()
    async with aclosing(reply.body) as chunks:
        async for chunk in chunks:
            for event in events.feed(chunk):
                if (document := _document(event)) is not None:
                    yield document
        if (document := _document(events.flush())) is not None:
            yield document


def _document(event: bytes) -> Json | None:
    document = event_document(event)
    if document is not None and document.get("error"):
        raise error_of_event(document)
    return document


def chat_response(document: Json) -> chat_pb2.ChatResponse:
    """Return an event of a chat's stream, or a whole answer, as a message."""
    made = chat_pb2.ChatResponse(choices=map(_chat_choice, document.get("choices") or ()), usage=usage(document))
    if citations := document.get("citations"):
        made.citations.extend(map(citation, citations))
    return made


def ask_response(document: Json) -> chat_pb2.AskResponse:
    """Return an event of a pipeline's stream, or a whole answer, as a message; of several choices the first counts."""
    choice: Json = next(iter(document.get("choices") or ()), {})
    said = choice.get("delta") or choice.get("message") or {}
    return chat_pb2.AskResponse(
        text=said.get("content") or "",
        reasoning=_reasoning(said),
        citations=[citation(c) for c in document.get("citations") or ()],
        finish_reason=finish_reason(choice),
        usage=usage(document),
    )


def generate_response(document: Json) -> inference_pb2.GenerateResponse:
    """Return a completion as a message."""
    choices = [
        inference_pb2.Completion(
            index=choice.get("index") or 0,
            text=choice.get("text") or "",
            finish_reason=finish_reason(choice),
            logprobs=_completion_logprobs(choice.get("logprobs") or {}),
        )
        for choice in document.get("choices") or ()
    ]
    return inference_pb2.GenerateResponse(choices=choices, usage=usage(document))


def embed_response(vectors: Sequence[Sequence[float]], tokens: int) -> inference_pb2.EmbedResponse:
    """Return vectors as a message."""
    return inference_pb2.EmbedResponse(
        embeddings=[inference_pb2.Embedding(values=vector) for vector in vectors],
        usage=common_pb2.Usage(prompt_tokens=tokens, total_tokens=tokens),
    )


def passage(number: int, hit: Hit) -> common_pb2.Passage:
    """Return a hit as a message."""
    chunk = hit.chunk
    return common_pb2.Passage(
        number=number,
        document_id=chunk.document_id,
        title=chunk.title,
        headings=chunk.headings,
        start=chunk.start,
        end=chunk.end,
        score=hit.score,
        text=chunk.text,
        attributes=_struct(getattr(hit, "attributes", None)),
    )


def citation(document: Json) -> common_pb2.Passage:
    """Return a pipeline's citation as a message; members that the message lacks are left out."""
    known = {name: document[name] for name in common_pb2.Passage.DESCRIPTOR.fields_by_name if document.get(name) is not None}
    attributes = _struct(known.pop("attributes", None))
    return common_pb2.Passage(**known, attributes=attributes)


def model(card: Json) -> inference_pb2.Model:
    """Return a model's card as a message."""
    return inference_pb2.Model(
        id=card["id"],
        kind=_KINDS.get(card.get("kind", ""), inference_pb2.MODEL_KIND_UNSPECIFIED),
        owned_by=card.get("owned_by") or "",
        variants=map(_share, card.get("variants") or ()),
        versions=map(_share, card.get("versions") or ()),
        engine=card.get("engine") or "",
        card=_struct(card),
    )


def usage(document: Json) -> common_pb2.Usage | None:
    """Return what an answer cost, or None where it does not say."""
    said = document.get("usage")
    if not said:
        return None
    details = said.get("prompt_tokens_details") or {}
    return common_pb2.Usage(
        prompt_tokens=said.get("prompt_tokens") or 0,
        completion_tokens=said.get("completion_tokens") or 0,
        total_tokens=said.get("total_tokens") or 0,
        cached_prompt_tokens=details.get("cached_tokens") or 0,
    )


def finish_reason(choice: Json) -> common_pb2.FinishReason:
    """Return why a choice ended."""
    reason = choice.get("finish_reason")
    return FINISH_REASONS.get(reason, common_pb2.FINISH_REASON_OTHER) if reason else common_pb2.FINISH_REASON_UNSPECIFIED


def _share(card: Json) -> inference_pb2.Share:
    return inference_pb2.Share(name=card["name"], weight=card["weight"])


def _chat_choice(choice: Json) -> chat_pb2.ChatChoice:
    said = choice.get("delta") or choice.get("message") or {}
    # One for each token, most with a few words and nothing else: what is not there is not even set to nothing.
    delta = chat_pb2.ChatDelta(content=said.get("content") or "")
    if len(said) > 1 or not delta.content:
        _add_rest(delta, said)
    made = chat_pb2.ChatChoice(index=choice.get("index") or 0, delta=delta)
    if choice.get("finish_reason"):
        made.finish_reason = finish_reason(choice)
    if logprobs := choice.get("logprobs"):
        made.logprobs.extend(map(_logprob, logprobs.get("content") or ()))
    return made


def _add_rest(delta: chat_pb2.ChatDelta, said: Json) -> None:
    delta.role = _ROLES.get(said.get("role") or "", chat_pb2.ROLE_UNSPECIFIED)
    delta.reasoning = _reasoning(said)
    delta.tool_calls.extend(_tool_call(i, call) for i, call in enumerate(said.get("tool_calls") or ()))
    delta.refusal = said.get("refusal") or ""


def _reasoning(said: Json) -> str:
    return said.get("reasoning") or said.get("reasoning_content") or ""  # vLLM's name, and what it was before


def _tool_call(position: int, call: Json) -> chat_pb2.ToolCallDelta:
    function = call.get("function") or {}
    return chat_pb2.ToolCallDelta(
        index=call.get("index", position),  # whole answers list them in order
        id=call.get("id") or "",
        name=function.get("name") or "",
        arguments=function.get("arguments") or "",
    )


def _logprob(entry: Json) -> common_pb2.TokenLogprob:
    top = [common_pb2.TokenLogprob(token=t["token"], logprob=t["logprob"]) for t in entry.get("top_logprobs") or ()]
    return common_pb2.TokenLogprob(token=entry["token"], logprob=entry["logprob"], top=top)


def _completion_logprobs(said: Json) -> list[common_pb2.TokenLogprob]:
    """Return the entries of the older form, in which a list of tokens stands next to one of numbers."""
    tokens = said.get("tokens") or ()
    tops = said.get("top_logprobs") or [None] * len(tokens)
    return [
        common_pb2.TokenLogprob(
            token=token,
            logprob=logprob or 0.0,  # the first token of a prompt that is echoed has none
            top=[common_pb2.TokenLogprob(token=other, logprob=number) for other, number in (top or {}).items()],
        )
        for token, logprob, top in zip(tokens, said.get("token_logprobs") or (), tops, strict=False)
    ]


def _struct(document: Json | None) -> Struct | None:
    if not document:
        return None
    struct = Struct()
    struct.update(document)
    return struct
