"""LlamaIndex: OpenAILike of llama-index-llms-openai-like."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import openai
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

from tests.e2e.clients.checks import ABOUT, PROMPT, QUESTION, TRIES, Checks, error_of, place

HERE = place()
check = Checks()
ASK = [ChatMessage(role=MessageRole.USER, content=PROMPT)]
QUESTIONS = [ChatMessage(role=MessageRole.USER, content=QUESTION)]


def llm_of(model: str = "chat", **more: Any) -> Any:
    settings = {"api_base": HERE.v1, "api_key": HERE.key, "max_retries": 0, "timeout": 120, "temperature": 0}
    return OpenAILike(model=model, **{**settings, "is_chat_model": True, "context_window": 2048, "max_tokens": 40, **more})


class City(BaseModel):
    """Where the weather is."""

    city: Literal["Paris", "Oslo"]


def weather(city: str) -> str:
    """Weather of a city."""
    return f"sunny in {city}"


@check("complete")
def complete() -> str:
    answer = llm_of(is_chat_model=False).complete("import os")
    assert answer.text
    return repr(answer.text)


@check("complete-stream")
def complete_stream() -> str:
    pieces = list(llm_of(is_chat_model=False).stream_complete("import os"))
    assert "".join(piece.delta or "" for piece in pieces) == llm_of(is_chat_model=False).complete("import os").text
    return f"{len(pieces)} pieces"


@check("chat")
def chat() -> str:
    answer = llm_of().chat(ASK)
    assert answer.message.content
    assert answer.raw.usage.completion_tokens > 0
    return str(answer.message.content)


@check("stream-chat")
def stream_chat() -> str:
    pieces = list(llm_of().stream_chat(ASK))
    assert "".join(piece.delta or "" for piece in pieces) == llm_of().chat(ASK).message.content
    return f"{len(pieces)} pieces"


@check("async-chat")
def async_chat() -> str:
    async def ask() -> list[Any]:
        llm = llm_of()
        return await asyncio.gather(*(llm.achat(ASK) for _ in range(3)))

    answers = asyncio.run(ask())
    assert all(answer.message.content for answer in answers)
    return f"{len(answers)} at a time"


@check("turns")
def turns() -> str:
    messages = [
        ChatMessage(role=MessageRole.SYSTEM, content="Be brief."),
        ChatMessage(role=MessageRole.USER, content="Hi"),
        ChatMessage(role=MessageRole.ASSISTANT, content="Hello."),
        *ASK,
    ]
    return str(llm_of().chat(messages).message.content)


@check("tools-named")
def tools_named() -> str:
    llm = llm_of(is_function_calling_model=True, max_tokens=64)
    answer = llm.chat_with_tools([FunctionTool.from_defaults(weather, fn_schema=City)], user_msg=PROMPT, tool_choice="weather")
    [call] = llm.get_tool_calls_from_response(answer)
    assert call.tool_name == "weather"
    assert call.tool_kwargs["city"] in {"Paris", "Oslo"}
    return str(call.tool_kwargs)


@check("pipeline")
def pipeline() -> str:
    answer = llm_of("docs-assistant", max_tokens=60).chat(QUESTIONS)
    citations = answer.raw.model_extra["citations"]
    assert ABOUT in {citation["document_id"] for citation in citations}
    return f"{answer.message.content} ({len(citations)} citations in raw)"


@check("pipeline-stream")
def pipeline_stream() -> str:
    pieces = list(llm_of("docs-assistant", max_tokens=60).stream_chat(QUESTIONS))
    assert (
        "".join(piece.delta or "" for piece in pieces)
        == llm_of("docs-assistant", max_tokens=60).chat(QUESTIONS).message.content
    )
    [citations] = [piece.raw.model_extra["citations"] for piece in pieces if "citations" in (piece.raw.model_extra or {})]
    return f"{len(citations)} citations in the last raw chunk"


@check("wrong-key")
def wrong_key() -> str:
    return error_of(openai.AuthenticationError, lambda: llm_of(api_key="manta_plain_wrong").chat(ASK)).message


@check("unknown-model")
def unknown_model() -> str:
    return error_of(openai.NotFoundError, lambda: llm_of("nobody").chat(ASK)).message


@check("rate-limit")
def rate_limit() -> str:
    limited = llm_of(api_key=HERE.limited_key, max_tokens=1)
    return error_of(openai.RateLimitError, lambda: limited.chat(ASK), tries=TRIES).message


if __name__ == "__main__":
    check.run()
