"""Where the question is, in each wire form, and how the prompt gets in its place."""

from __future__ import annotations

from typing import Any

import pytest

from serve_app.errors import BadRequest
from serve_app.prompts import Turn
from serve_app.rag.chain import FORMS
from serve_app.rag.turns import Asked
from tests.unit.serve_app.rag.asking import CHAT, COMPLETIONS, MESSAGES, RESPONSES

QUESTION = {"role": "user", "content": "Why?"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}
EARLIER = [
    {"role": "system", "content": "Brief."},
    {"role": "user", "content": [{"type": "text", "text": "What?"}, IMAGE]},
    {"role": "assistant", "content": "That."},
    {"role": "assistant", "content": None, "tool_calls": []},
]
HISTORY = (Turn("user", "What?"), Turn("assistant", "That."))


def read(path: str, **body: Any) -> Asked:
    return FORMS[path].read(body)


@pytest.mark.parametrize(("path", "field"), [(CHAT, "messages"), (RESPONSES, "input"), (MESSAGES, "messages")])
def test_the_last_question_is_asked_after_what_was_said(path: str, field: str) -> None:
    asked = read(path, **{field: [*EARLIER, QUESTION], "top_p": 1})
    assert (asked.question, asked.history) == ("Why?", HISTORY)
    assert asked.put("P") == {field: [*EARLIER, {"role": "user", "content": "P"}], "top_p": 1}


@pytest.mark.parametrize(
    ("path", "body", "put"),
    [
        (RESPONSES, {"input": "Why?"}, {"input": "P"}),
        (COMPLETIONS, {"prompt": "Why?"}, {"prompt": "P"}),
        (COMPLETIONS, {"prompt": ["Why?"]}, {"prompt": "P"}),
    ],
    ids=["input", "prompt", "one-prompt"],
)
def test_a_text_is_a_question_without_a_history(path: str, body: dict[str, Any], put: dict[str, Any]) -> None:
    asked = read(path, **body)
    assert (asked.question, asked.history, asked.put("P")) == ("Why?", (), put)


def test_texts_among_the_parts_are_one_question_and_the_other_parts_stay() -> None:
    marked = {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}
    odd = {"type": "text", "text": 3}
    asked = read(CHAT, messages=[{"role": "user", "content": [IMAGE, marked, odd, {"type": "text", "text": "b"}]}])
    assert asked.question == "a\nb"
    assert asked.put("P")["messages"][0]["content"] == [IMAGE, {**marked, "text": "P"}, odd]


def test_the_parts_of_responses_are_read() -> None:
    items = [
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "That.", "annotations": []}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Why?"}, {"type": "input_image"}]},
    ]
    asked = read(RESPONSES, input=items)
    assert (asked.question, asked.history) == ("Why?", (Turn("assistant", "That."),))
    assert asked.put("P")["input"][1]["content"] == [{"type": "input_text", "text": "P"}, {"type": "input_image"}]


AFTER_TOOLS: dict[str, tuple[str, str, list[dict[str, Any]]]] = {
    "chat": (
        CHAT,
        "messages",
        [{"role": "assistant", "tool_calls": [{"id": "t"}]}, {"role": "tool", "tool_call_id": "t", "content": "42"}],
    ),
    "responses": (
        RESPONSES,
        "input",
        [{"type": "function_call", "call_id": "t"}, {"type": "function_call_output", "call_id": "t", "output": "42"}],
    ),
    "messages": (
        MESSAGES,
        "messages",
        [
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t"}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "42"}]},
        ],
    ),
    "prefill": (MESSAGES, "messages", [{"role": "assistant", "content": "Because"}]),
}


@pytest.mark.parametrize(("path", "field", "after"), AFTER_TOOLS.values(), ids=AFTER_TOOLS.keys())
def test_what_follows_the_question_stays(path: str, field: str, after: list[dict[str, Any]]) -> None:
    asked = read(path, **{field: [QUESTION, *after]})
    assert asked.question == "Why?"
    assert asked.put("P") == {field: [{"role": "user", "content": "P"}, *after]}


def test_putting_the_prompt_leaves_the_request_as_it_was() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}]
    read(CHAT, messages=messages).put("P")
    assert messages == [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}]


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "missing": (CHAT, {}, "non-empty list of messages"),
    "null": (CHAT, {"messages": None}, "non-empty list of messages"),
    "empty": (MESSAGES, {"messages": []}, "non-empty list of messages"),
    "no-object": (CHAT, {"messages": ["x"]}, "non-empty list of messages"),
    "no-user": (CHAT, {"messages": [{"role": "assistant", "content": "x"}]}, "must hold a message of the user"),
    "no-content": (CHAT, {"messages": [{"role": "user"}]}, "non-empty string"),
    "blank": (CHAT, {"messages": [{"role": "user", "content": " "}]}, "non-empty string"),
    "image-only": (CHAT, {"messages": [QUESTION, {"role": "user", "content": [IMAGE]}]}, "non-empty string"),
    "no-parts": (CHAT, {"messages": [{"role": "user", "content": []}]}, "non-empty string"),
    "surrogate": (CHAT, {"messages": [{"role": "user", "content": "\ud800"}]}, "valid Unicode"),
    "results-only": (
        MESSAGES,
        {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]},
        "must hold a message of the user",
    ),
    "no-input": (RESPONSES, {}, "non-empty string"),
    "number": (RESPONSES, {"input": 3}, "non-empty string"),
    "empty-input": (RESPONSES, {"input": []}, "non-empty list of messages"),
    "no-prompt": (COMPLETIONS, {}, "non-empty string"),
    "prompts": (COMPLETIONS, {"prompt": ["a", "b"]}, "one text"),
    "tokens": (COMPLETIONS, {"prompt": [1, 2]}, "one text"),
    "token": (COMPLETIONS, {"prompt": [1]}, "non-empty string"),
}
FIELDS = {CHAT: "messages", MESSAGES: "messages", RESPONSES: "input", COMPLETIONS: "prompt"}


@pytest.mark.parametrize(("path", "body", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_request_without_a_question_is_refused_by_its_field(path: str, body: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message) as caught:
        FORMS[path].read(body)
    assert caught.value.param == FIELDS[path]
