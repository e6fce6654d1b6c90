"""Prompt texts: what a request's body asks, in OpenAI's words or Anthropic's, for a log that was told to have it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from serve_app.observing.masking import Masker

FIELDS = ("instructions", "system", "prompt", "text_1", "text_2", "messages", "input", "text", "documents", "query")
PARTS = ("text", "content", "output", "tool_calls", "function", "arguments", "input")  # of a message, where text may be
ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
MOST_TEXTS = 200
DEEPEST = 6
_KIND = re.compile(r"[a-z_]{1,40}")

Said = tuple[str, str]  # who or where, and what


def prompt_texts(body: Mapping[str, Any], masker: Masker, *, chars: int) -> list[dict[str, str]]:
    """Return the latest texts of a body in their order, masked, with at most so many characters together.

    What is no text stands as its kind, such as ``[image_url]``.
    """
    said: list[Said] = []
    most: list[int] = []
    for role, text in islice(_body(body), MOST_TEXTS):
        if chars <= 0:
            break
        said.append((role, text))
        most.append(chars)
        chars -= max(1, min(len(text), chars))
    texts = masker.heads([text for _, text in said], most)
    return [{"role": role, "text": text} for (role, _), text in zip(said, texts, strict=True)][::-1]


def _body(body: Mapping[str, Any]) -> Iterator[Said]:
    """Yield what there is, the latest first."""
    for field in reversed(FIELDS):
        if field in body:
            yield from _said(field, body[field], depth=0)


def _said(role: str, value: Any, *, depth: int) -> Iterator[Said]:
    """Yield something of every value that is looked at, so that whoever stops after some bounds the work as well."""
    if isinstance(value, str):
        yield role, value
    elif depth >= DEEPEST or not isinstance(value, list | dict) or not value:
        yield role, f"[{type(value).__name__}]"
    elif isinstance(value, list):
        if isinstance(value[-1], int):  # tokens
            yield role, f"[{len(value)} tokens]"
            return
        for each in reversed(value):
            yield from _said(role, each, depth=depth + 1)
    else:
        yield from _of_object(role, value, depth=depth)


def _of_object(role: str, value: Mapping[str, Any], *, depth: int) -> Iterator[Said]:
    named = value.get("role")
    role = named if isinstance(named, str) and named in ROLES else role
    parts = [part for part in PARTS if value.get(part)]
    for part in reversed(parts):
        yield from _said(role, value[part], depth=depth + 1)
    if not parts:
        kind = value.get("type")
        yield role, f"[{kind}]" if isinstance(kind, str) and _KIND.fullmatch(kind) else "[object]"
