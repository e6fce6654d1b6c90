from __future__ import annotations

import json
from typing import Any

import pytest

from serve_app.observing.masking import MASK, Masker
from serve_app.observing.prompt_texts import MOST_TEXTS, prompt_texts

KEY = "sk-A1b2C3d4E5f6G7h8I9j0"
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"city": "Bern"}'}}

BODIES: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {
    "chat": (
        {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why?"}]},
        [("system", "Be kind."), ("user", "Why?")],
    ),
    "parts": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, IMAGE]}]},
        [("user", "What is it?"), ("user", "[image_url]")],
    ),
    "tool-calls": (
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "content": "12 C"}]},
        [("assistant", '{"city": "Bern"}'), ("tool", "12 C")],
    ),
    "anthropic": (
        {"system": [{"type": "text", "text": "Be brief."}], "messages": [{"role": "user", "content": "Why?"}]},
        [("system", "Be brief."), ("user", "Why?")],
    ),
    "completion": ({"prompt": ["One", "Two"]}, [("prompt", "One"), ("prompt", "Two")]),
    "tokens": ({"prompt": [[1, 2, 3]]}, [("prompt", "[3 tokens]")]),
    "responses": (
        {"instructions": "Be kind.", "input": [{"role": "user", "content": [{"type": "input_text", "text": "Why?"}]}]},
        [("instructions", "Be kind."), ("user", "Why?")],
    ),
    "embeddings": ({"input": "a text"}, [("input", "a text")]),
    "rerank": (
        {"query": "Why?", "documents": ["a", {"text": "b"}]},
        [("documents", "a"), ("documents", "b"), ("query", "Why?")],
    ),
    "role-that-nobody-knows": ({"messages": [{"role": KEY, "content": "x"}]}, [("messages", "x")]),
    "kind-that-is-no-word": ({"messages": [{"role": "user", "content": [{"type": KEY}]}]}, [("user", "[object]")]),
    "nothing": ({"model": "chat"}, []),
    "other-types": ({"messages": 7, "input": None}, [("messages", "[int]"), ("input", "[NoneType]")]),
}


def texts(body: dict[str, Any], chars: int = 2000) -> list[tuple[str, str]]:
    return [(said["role"], said["text"]) for said in prompt_texts(body, Masker(), chars=chars)]


@pytest.mark.parametrize(("body", "said"), BODIES.values(), ids=BODIES.keys())
def test_what_is_asked_is_found_in_every_dialect(body: dict[str, Any], said: list[tuple[str, str]]) -> None:
    assert texts(body) == said


def test_of_a_long_conversation_the_end_is_kept() -> None:
    turns = [{"role": "user", "content": f"turn {i:03d} " * 10} for i in range(50)]
    said = texts({"messages": turns}, chars=150)
    assert said == [("user", ("turn 048 " * 10)[:60]), ("user", "turn 049 " * 10)]


def test_secrets_are_masked_before_the_text_is_cut() -> None:
    assert texts({"prompt": f"my key is {KEY}, thanks"}, chars=16) == [("prompt", f"my key is {MASK}"[:16])]


def test_a_body_of_very_many_texts_is_read_to_a_bound() -> None:
    assert len(texts({"messages": [{"role": "user", "content": ""}] * 100_000})) == MOST_TEXTS


@pytest.mark.timeout(20)
def test_a_body_that_is_nested_without_end_is_read_to_a_bound() -> None:
    assert texts({"messages": json.loads("[" * 500 + "]" * 500)}) == [("messages", "[list]")]
