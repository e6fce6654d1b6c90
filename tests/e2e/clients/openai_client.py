"""OpenAI's SDK on the platform under test, and what the checks ask through it."""

from __future__ import annotations

import openai
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from tests.e2e.clients.checks import PROMPT, QUESTION, place

HERE = place()
client = openai.OpenAI(base_url=HERE.v1, api_key=HERE.key, timeout=120, max_retries=0)

ASK: list[ChatCompletionMessageParam] = [{"role": "user", "content": PROMPT}]
QUESTIONS: list[ChatCompletionMessageParam] = [{"role": "user", "content": QUESTION}]


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    """Return the text of a stream."""
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
