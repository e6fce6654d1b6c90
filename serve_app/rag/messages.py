"""Anthropic's messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from serve_app.rag.turns import Asked, asked_in_turns
from serve_app.rag.wire import Document, Refusal, joined, objects
from serve_app.sse import json_event

USAGE = {"input_tokens": 0, "output_tokens": 0}


class MessagesForm:
    """``/v1/messages``."""

    def read(self, body: Mapping[str, Any]) -> Asked:
        """Return the last question in ``messages``. Raises BadRequest."""
        return asked_in_turns(body, "messages")

    def text(self, answer: Document) -> str:
        """Return what the text blocks say."""
        return joined([block.get("text") for block in objects(answer.get("content"))])

    def said(self, event: Document) -> str:
        """Return a piece of a text block."""
        delta = event.get("delta")
        return joined([delta.get("text")]) if isinstance(delta, dict) else ""

    def named(self, event: Document) -> Document | None:
        """Return the message in ``message_start``."""
        message = event.get("message")
        return message if event.get("type") == "message_start" and isinstance(message, dict) else None

    def ending(self, event: Document) -> Document | None:
        """Return the ``message_delta`` that says why the answer ends."""
        delta = event.get("delta")
        is_end = event.get("type") == "message_delta" and isinstance(delta, dict) and delta.get("stop_reason")
        return event if is_end else None

    def refusal(self, refusal: Refusal) -> Document:
        """Return a message."""
        return _message(refusal, [{"type": "text", "text": refusal.text}], stop_reason="end_turn")

    def refusal_events(self, refusal: Refusal) -> Iterator[bytes]:
        """Yield the events of a message with one text block."""
        for event in _events(refusal):
            yield json_event(event, name=event["type"])


def _events(refusal: Refusal) -> Iterator[Document]:
    yield {"type": "message_start", "message": _message(refusal, [], stop_reason=None)}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": refusal.text}}
    yield {"type": "content_block_stop", "index": 0}
    yield {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": USAGE}
    yield {"type": "message_stop"}


def _message(refusal: Refusal, content: list[Document], *, stop_reason: str | None) -> Document:
    return {
        "id": f"msg_{refusal.id}",
        "type": "message",
        "role": "assistant",
        "model": refusal.model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": USAGE,
    }
