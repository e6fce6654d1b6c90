"""Where a request's question stands among its turns, and how the prompt gets in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from serve_app.errors import BadRequest
from serve_app.gateway import require_text
from serve_app.prompts import Turn

TEXT_PARTS = frozenset({"text", "input_text", "output_text"})


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and the way back into the request that asked it."""

    question: str
    history: tuple[Turn, ...]  # what user and assistant said before, in order
    put: Callable[[str], dict[str, Any]]  # -> the request's body with another text in place of the question


def asked_in_turns(body: Mapping[str, Any], field: str) -> Asked:
    """Return the last question of a user; calls and results of tools may follow it, and an answer that is to go on.

    Raises:
        BadRequest: there are no turns, none of a user, or the last of a user holds no text.
    """
    turns = body.get(field)
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
        raise BadRequest(f"{field} must be a non-empty list of messages", param=field)
    at = next((i for i in reversed(range(len(turns))) if _is_question(turns[i])), None)
    if at is None:
        raise BadRequest(f"{field} must hold a message of the user: it is the pipeline's question", param=field)
    asked = turns[at]

    def put(prompt: str) -> dict[str, Any]:
        turn = {**asked, "content": _with_text(asked.get("content"), prompt)}
        return {**body, field: [*turns[:at], turn, *turns[at + 1 :]]}

    return Asked(require_text(_text(asked.get("content")), field), tuple(_history(turns[:at])), put)


def _is_question(turn: Mapping[str, Any]) -> bool:
    """Whether a user says something; Anthropic's clients send the results of tools as a user's turn."""
    content = turn.get("content")
    results = isinstance(content, list) and content and all(_is_tool_result(part) for part in content)
    return turn.get("role") == "user" and not results


def _is_tool_result(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") == "tool_result"


def _history(turns: Sequence[Mapping[str, Any]]) -> list[Turn]:
    said = ((turn.get("role"), _text(turn.get("content"))) for turn in turns)
    return [Turn(role, text) for role, text in said if role in ("user", "assistant") and text.strip()]


def _text(content: object) -> str:
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if _is_text(part))
    return content if isinstance(content, str) else ""


def _with_text(content: object, text: str) -> object:
    """Return a turn's content with one text in place of all; images, files and what marks the text stay."""
    if not isinstance(content, list):
        return text
    first = next(i for i, part in enumerate(content) if _is_text(part))
    parts = (part for part in content[first + 1 :] if not _is_text(part))
    return [*content[:first], {**content[first], "text": text}, *parts]


def _is_text(part: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(part, dict) and isinstance(part.get("text"), str) and part.get("type", "text") in TEXT_PARTS
