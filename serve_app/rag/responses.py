"""OpenAI's responses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from serve_app.gateway import require_text
from serve_app.rag.turns import Asked, asked_in_turns
from serve_app.rag.wire import Document, Refusal, joined, objects
from serve_app.sse import json_event

ENDS = frozenset({"response.completed", "response.incomplete"})
USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 0,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 0,
}


class ResponsesForm:
    """``/v1/responses``. Turns that ``previous_response_id`` names stay with the engine: here they are no history."""

    def read(self, body: Mapping[str, Any]) -> Asked:
        """Return the text, or the last question in the items, of ``input``. Raises BadRequest."""
        if isinstance(body.get("input"), list):
            return asked_in_turns(body, "input")
        return Asked(require_text(body.get("input"), "input"), (), lambda text: {**body, "input": text})

    def text(self, answer: Document) -> str:
        """Return what the messages in the output say."""
        return joined(
            [
                part.get("text")
                for item in objects(answer.get("output"))
                if item.get("type") == "message"
                for part in objects(item.get("content"))
            ]
        )

    def said(self, event: Document) -> str:
        """Return the whole answer with the event that ends it: that event repeats it."""
        response = self.ending(event)
        return self.text(response) if response is not None else ""

    def named(self, event: Document) -> Document | None:
        """Return the response, in the events that tell its state."""
        response = event.get("response")
        return response if isinstance(response, dict) else None

    def ending(self, event: Document) -> Document | None:
        """Return the response that is completed, or cut off at its limit."""
        return self.named(event) if event.get("type") in ENDS else None

    def refusal(self, refusal: Refusal) -> Document:
        """Return a completed response."""
        return _response(refusal, [_item(refusal, is_done=True)])

    def refusal_events(self, refusal: Refusal) -> Iterator[bytes]:
        """Yield the events of a response with one text."""
        for number, event in enumerate(_events(refusal)):
            yield json_event({**event, "sequence_number": number}, name=event["type"])


def _events(refusal: Refusal) -> Iterator[Document]:
    begun = {**_response(refusal, []), "status": "in_progress", "usage": None}
    done = _item(refusal, is_done=True)
    place = {"output_index": 0, "item_id": done["id"], "content_index": 0}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    yield {"type": "response.output_item.added", "output_index": 0, "item": _item(refusal, is_done=False)}
    yield {"type": "response.content_part.added", **place, "part": _part("")}
    yield {"type": "response.output_text.delta", **place, "delta": refusal.text, "logprobs": []}
    yield {"type": "response.output_text.done", **place, "text": refusal.text, "logprobs": []}
    yield {"type": "response.content_part.done", **place, "part": _part(refusal.text)}
    yield {"type": "response.output_item.done", "output_index": 0, "item": done}
    yield {"type": "response.completed", "response": _response(refusal, [done])}


def _response(refusal: Refusal, output: list[Document]) -> Document:
    return {
        "id": f"resp_{refusal.id}",
        "object": "response",
        "created_at": refusal.created,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": refusal.model,
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "instructions": None,
        "metadata": {},
        "temperature": None,
        "top_p": None,
        "usage": USAGE,
    }


def _item(refusal: Refusal, *, is_done: bool) -> Document:
    return {
        "id": f"msg_{refusal.id}",
        "type": "message",
        "role": "assistant",
        "status": "completed" if is_done else "in_progress",
        "content": [_part(refusal.text)] if is_done else [],
    }


def _part(text: str) -> Document:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
