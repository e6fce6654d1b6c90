"""Chunks of streams whose tokens are kept: what one says, without its token ids, and dressed as another stream's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

Document = dict[str, Any]
_IDS = re.compile(rb'"((?:prompt_)?token_ids)":\s*\[[\d,\s]*\]')
_MEMBER = b'"token_ids":'
_DELTA = frozenset(("role", "content"))
HEAD = ("id", "created", "model")  # what all chunks of a stream say alike, besides ``object``


class Chunk(NamedTuple):
    """What a chunk adds to the only choice."""

    text: str
    ids: list[int]
    is_last: bool
    prompt: list[int] | None = None  # the prompt's tokens, which the first one has


def chunk_of(document: Document, *, is_chat: bool) -> Chunk | None:
    """Return what a chunk says, in vLLM's words; None where that is more than text with its tokens."""
    choices = document.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or choices[0].get("index") != 0:
        return None
    choice = choices[0]
    said = choice.get("delta") or {} if is_chat else choice
    if is_chat and any(said[name] for name in said.keys() - _DELTA):
        return None  # reasoning or a call of a tool, which a parser has made of tokens
    text, ids = said.get("content" if is_chat else "text") or "", choice.get("token_ids")
    if ids is None and text:
        return None
    prompt = (document if is_chat else choice).get("prompt_token_ids")
    return Chunk(text, ids or [], choice.get("finish_reason") is not None, prompt)


def without_ids(event: bytes, *, has_prompt: bool) -> bytes:
    """Return a chunk's event as the engine writes it for who did not ask for token ids.

    ``has_prompt``: the prompt's are there as well. Without them, one member is cut out, which is quicker.
    """
    # Within JSON strings quotes are escaped, so that neither can stand in what a model or a client wrote.
    if has_prompt:
        return _IDS.sub(rb'"\1":null', event)
    start = event.rfind(_MEMBER) + len(_MEMBER)
    opening = event.find(b"[", start, start + 2)  # some write a space
    if start < len(_MEMBER) or opening < 0:
        return event
    return event[:start] + b"null" + event[event.index(b"]", opening) + 1 :]


def dressed(document: Document, head: Mapping[str, Any], *, said: Chunk | None, is_chat: bool, has_ids: bool) -> Document:
    """Return a completion's chunk as one of the stream that ``head`` is of.

    Args:
        document: the chunk.
        head: the values of ``HEAD``.
        said: what is to be said of its choice; None: the chunk has none.
        is_chat: whether that stream is a chat's.
        has_ids: whether the client is to see the token ids.
    """
    kind = "chat.completion.chunk" if is_chat else "text_completion"
    made = {**document, **head, "object": kind}
    if said is not None:
        choice = {name: value for name, value in document["choices"][0].items() if name not in ("text", "prompt_token_ids")}
        told = {"delta": {"content": said.text}} if is_chat else {"text": said.text}
        ids = said.ids if has_ids else None
        made["choices"] = [{"index": 0, **told, **choice, "token_ids": ids}]
    return made


def corrected(usage: Mapping[str, Any], *, prompt_tokens: int, said_tokens: int) -> Document:
    """Return what a continuation says it cost as a part of the whole answer.

    Args:
        usage: as the engine tells it, to which what was said before is the prompt's.
        prompt_tokens: tokens of the client's prompt.
        said_tokens: tokens of the answer before this continuation.
    """
    completion_tokens = usage.get("completion_tokens", 0) + said_tokens
    made = {**usage, "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    made["total_tokens"] = prompt_tokens + completion_tokens
    details = usage.get("prompt_tokens_details")
    if isinstance(details, dict) and isinstance(details.get("cached_tokens"), int):
        made["prompt_tokens_details"] = {**details, "cached_tokens": min(prompt_tokens, details["cached_tokens"])}
    return made
