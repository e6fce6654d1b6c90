from __future__ import annotations

from typing import Any

import pytest

from serve_app.continuation_plan import CHAT, COMPLETIONS, Plan, plan_of

CHATTING: dict[str, Any] = {"model": "chat", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
COMPLETING: dict[str, Any] = {"model": "chat", "stream": True, "prompt": "Hello"}


def plan(body: dict[str, Any]) -> Plan:
    made = plan_of(CHAT if "messages" in body else COMPLETIONS, body)
    assert made is not None
    return made


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param(CHAT, CHATTING, id="chat"),
        pytest.param(f"{CHAT}?x=1", CHATTING, id="query"),
        pytest.param(COMPLETIONS, COMPLETING, id="completion"),
        pytest.param(COMPLETIONS, {**COMPLETING, "prompt": [1, 2, 3]}, id="token-ids"),
        pytest.param(COMPLETIONS, {**COMPLETING, "prompt": ["Hello"]}, id="list-of-one-text"),
        pytest.param(COMPLETIONS, {**COMPLETING, "prompt": [[1, 2]]}, id="list-of-one-list-of-ids"),
        pytest.param(CHAT, {**CHATTING, "n": 1, "presence_penalty": 0.0, "tools": [], "logprobs": False}, id="what-is-off"),
        pytest.param(CHAT, {**CHATTING, "tools": None, "response_format": {"type": "text"}}, id="what-is-none"),
        pytest.param(CHAT, {**CHATTING, "temperature": 0.7, "top_p": 0.9, "seed": 1, "stop": ["a"]}, id="sampling"),
        pytest.param(
            CHAT, {**CHATTING, "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}, id="text-parts"
        ),
    ],
)
def test_a_text_that_depends_on_its_tokens_only_may_go_on(path: str, body: dict[str, Any]) -> None:
    assert plan_of(path, body) is not None


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("/v1/responses", CHATTING, id="another-endpoint"),
        pytest.param(CHAT, {**CHATTING, "stream": False}, id="no-stream"),
        pytest.param(CHAT, {**CHATTING, "n": 2}, id="several-choices"),
        pytest.param(CHAT, {**CHATTING, "tools": [{"type": "function"}]}, id="tools"),
        pytest.param(CHAT, {**CHATTING, "functions": [{}]}, id="functions"),
        pytest.param(CHAT, {**CHATTING, "logprobs": True}, id="chat-logprobs"),
        pytest.param(COMPLETIONS, {**COMPLETING, "logprobs": 0}, id="completion-logprobs"),
        pytest.param(COMPLETIONS, {**COMPLETING, "echo": True}, id="echo"),
        pytest.param(COMPLETIONS, {**COMPLETING, "best_of": 2}, id="best-of"),
        pytest.param(COMPLETIONS, {**COMPLETING, "suffix": "end"}, id="suffix"),
        pytest.param(COMPLETIONS, {**COMPLETING, "prompt_logprobs": 1}, id="prompt-logprobs"),
        pytest.param(CHAT, {**CHATTING, "response_format": {"type": "json_object"}}, id="grammar"),
        pytest.param(CHAT, {**CHATTING, "structured_outputs": {"regex": "a"}}, id="structured-outputs"),
        pytest.param(CHAT, {**CHATTING, "presence_penalty": 0.5}, id="presence-penalty"),
        pytest.param(CHAT, {**CHATTING, "frequency_penalty": -0.5}, id="frequency-penalty"),
        pytest.param(CHAT, {**CHATTING, "bad_words": ["a b"]}, id="bad-words"),
        pytest.param(CHAT, {**CHATTING, "thinking_token_budget": 9}, id="thinking"),
        pytest.param(CHAT, {**CHATTING, "a_field_of_tomorrow": 1}, id="unknown-field"),
        pytest.param(
            CHAT, {**CHATTING, "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, id="image"
        ),
        pytest.param(CHAT, {**CHATTING, "messages": "Hello"}, id="messages-that-are-none"),
        pytest.param(COMPLETIONS, {**COMPLETING, "prompt": ["a", "b"]}, id="several-prompts"),
        pytest.param(COMPLETIONS, {**COMPLETING, "prompt": []}, id="no-prompt"),
        pytest.param(COMPLETIONS, {**COMPLETING, "max_tokens": "9"}, id="limit-that-is-none"),
        pytest.param(COMPLETIONS, {**COMPLETING, "stop": [1]}, id="stop-that-is-none"),
    ],
)
def test_what_is_remembered_beside_tokens_keeps_a_stream_where_it_is(path: str, body: dict[str, Any]) -> None:
    assert plan_of(path, body) is None


def test_the_other_replica_is_asked_for_what_is_left_under_the_same_rules() -> None:
    rules: dict[str, Any] = {"temperature": 0, "stop": ["a"], "ignore_eos": True, "logit_bias": {"7": 1}, "seed": 3}
    body = {**CHATTING, **rules, "max_completion_tokens": 9, "min_tokens": 5, "chat_template_kwargs": {"x": 1}, "user": None}
    options = {"stream_options": {"include_usage": True}}
    asked = plan({**body, **options}).request([1, 2], [3, 4], room_tokens=None)
    fixed = {
        "model": "chat",
        "prompt": [1, 2, 3, 4],
        "max_tokens": 7,
        "min_tokens": 3,
        "stream": True,
        "return_token_ids": True,
    }
    assert asked == {**rules, **options, **fixed}


@pytest.mark.parametrize(
    ("body", "left"),
    [
        pytest.param({**CHATTING, "max_tokens": 10}, 8, id="chat"),
        pytest.param({**CHATTING, "max_tokens": 10, "max_completion_tokens": 5}, 3, id="the-newer-name-first"),
        pytest.param(CHATTING, 96, id="chat-to-the-contexts-end"),
        pytest.param({**COMPLETING, "max_tokens": 10}, 8, id="completion"),
        pytest.param({**COMPLETING, "max_tokens": None}, 14, id="completion-without-limit"),
    ],
)
def test_what_is_left_counts_from_the_requests_limit(body: dict[str, Any], left: int) -> None:
    asked = plan(body).request([1, 2], [3, 4], room_tokens=100)
    assert asked is not None
    assert asked["max_tokens"] == left


def test_nothing_is_asked_where_nothing_is_left_or_nobody_knows_what() -> None:
    assert plan(CHATTING).request([1], [2], room_tokens=None) is None
    assert plan(CHATTING).request([1], [2], room_tokens=2) is None


def test_a_floor_that_is_reached_is_not_asked_for() -> None:
    asked = plan({**COMPLETING, "min_tokens": 2}).request([1], [2, 3], room_tokens=None)
    assert asked is not None
    assert "min_tokens" not in asked


@pytest.mark.parametrize(
    ("stop", "is_included", "held", "margin"),
    [(None, False, 0, 0), ("a", False, 0, 0), ("abc", False, 2, 2), (["ab", "abcd"], False, 3, 3), (["abcd"], True, 0, 3)],
)
def test_stop_texts_say_how_much_of_the_end_is_open(stop: Any, is_included: bool, held: int, margin: int) -> None:
    made = plan({**CHATTING, "stop": stop, "include_stop_str_in_output": is_included})
    assert (made.held_chars, made.margin_chars) == (held, margin)


@pytest.mark.parametrize(("temperature", "is_greedy"), [(0, True), (0.0, True), (0.1, False), (None, False), (False, False)])
def test_only_a_temperature_of_zero_brings_the_same_tokens_again(temperature: Any, is_greedy: bool) -> None:
    assert plan({**CHATTING, "temperature": temperature}).is_greedy is is_greedy
