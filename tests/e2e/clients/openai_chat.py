"""OpenAI's SDK: models and chat."""

from __future__ import annotations

import asyncio
import json
from typing import Literal

import openai
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel

from tests.e2e.clients.checks import Checks
from tests.e2e.clients.openai_client import ASK, HERE, client, text_of

check = Checks()

WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Oslo"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


class Verdict(BaseModel):
    verdict: Literal["yes", "no"]
    is_sure: bool


@check("models")
def models() -> str:
    cards = {card.id: card for card in client.models.list()}
    assert set(cards) == {"chat", "docs-assistant", "minilm"}, sorted(cards)
    assert {card.owned_by for card in cards.values()} == {"manta"}
    assert client.models.retrieve("chat").id == "chat"
    return ", ".join(cards)


@check("chat")
def chat() -> str:
    answer = client.chat.completions.create(model="chat", messages=ASK, temperature=0, max_tokens=40)
    assert answer.model == "chat"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.choices[0].message.content
    return answer.choices[0].message.content


@check("chat-headers")
def chat_headers() -> str:
    raw = client.chat.completions.with_raw_response.create(
        model="chat", messages=ASK, max_tokens=1, extra_headers={"x-request-id": "matrix-1"}
    )
    assert raw.request_id == "matrix-1"
    assert raw.headers["x-manta-model"] == "chat"
    return f"variant {raw.headers['x-manta-variant']}"


@check("session-keeps-variant")
def session_keeps_variant() -> str:
    seen = {}
    for session in ("a", "b", "c", "d", "e", "f"):
        raws = [
            client.chat.completions.with_raw_response.create(
                model="chat",
                messages=[{"role": "user", "content": f"turn {turn}"}],
                max_tokens=1,
                extra_headers={"x-session-id": session},
            )
            for turn in range(3)
        ]
        [seen[session]] = {raw.headers["x-manta-variant"] for raw in raws}
    assert set(seen.values()) == {"stable", "canary"}, seen
    return str(seen)


@check("chat-stream")
def chat_stream() -> str:
    whole = client.chat.completions.create(model="chat", messages=ASK, temperature=0, max_tokens=40)
    chunks = list(client.chat.completions.create(model="chat", messages=ASK, temperature=0, max_tokens=40, stream=True))
    assert text_of(chunks) == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert {c.model for c in chunks} == {"chat"}
    return f"{len(chunks)} chunks"


@check("chat-stream-usage")
def chat_stream_usage() -> str:
    whole = client.chat.completions.create(model="chat", messages=ASK, temperature=0, max_tokens=40)
    stream = client.chat.completions.create(
        model="chat", messages=ASK, temperature=0, max_tokens=40, stream=True, stream_options={"include_usage": True}
    )
    *_, last = stream
    assert last.choices == []
    assert last.usage is not None
    assert whole.usage is not None
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens
    return f"{last.usage.total_tokens} tokens"


@check("chat-async")
def chat_async() -> str:
    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=HERE.v1, api_key=HERE.key, timeout=120, max_retries=0) as made:
            calls = (made.chat.completions.create(model="chat", messages=ASK, temperature=0, max_tokens=40) for _ in range(4))
            return [answer.choices[0].message.content or "" for answer in await asyncio.gather(*calls)]

    answers = asyncio.run(ask())
    assert all(answers)
    return f"{len(answers)} at a time"


@check("chat-turns")
def chat_turns() -> str:
    turns: list[ChatCompletionMessageParam] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "assistant", "content": "Hello."},
        *ASK,
    ]
    answer = client.chat.completions.create(model="chat", messages=turns, max_tokens=8)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 20
    return f"{answer.usage.prompt_tokens} tokens of prompt"


@check("chat-stop")
def chat_stop() -> str:
    answer = client.chat.completions.create(model="chat", messages=ASK, temperature=0, max_tokens=40, stop=["string"])
    assert answer.choices[0].finish_reason == "stop"
    text = answer.choices[0].message.content or ""
    assert text
    assert "string" not in text
    return text


@check("chat-n")
def chat_n() -> str:
    answer = client.chat.completions.create(model="chat", messages=ASK, n=2, max_tokens=8, temperature=1, seed=7)
    assert [choice.index for choice in answer.choices] == [0, 1]
    return "2 choices"


@check("chat-logprobs")
def chat_logprobs() -> str:
    answer = client.chat.completions.create(model="chat", messages=ASK, max_tokens=4, logprobs=True, top_logprobs=2)
    assert answer.choices[0].logprobs is not None
    tokens = answer.choices[0].logprobs.content or []
    assert [len(token.top_logprobs) for token in tokens] == [2] * len(tokens)
    assert len(tokens) == 4
    return str([token.token for token in tokens])


@check("seed")
def same_seed() -> str:
    def drawn(seed: int) -> str:
        answer = client.completions.create(model="chat", prompt="What does", max_tokens=16, temperature=2, seed=seed)
        return answer.choices[0].text

    assert drawn(3) == drawn(3)
    assert len({drawn(seed) for seed in range(4)}) > 1
    return "same seed, same answer"


@check("structured-output")
def structured_output() -> str:
    answer = client.chat.completions.parse(model="chat", messages=ASK, max_tokens=64, temperature=0, response_format=Verdict)
    verdict = answer.choices[0].message.parsed
    assert isinstance(verdict, Verdict)
    return str(verdict)


@check("tools-none")
def tools_none() -> str:
    answer = client.chat.completions.create(
        model="chat", messages=ASK, max_tokens=40, temperature=0, tools=[WEATHER], tool_choice="none"
    )
    assert answer.choices[0].message.content
    assert not answer.choices[0].message.tool_calls
    return "answered without a tool"


@check("tools-auto")
def tools_auto() -> str:
    answer = client.chat.completions.create(model="chat", messages=ASK, max_tokens=40, temperature=0, tools=[WEATHER])
    assert answer.choices[0].message.content
    assert not answer.choices[0].message.tool_calls
    return "the demo model chose no tool"


@check("tools-named")
def tools_named() -> str:
    answer = client.chat.completions.create(
        model="chat",
        messages=ASK,
        max_tokens=64,
        temperature=0,
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "weather"}},
    )
    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "weather"
    assert call.function.arguments.replace(" ", "") in ('{"city":"Paris"}', '{"city":"Oslo"}')
    return call.function.arguments


@check("tools-required-stream")
def tools_required_stream() -> str:
    stream = client.chat.completions.create(
        model="chat", messages=ASK, max_tokens=64, temperature=0, tools=[WEATHER], tool_choice="required", stream=True
    )
    calls = [call for chunk in stream if chunk.choices for call in chunk.choices[0].delta.tool_calls or []]
    # The demo model asks for the tool again and again, until its tokens are used up.
    first = [call.function for call in calls if call.index == 0 and call.function]
    name = "".join(function.name or "" for function in first)
    arguments = "".join(function.arguments or "" for function in first)
    assert name == "weather"
    assert json.loads(arguments)["city"] in {"Paris", "Oslo"}
    return f"{name}({arguments})"


if __name__ == "__main__":
    check.run()
