"""The endpoints that are relayed to models, and what the OpenAPI document says of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serve_app.rest.operation import FORM_TYPE, JSON_TYPE, STREAM_TYPE, Operation, Schema

ERRORS = (400, 403, 404, 409, 413, 429, 503, 504)
TEXT: Mapping[str, Any] = {"type": "string", "minLength": 1}
MODEL: Mapping[str, Any] = {**TEXT, "description": "A name from GET /v1/models."}
STREAM: Mapping[str, Any] = {"type": "boolean", "default": False, "description": "Answer by server-sent events."}
WORDS = (
    "The body goes to the engine as it came, which checks every other field. Answers are the engine's own; a stream's events "
    "are passed on as they are written, and one that breaks ends in an error event."
)
WAITS = (
    " While no replica is awake, a stream begins with comments (`: keep-alive`), and an error that comes after them is the "
    "stream's last event."
)


@dataclass(frozen=True, slots=True)
class Relayed:
    """An endpoint of vLLM's app that names a model and computes with it."""

    path: str
    does: str
    needs: Mapping[str, Any] = field(default_factory=dict)  # the fields besides ``model`` that no request is without
    streams: bool = False
    takes_form: bool = False

    @property
    def operation(self) -> Operation:
        """What is said of it."""
        kind = FORM_TYPE if self.takes_form else JSON_TYPE
        answers: dict[str, Schema] = {JSON_TYPE: {}}
        if self.streams:
            answers[STREAM_TYPE] = {}
        return Operation(
            self.does,
            "inference",
            WORDS + (WAITS if self.streams else ""),
            bodies={kind: self._body()},
            answers=answers,
            errors=ERRORS,
            names_answerer=True,
        )

    def _body(self) -> dict[str, Any]:
        fields = {"model": MODEL, **({"stream": STREAM} if self.streams else {}), **self.needs}
        return {"type": "object", "properties": fields, "required": ["model", *self.needs], "additionalProperties": True}


def _any(what: str) -> dict[str, Any]:
    return {"description": what}


TURN = {"type": "object", "examples": [{"role": "user", "content": "Why is the sky blue?"}]}
MESSAGES: Mapping[str, Any] = {"messages": {"type": "array", "items": TURN, "minItems": 1}}
INPUT = {"input": {**_any("Text, or a list of texts."), "examples": ["Why is the sky blue?"]}}
FILE = {"file": {"type": "string", "contentMediaType": "application/octet-stream", "description": "The audio."}}
RERANK = {"query": TEXT, "documents": {"type": "array", "items": {}, "minItems": 1}}
SCORE = {"text_1": _any("A text, or a list of texts."), "text_2": _any("What it is compared with.")}

# Every endpoint of vLLM 0.29's app that names a model and computes with it. A closed set: its app has others (adapters,
# sleep, weights, profiles), which are nobody's business from outside.
RELAYED = (
    Relayed("/v1/chat/completions", "Answer a chat", MESSAGES, streams=True),
    Relayed("/v1/chat/completions/batch", "Answer several chats", {"messages": _any("A list of chats.")}),
    Relayed("/v1/completions", "Continue a prompt", {"prompt": _any("A text, a list of texts, or token ids.")}, streams=True),
    Relayed("/v1/responses", "Answer by the Responses API", INPUT, streams=True),
    Relayed("/v1/messages", "Answer a chat by Anthropic's Messages API", MESSAGES, streams=True),
    Relayed("/v1/messages/count_tokens", "Count the tokens of a chat by Anthropic's Messages API", MESSAGES),
    Relayed("/v1/embeddings", "Embed texts, by an embedder or a model", INPUT),
    Relayed("/v1/score", "Score pairs of texts", SCORE),
    Relayed("/v1/rerank", "Order documents by relevance", RERANK),
    Relayed("/v1/audio/transcriptions", "Write down speech", FILE, streams=True, takes_form=True),
    Relayed("/v1/audio/translations", "Write down speech in English", FILE, streams=True, takes_form=True),
    Relayed("/v2/embed", "Embed texts or images by Cohere's API"),
    Relayed("/v2/rerank", "Order documents by relevance, by Cohere's API", RERANK),
    Relayed("/score", "Score pairs of texts", SCORE),
    Relayed("/rerank", "Order documents by relevance", RERANK),
    Relayed("/classify", "Classify texts", INPUT),
    Relayed("/pooling", "Return a pooling model's output", INPUT),
    Relayed("/tokenize", "Cut a prompt or a chat into tokens"),
    Relayed("/detokenize", "Put tokens together", {"tokens": {"type": "array", "items": {"type": "integer"}}}),
)
RELAYED_PATHS = tuple(each.path for each in RELAYED)
STREAMED_PATHS = frozenset(each.path for each in RELAYED if each.streams)
