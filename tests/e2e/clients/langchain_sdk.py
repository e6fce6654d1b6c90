"""LangChain: ChatOpenAI and OpenAIEmbeddings of langchain-openai."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import openai
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

from tests.e2e.clients.checks import PROMPT, QUESTION, TRIES, Checks, error_of, place

HERE = place()
check = Checks()


def chat_of(model: str = "chat", **more: Any) -> Any:
    settings = {"base_url": HERE.v1, "api_key": SecretStr(HERE.key), "max_retries": 0, "timeout": 120, "temperature": 0}
    return ChatOpenAI(model=model, **{**settings, "max_tokens": 40, **more})


class Verdict(BaseModel):
    """Whether it is so."""

    verdict: Literal["yes", "no"]
    is_sure: bool


def weather(city: Literal["Paris", "Oslo"]) -> str:
    """Weather of a city."""
    return f"sunny in {city}"


@check("invoke")
def invoke() -> str:
    answer = chat_of().invoke(PROMPT)
    assert answer.text
    assert answer.usage_metadata["output_tokens"] > 0
    assert answer.response_metadata["finish_reason"] == "stop"
    return str(answer.text)


@check("stream")
def stream() -> str:
    whole = chat_of().invoke(PROMPT)
    pieces = list(chat_of(stream_usage=True).stream(PROMPT))
    assert "".join(piece.text for piece in pieces) == whole.text
    joined = pieces[0]
    for piece in pieces[1:]:
        joined += piece
    assert joined.usage_metadata["output_tokens"] == whole.usage_metadata["output_tokens"]
    return f"{len(pieces)} pieces"


@check("async-batch")
def async_batch() -> str:
    answers = asyncio.run(chat_of().abatch([PROMPT] * 3))
    assert all(answer.text for answer in answers)
    return f"{len(answers)} at a time"


@check("turns")
def turns() -> str:
    messages = [SystemMessage("Be brief."), HumanMessage("Hi"), AIMessage("Hello."), HumanMessage(PROMPT)]
    assert chat_of().invoke(messages).text
    chain = ChatPromptTemplate.from_messages([("user", "{question}")]) | chat_of()
    return str(chain.invoke({"question": PROMPT}).text)


@check("structured-output")
def structured_output() -> str:
    verdict = chat_of(max_tokens=64).with_structured_output(Verdict).invoke(PROMPT)
    assert isinstance(verdict, Verdict)
    return str(verdict)


@check("structured-output-by-tool")
def structured_output_by_tool() -> str:
    verdict = chat_of(max_tokens=64).with_structured_output(Verdict, method="function_calling").invoke(PROMPT)
    assert isinstance(verdict, Verdict)
    return str(verdict)


@check("tools-named")
def tools_named() -> str:
    answer = chat_of(max_tokens=64).bind_tools([weather], tool_choice="weather").invoke(PROMPT)
    [call] = answer.tool_calls
    assert call["name"] == "weather"
    assert call["args"]["city"] in {"Paris", "Oslo"}
    return str(call["args"])


@check("tools-auto")
def tools_auto() -> str:
    answer = chat_of().bind_tools([weather]).invoke(PROMPT)
    assert answer.tool_calls == []
    return "the demo model chose no tool"


@check("responses")
def responses() -> str:
    answer = chat_of(use_responses_api=True).invoke(PROMPT)
    assert answer.text == chat_of().invoke(PROMPT).text
    return str(answer.text)


@check("responses-stream")
def responses_stream() -> str:
    pieces = list(chat_of(use_responses_api=True).stream(PROMPT))
    assert "".join(piece.text for piece in pieces) == chat_of().invoke(PROMPT).text
    return f"{len(pieces)} pieces"


def embeddings_of(**more: Any) -> Any:
    return OpenAIEmbeddings(model="minilm", base_url=HERE.v1, api_key=SecretStr(HERE.key), max_retries=0, **more)


@check("embeddings")
def embeddings() -> str:
    made = embeddings_of(check_embedding_ctx_length=False)
    vectors = made.embed_documents(["current directory", "a red apple"])
    assert [len(vector) for vector in vectors] == [384, 384]
    assert len(made.embed_query("current directory")) == 384
    return "with check_embedding_ctx_length=False"


@check("pipeline")
def pipeline() -> str:
    answer = chat_of("docs-assistant", max_tokens=60).invoke(QUESTION)
    assert "getcwd" in answer.text or "[1]" in answer.text
    assert answer.response_metadata["model_name"] == "docs-assistant"
    return str(answer.text)


@check("pipeline-stream")
def pipeline_stream() -> str:
    whole = chat_of("docs-assistant", max_tokens=60).invoke(QUESTION)
    pieces = list(chat_of("docs-assistant", max_tokens=60).stream(QUESTION))
    assert "".join(piece.text for piece in pieces) == whole.text
    return f"{len(pieces)} pieces"


@check("pipeline-citations")
def pipeline_citations() -> str:
    # LangChain keeps of an answer what it knows; the SDK below it has it all.
    kept = chat_of("docs-assistant", max_tokens=60).invoke(QUESTION)
    assert "citations" not in {*kept.response_metadata, *kept.additional_kwargs}
    answer = chat_of("docs-assistant").root_client.chat.completions.create(
        model="docs-assistant", messages=[{"role": "user", "content": QUESTION}], max_tokens=60
    )
    assert answer.model_extra["citations"]
    return "through root_client"


@check("pipeline-overrides")
def pipeline_overrides() -> str:
    answer = chat_of("docs-assistant", max_tokens=60, extra_body={"retrieval": {"top_k": 1}}).invoke(QUESTION)
    return str(answer.text)


@check("wrong-key")
def wrong_key() -> str:
    wrong = chat_of(api_key=SecretStr("manta_plain_wrong"))
    return error_of(openai.AuthenticationError, lambda: wrong.invoke(PROMPT)).message


@check("unknown-model")
def unknown_model() -> str:
    return error_of(openai.NotFoundError, lambda: chat_of("nobody").invoke(PROMPT)).message


@check("rate-limit")
def rate_limit() -> str:
    limited = chat_of(api_key=SecretStr(HERE.limited_key), max_tokens=1)
    return error_of(openai.RateLimitError, lambda: limited.invoke(PROMPT), tries=TRIES).message


if __name__ == "__main__":
    check.run()
