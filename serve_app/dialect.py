"""Whose error objects the clients of a path read."""

from __future__ import annotations

MESSAGES_PATH = "/v1/messages"


def is_anthropic(path: str) -> bool:
    """Whether Anthropic's clients call this path; everything else speaks as OpenAI does."""
    return path.startswith(MESSAGES_PATH) and path[len(MESSAGES_PATH) : len(MESSAGES_PATH) + 1] in ("", "/", "?")
