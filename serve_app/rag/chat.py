"""OpenAI's chat completions, and the older completions, whose answers look alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from serve_app.errors import BadRequest
from serve_app.gateway import require_text
from serve_app.rag.turns import Asked, asked_in_turns
from serve_app.rag.wire import Document, Refusal, joined, objects
from serve_app.sse import DONE_EVENT, json_event

USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


class ChatForm:
    """``/v1/chat/completions``."""

    def read(self, body: Mapping[str, Any]) -> Asked:
        """Return the last question in ``messages``. Raises BadRequest."""
        return asked_in_turns(body, "messages")

    def text(self, answer: Document) -> str:
        """Return what all choices say."""
        return joined([_content(choice, "message") for choice in objects(answer.get("choices"))])

    def said(self, event: Document) -> str:
        """Return what the chunk's choices add."""
        return joined([_content(choice, "delta") for choice in objects(event.get("choices"))])

    def named(self, event: Document) -> Document | None:
        """Return the chunk: each names the model."""
        return event

    def ending(self, event: Document) -> Document | None:
        """Return the chunk with a ``finish_reason``."""
        return _finished(event)

    def refusal(self, refusal: Refusal) -> Document:
        """Return a chat completion."""
        message = {"role": "assistant", "content": refusal.text}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return {**_head(refusal, "chatcmpl", "chat.completion"), "choices": [choice], "usage": USAGE}

    def refusal_events(self, refusal: Refusal) -> Iterator[bytes]:
        """Yield chunks, with the usage when the request asks for it."""
        head = _head(refusal, "chatcmpl", "chat.completion.chunk")
        for delta, finish_reason in (({"role": "assistant", "content": refusal.text}, None), ({}, "stop")):
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
            yield json_event({**head, "choices": [choice]})
        yield from _last_events(head, refusal.body)


class CompletionsForm:
    """``/v1/completions``: the prompt is the question."""

    def read(self, body: Mapping[str, Any]) -> Asked:
        """Return the prompt. Raises BadRequest unless it is one text."""
        prompt = body.get("prompt")
        if isinstance(prompt, list) and len(prompt) == 1:
            prompt = prompt[0]
        if isinstance(prompt, list):
            raise BadRequest("prompt must be one text: a pipeline answers one question", param="prompt")
        return Asked(require_text(prompt, "prompt"), (), lambda text: {**body, "prompt": text})

    def text(self, answer: Document) -> str:
        """Return what all choices say."""
        return joined([choice.get("text") for choice in objects(answer.get("choices"))])

    def said(self, event: Document) -> str:
        """Return what the chunk's choices add."""
        return self.text(event)

    def named(self, event: Document) -> Document | None:
        """Return the chunk: each names the model."""
        return event

    def ending(self, event: Document) -> Document | None:
        """Return the chunk with a ``finish_reason``."""
        return _finished(event)

    def refusal(self, refusal: Refusal) -> Document:
        """Return a completion."""
        return {**_head(refusal, "cmpl", "text_completion"), "choices": [_completion(refusal)], "usage": USAGE}

    def refusal_events(self, refusal: Refusal) -> Iterator[bytes]:
        """Yield a chunk, with the usage when the request asks for it."""
        head = _head(refusal, "cmpl", "text_completion")
        yield json_event({**head, "choices": [_completion(refusal)]})
        yield from _last_events(head, refusal.body)


def _finished(event: Document) -> Document | None:
    return event if any(choice.get("finish_reason") for choice in objects(event.get("choices"))) else None


def _content(choice: Document, member: str) -> object:
    message = choice.get(member)
    return message.get("content") if isinstance(message, dict) else None


def _head(refusal: Refusal, prefix: str, kind: str) -> Document:
    return {"id": f"{prefix}-{refusal.id}", "object": kind, "created": refusal.created, "model": refusal.model}


def _completion(refusal: Refusal) -> Document:
    return {"index": 0, "text": refusal.text, "logprobs": None, "finish_reason": "stop"}


def _last_events(head: Document, body: Mapping[str, Any]) -> Iterator[bytes]:
    options = body.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage"):
        yield json_event({**head, "choices": [], "usage": USAGE})
    yield DONE_EVENT
