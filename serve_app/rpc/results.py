"""What MantaClient takes and returns: plain values, so that no application needs the generated modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from serve_app.errors import BadRequest
from serve_app.protos.manta.v1 import chat_pb2, common_pb2, inference_pb2
from serve_app.rpc.answers import FINISH_REASONS
from serve_app.rpc.convert import ROLES

_FINISH_NAMES: dict[Any, str] = {number: name for name, number in FINISH_REASONS.items()}
_ROLE_NUMBERS: dict[str, Any] = {name: number for number, name in ROLES.items()}
RoleName = Literal["system", "developer", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a conversation."""

    role: RoleName
    content: str
    image_urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen; what is None is up to the engine."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    n: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an answer came from; empty where it does not apply."""

    request_id: str
    model: str
    variant: str
    pipeline_version: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a request cost."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage that was found, or that an answer rests on."""

    number: int
    document_id: str
    title: str
    headings: tuple[str, ...]
    start: int
    end: int
    score: float
    text: str
    quote: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """More of a tool call."""

    index: int
    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ChatChunk:
    """The next piece of a choice; what a stream says of no choice comes with index 0 and no text."""

    index: int
    text: str
    reasoning: str
    tool_calls: tuple[ToolCallDelta, ...]
    finish_reason: str | None
    citations: tuple[Passage, ...]
    usage: Usage | None
    origin: Origin | None  # on a stream's first


@dataclass(frozen=True, slots=True)
class AskChunk:
    """The next piece of a pipeline's answer."""

    text: str
    citations: tuple[Passage, ...]
    finish_reason: str | None
    usage: Usage | None
    origin: Origin | None  # on a stream's first


@dataclass(frozen=True, slots=True)
class Completion:
    """The completions of a prompt."""

    texts: tuple[str, ...]
    finish_reasons: tuple[str | None, ...]
    usage: Usage
    origin: Origin


@dataclass(frozen=True, slots=True)
class Vectors:
    """One vector per text."""

    vectors: tuple[tuple[float, ...], ...]
    usage: Usage
    origin: Origin


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Something that requests can name."""

    id: str
    kind: str  # model, pipeline, embedder or adapter
    shares: tuple[tuple[str, int], ...]  # variants or versions with their weights; for admins only


def message_proto(message: Message) -> chat_pb2.ChatMessage:
    """Return a message as sent. Raises BadRequest: there is no such role."""
    if message.role not in _ROLE_NUMBERS:
        raise BadRequest(f"role must be one of {', '.join(_ROLE_NUMBERS)}, got {message.role!r:.100}", param="role")
    images = [chat_pb2.ContentPart(image_url=chat_pb2.ImageUrl(url=url)) for url in message.image_urls]
    content = [chat_pb2.ContentPart(text=message.content), *images]
    return chat_pb2.ChatMessage(role=_ROLE_NUMBERS[message.role], content=content)


def sampling_proto(sampling: Sampling) -> common_pb2.Sampling:
    """Return sampling parameters as sent."""
    return common_pb2.Sampling(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=sampling.seed,
        n=sampling.n,
        stop=sampling.stop,
    )


def chat_chunks(response: chat_pb2.ChatResponse) -> list[ChatChunk]:
    """Return a chunk for each choice that a message has news of; at least one."""
    choices: Sequence[chat_pb2.ChatChoice] = list(response.choices) or [chat_pb2.ChatChoice()]
    return [
        _chat_chunk(choice, response if position == 0 else chat_pb2.ChatResponse()) for position, choice in enumerate(choices)
    ]


def _chat_chunk(choice: chat_pb2.ChatChoice, response: chat_pb2.ChatResponse) -> ChatChunk:
    calls = tuple(ToolCallDelta(c.index, c.id, c.name, c.arguments) for c in choice.delta.tool_calls)
    return ChatChunk(
        index=choice.index,
        text=choice.delta.content,
        reasoning=choice.delta.reasoning,
        tool_calls=calls,
        finish_reason=finish_name(choice.finish_reason),
        citations=tuple(map(passage, response.citations)),
        usage=usage(response.usage) if response.HasField("usage") else None,
        origin=origin(response.origin) if response.HasField("origin") else None,
    )


def ask_chunk(response: chat_pb2.AskResponse) -> AskChunk:
    """Return a message of a pipeline's stream."""
    return AskChunk(
        text=response.text,
        citations=tuple(map(passage, response.citations)),
        finish_reason=finish_name(response.finish_reason),
        usage=usage(response.usage) if response.HasField("usage") else None,
        origin=origin(response.origin) if response.HasField("origin") else None,
    )


def completion(response: inference_pb2.GenerateResponse) -> Completion:
    """Return completions in the order of their index."""
    choices = sorted(response.choices, key=lambda choice: choice.index)
    return Completion(
        texts=tuple(choice.text for choice in choices),
        finish_reasons=tuple(finish_name(choice.finish_reason) for choice in choices),
        usage=usage(response.usage),
        origin=origin(response.origin),
    )


def vectors(response: inference_pb2.EmbedResponse) -> Vectors:
    """Return vectors."""
    made = tuple(tuple(embedding.values) for embedding in response.embeddings)
    return Vectors(made, usage(response.usage), origin(response.origin))


def model_info(model: inference_pb2.Model) -> ModelInfo:
    """Return what is served."""
    kind = inference_pb2.ModelKind.Name(model.kind).removeprefix("MODEL_KIND_").lower()
    return ModelInfo(model.id, kind, tuple((share.name, share.weight) for share in (*model.variants, *model.versions)))


def passage(message: common_pb2.Passage) -> Passage:
    """Return a passage."""
    return Passage(
        number=message.number,
        document_id=message.document_id,
        title=message.title,
        headings=tuple(message.headings),
        start=message.start,
        end=message.end,
        score=message.score,
        text=message.text,
        quote=message.quote,
    )


def usage(message: common_pb2.Usage) -> Usage:
    """Return what a request cost."""
    return Usage(message.prompt_tokens, message.completion_tokens, message.total_tokens, message.cached_prompt_tokens)


def origin(message: common_pb2.Origin) -> Origin:
    """Return where an answer came from."""
    return Origin(message.request_id, message.model, message.variant, message.pipeline_version)


def finish_name(reason: int) -> str | None:
    """Return OpenAI's word for why a choice ended, or None while it has not."""
    return None if reason == common_pb2.FINISH_REASON_UNSPECIFIED else _FINISH_NAMES.get(reason, "other")
