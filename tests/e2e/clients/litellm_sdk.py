"""LiteLLM: its OpenAI and its Anthropic way to the platform."""

from __future__ import annotations

import asyncio
from typing import Any

import litellm

from tests.e2e.clients.checks import ABOUT, PROMPT, QUESTION, TRIES, Checks, error_of, place

HERE = place()
check = Checks()
litellm.suppress_debug_info = True

ASK = [{"role": "user", "content": PROMPT}]
QUESTIONS = [{"role": "user", "content": QUESTION}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Oslo"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def to_openai(**more: Any) -> dict[str, Any]:
    base = {"model": "openai/chat", "api_base": HERE.v1, "api_key": HERE.key, "messages": ASK, "temperature": 0}
    return {**base, "max_tokens": 40, "timeout": 120, "max_retries": 0, **more}


def to_anthropic(**more: Any) -> dict[str, Any]:
    return to_openai(model="anthropic/chat", api_base=HERE.url, **more)


def text_of(stream: Any) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


@check("completion")
def completion() -> str:
    answer = litellm.completion(**to_openai())
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens > 0
    return str(answer.choices[0].message.content)


@check("stream")
def stream() -> str:
    whole = litellm.completion(**to_openai())
    chunks = list(litellm.completion(**to_openai(), stream=True, stream_options={"include_usage": True}))
    assert text_of(chunks) == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    return f"{len(chunks)} chunks"


@check("async-stream")
def async_stream() -> str:
    async def ask() -> str:
        parts = await litellm.acompletion(**to_openai(), stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in parts])

    text = asyncio.run(ask())
    assert text
    return text


@check("text-completion")
def text_completion() -> str:
    answer = litellm.text_completion(
        model="text-completion-openai/chat", api_base=HERE.v1, api_key=HERE.key, prompt="import os", max_tokens=4
    )
    return repr(answer.choices[0].text)


@check("tools-named")
def tools_named() -> str:
    answer = litellm.completion(
        **to_openai(tools=[WEATHER], tool_choice={"type": "function", "function": {"name": "weather"}}, max_tokens=64)
    )
    [call] = answer.choices[0].message.tool_calls
    assert call.function.name == "weather"
    return str(call.function.arguments)


@check("responses")
def responses() -> str:
    answer = litellm.responses(
        model="openai/chat", api_base=HERE.v1, api_key=HERE.key, input=PROMPT, max_output_tokens=40, temperature=0
    )
    assert answer.status == "completed"
    return str(answer.output_text)


@check("embeddings")
def embeddings() -> str:
    answer = litellm.embedding(model="openai/minilm", api_base=HERE.v1, api_key=HERE.key, input=["one", "two"])
    assert [len(item["embedding"]) for item in answer.data] == [384, 384]
    return "384 numbers"


@check("anthropic-messages")
def anthropic_messages() -> str:
    answer = litellm.completion(**to_anthropic())
    assert answer.choices[0].message.content == litellm.completion(**to_openai()).choices[0].message.content
    return str(answer.choices[0].message.content)


@check("anthropic-stream")
def anthropic_stream() -> str:
    whole = litellm.completion(**to_anthropic())
    text = text_of(litellm.completion(**to_anthropic(), stream=True))
    assert text == whole.choices[0].message.content
    return text


@check("pipeline")
def pipeline() -> str:
    answer = litellm.completion(**to_openai(model="openai/docs-assistant", messages=QUESTIONS, max_tokens=60))
    assert ABOUT in {citation["document_id"] for citation in answer.citations}
    return f"{answer.choices[0].message.content} ({len(answer.citations)} citations)"


@check("pipeline-stream")
def pipeline_stream() -> str:
    arguments = to_openai(model="openai/docs-assistant", messages=QUESTIONS, max_tokens=60)
    assert text_of(litellm.completion(**arguments, stream=True)) == litellm.completion(**arguments).choices[0].message.content
    return "same text as in one piece"


@check("wrong-key")
def wrong_key() -> str:
    wrong = to_openai(api_key="manta_plain_wrong")
    return str(error_of(litellm.AuthenticationError, lambda: litellm.completion(**wrong)).message)


@check("unknown-model")
def unknown_model() -> str:
    unknown = to_openai(model="openai/nobody")
    return str(error_of(litellm.NotFoundError, lambda: litellm.completion(**unknown)).message)


@check("rate-limit")
def rate_limit() -> str:
    limited = to_openai(api_key=HERE.limited_key, max_tokens=1)
    return str(error_of(litellm.RateLimitError, lambda: litellm.completion(**limited), tries=TRIES).message)


if __name__ == "__main__":
    check.run()
