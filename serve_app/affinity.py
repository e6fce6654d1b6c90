"""Affinity key: what pins a conversation to one variant. Prefix key: what leads a request to the replica with its KV prefix."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from serve_app.errors import BadRequest

MAX_SESSION_CHARS = 256
PREFIX_CHARS = 1024  # of the prompt's text; requests that agree in them share a replica
PREFIX_TOKENS = 256  # of a prompt that is a list of token ids
MAX_VALUES = 256  # looked at in a prompt of an unforeseen shape, however it is nested
PROMPT_FIELDS = ("messages", "input", "prompt")
_ENCODER = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def affinity_key(tenant: str, body: Mapping[str, Any], *, session_id: str | None = None) -> str:
    """Return the key of a request's conversation.

    The first of: the session id, the ``user`` field (Anthropic's ``metadata.user_id``), a digest of the leading messages
    or input items (system and first user message, so a growing chat keeps its key), a digest of the prompt. The tenant is
    always part of it.
    """
    if session_id:
        return f"{tenant}/s/{session_id[:MAX_SESSION_CHARS]}"
    if user := _user(body):
        return f"{tenant}/u/{user[:MAX_SESSION_CHARS]}"
    return f"{tenant}/h/{_digest(_leading(body))}"


def prefix_key(body: Mapping[str, Any], *, session_id: str | None = None) -> str:
    """Return the key of what a request's prompt starts with; any body has one.

    The session id, whose history is the longest prefix, else a digest of the first ``PREFIX_CHARS`` characters of the
    prompt: what comes before the messages, then the messages up to the first of a user, so that a growing chat keeps
    its key and requests share that of their long system prompt. The tenant is no part of it: nor is it one of the cache.
    """
    if session_id:
        return f"s/{session_id[:MAX_SESSION_CHARS]}"
    text = "\0".join(_cut(_prompt(body)))
    return f"p/{hashlib.blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=12).hexdigest()}"


def _prompt(body: Mapping[str, Any]) -> Iterator[str]:
    """Yield the prompt's texts in their order: OpenAI's and Anthropic's chat, responses, completions, or whatever there is."""
    prompt = next((body[name] for name in PROMPT_FIELDS if body.get(name) is not None), None)
    yield from _texts(body.get("system"))
    yield from _texts(body.get("instructions"))
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], dict):
        yield from _chat(prompt[:MAX_VALUES])
    elif prompt is not None:
        yield from _completion(prompt)
    else:
        yield from _texts(dict(body))


def _completion(prompt: object) -> Iterator[str]:
    """Yield the first of several prompts; a character for a token id."""
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        prompt = prompt[0]
    tokens = prompt[:PREFIX_TOKENS] if isinstance(prompt, list) else ()
    if tokens and all(isinstance(token, int) for token in tokens):
        yield "".join(chr(token % 0x110000) for token in tokens)
    else:
        yield from _texts(prompt)


def _chat(turns: list[Any]) -> Iterator[str]:
    for turn in turns:
        if not isinstance(turn, dict):
            yield from _texts(turn)
            continue
        role = turn.get("role")
        yield from _texts(role)
        yield from _texts(turn.get("content"))
        if role == "user":
            return


def _texts(value: object) -> Iterator[str]:
    """Yield the strings and numbers in a value, in order: of a part with a text the text, of nothing nothing."""
    left = [value]
    for _ in range(MAX_VALUES):
        if not left:
            return
        item = left.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, int | float):
            yield hex(item) if isinstance(item, int) else item.hex()  # these have no limit of digits
        else:
            left.extend(reversed(_inside(item)))


def _inside(item: object) -> list[Any]:
    """Return the first values in a container; of a part with a text, that text."""
    if isinstance(item, dict):
        return [item["text"]] if isinstance(item.get("text"), str) else list(islice(item.values(), MAX_VALUES))
    return item[:MAX_VALUES] if isinstance(item, list) else []


def _cut(texts: Iterator[str]) -> Iterator[str]:
    left = PREFIX_CHARS
    for text in texts:
        yield text[:left]
        left -= len(text) + 1
        if left <= 0:
            return


def _user(body: Mapping[str, Any]) -> str | None:
    user = body.get("user")
    if not user and isinstance(metadata := body.get("metadata"), dict):
        user = metadata.get("user_id")
    return user if isinstance(user, str) else None


def _leading(body: Mapping[str, Any]) -> object:
    turns = body.get("messages")
    if not isinstance(turns, list):
        turns = body.get("prompt", body.get("input"))
        if not (isinstance(turns, list) and any(isinstance(turn, dict) for turn in turns)):
            return turns  # a text, or several: there are no turns in it
    lead = []
    for turn in turns:
        lead.append(turn)
        if isinstance(turn, dict) and turn.get("role") == "user":
            break
    return lead


def _digest(value: object) -> str:
    try:
        text = _ENCODER.encode(value)
    except RecursionError as err:
        raise BadRequest("the body is nested too deeply") from err
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
