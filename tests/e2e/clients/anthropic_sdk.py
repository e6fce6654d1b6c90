"""Anthropic's SDK: messages, streams, tokens, pipelines, and its errors."""

from __future__ import annotations

from typing import Any

import anthropic
from anthropic.types import MessageParam, ToolParam

from tests.e2e.clients.checks import ABOUT, PROMPT, QUESTION, TRIES, Checks, error_of, place

HERE = place()
check = Checks()
client = anthropic.Anthropic(base_url=HERE.url, api_key=HERE.key, timeout=120, max_retries=0)

# Newer versions of the SDK name no temperature.
GREEDY = {"temperature": 0}
ASK: list[MessageParam] = [{"role": "user", "content": PROMPT}]
QUESTIONS: list[MessageParam] = [{"role": "user", "content": QUESTION}]
WEATHER: ToolParam = {
    "name": "weather",
    "description": "Weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Oslo"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


@check("messages")
def messages() -> str:
    answer = client.messages.create(model="chat", max_tokens=40, messages=ASK, extra_body=GREEDY)
    assert (answer.type, answer.role, answer.model, answer.stop_reason) == ("message", "assistant", "chat", "end_turn")
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens > 0
    return text_of(answer)


@check("messages-stream")
def messages_stream() -> str:
    whole = client.messages.create(model="chat", max_tokens=40, messages=ASK, extra_body=GREEDY)
    with client.messages.stream(model="chat", max_tokens=40, messages=ASK, extra_body=GREEDY) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert "".join(pieces) == text_of(whole) == text_of(final)
    assert final.stop_reason == "end_turn"
    assert final.usage.output_tokens == whole.usage.output_tokens
    return f"{len(pieces)} pieces"


@check("messages-turns")
def messages_turns() -> str:
    turns: list[MessageParam] = [
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "assistant", "content": "Hello."},
        *ASK,
    ]
    answer = client.messages.create(model="chat", system="Be brief.", max_tokens=8, messages=turns)
    assert answer.stop_reason == "max_tokens"
    return f"{answer.usage.input_tokens} tokens of prompt"


@check("messages-stop")
def messages_stop() -> str:
    answer = client.messages.create(model="chat", max_tokens=40, messages=ASK, extra_body=GREEDY, stop_sequences=["string"])
    assert answer.stop_reason == "stop_sequence"
    assert answer.stop_sequence == "string"
    return text_of(answer)


@check("count-tokens")
def count_tokens() -> str:
    counted = client.messages.count_tokens(model="chat", messages=ASK)
    answer = client.messages.create(model="chat", max_tokens=1, messages=ASK)
    assert counted.input_tokens == answer.usage.input_tokens
    return f"{counted.input_tokens} tokens"


@check("tools-named")
def tools_named() -> str:
    answer = client.messages.create(
        model="chat",
        max_tokens=64,
        messages=ASK,
        extra_body=GREEDY,
        tools=[WEATHER],
        tool_choice={"type": "tool", "name": "weather"},
    )
    [call] = [block for block in answer.content if block.type == "tool_use"]
    assert call.name == "weather"
    assert call.input in ({"city": "Paris"}, {"city": "Oslo"})
    assert answer.stop_reason == "end_turn"  # Anthropic itself says tool_use: docs/clients.md tells
    return str(call.input)


@check("tools-auto")
def tools_auto() -> str:
    answer = client.messages.create(model="chat", max_tokens=40, messages=ASK, extra_body=GREEDY, tools=[WEATHER])
    assert text_of(answer)
    return "the demo model chose no tool"


@check("bearer-token")
def bearer_token() -> str:
    with anthropic.Anthropic(base_url=HERE.url, auth_token=HERE.key, api_key=None, timeout=120, max_retries=0) as made:
        assert made.messages.create(model="chat", max_tokens=1, messages=ASK).content
    return "as Authorization: Bearer"


@check("models")
def models() -> str:
    ids = {card.id for card in client.models.list()}
    assert ids == {"chat", "docs-assistant", "minilm"}
    return ", ".join(sorted(ids))


def citations_of(document: Any) -> list[dict[str, Any]]:
    citations: list[dict[str, Any]] = (document.model_extra or {})["citations"]
    assert ABOUT in {citation["document_id"] for citation in citations}
    return citations


@check("pipeline")
def pipeline() -> str:
    answer = client.messages.create(model="docs-assistant", max_tokens=60, messages=QUESTIONS, extra_body=GREEDY)
    assert answer.model == "docs-assistant"
    return f"{text_of(answer)} ({len(citations_of(answer))} citations)"


@check("pipeline-stream")
def pipeline_stream() -> str:
    whole = client.messages.create(model="docs-assistant", max_tokens=60, messages=QUESTIONS, extra_body=GREEDY)
    with client.messages.stream(model="docs-assistant", max_tokens=60, messages=QUESTIONS, extra_body=GREEDY) as stream:
        events = list(stream)
        final = stream.get_final_message()
    assert text_of(final) == text_of(whole)
    assert final.model == "docs-assistant"
    [ending] = [event for event in events if event.type == "message_delta"]
    return f"{len(citations_of(ending))} citations on message_delta"


def message_of(error: anthropic.APIStatusError, kind: str) -> str:
    """Return the message of Anthropic's own error object."""
    body: Any = error.body
    assert (body["type"], body["error"]["type"]) == ("error", kind), body
    return str(body["error"]["message"])


@check("wrong-key")
def wrong_key() -> str:
    wrong = client.with_options(api_key="manta_plain_wrong").messages
    error = error_of(anthropic.AuthenticationError, lambda: wrong.create(model="chat", max_tokens=1, messages=ASK))
    return message_of(error, "authentication_error")


@check("expired-key")
def expired_key() -> str:
    expired = client.with_options(api_key=HERE.expired_key).messages
    error = error_of(anthropic.AuthenticationError, lambda: expired.create(model="chat", max_tokens=1, messages=ASK))
    return message_of(error, "authentication_error")


@check("forbidden-model")
def forbidden_model() -> str:
    narrow = client.with_options(api_key=HERE.embedding_key).messages
    error = error_of(anthropic.PermissionDeniedError, lambda: narrow.create(model="chat", max_tokens=1, messages=ASK))
    return message_of(error, "permission_error")


@check("unknown-model")
def unknown_model() -> str:
    error = error_of(anthropic.NotFoundError, lambda: client.messages.create(model="nobody", max_tokens=1, messages=ASK))
    return message_of(error, "not_found_error")


@check("bad-parameter")
def bad_parameter() -> str:
    error = error_of(anthropic.BadRequestError, lambda: client.messages.create(model="chat", max_tokens=-1, messages=ASK))
    return message_of(error, "invalid_request_error")


@check("rate-limit")
def rate_limit() -> str:
    limited = client.with_options(api_key=HERE.limited_key).messages
    error = error_of(anthropic.RateLimitError, lambda: limited.create(model="chat", max_tokens=1, messages=ASK), tries=TRIES)
    assert int(error.response.headers["retry-after"]) > 0
    return message_of(error, "rate_limit_error")


if __name__ == "__main__":
    check.run()
