from __future__ import annotations

from typing import Any

import pytest

from serve_app.affinity import MAX_SESSION_CHARS, MAX_VALUES, PREFIX_CHARS, PREFIX_TOKENS, affinity_key, prefix_key
from serve_app.errors import BadRequest

SYSTEM = {"role": "system", "content": "Be brief."}
FIRST = {"role": "user", "content": "Why?"}
CHAT: dict[str, Any] = {"messages": [SYSTEM, FIRST]}


def test_the_session_comes_before_the_user_before_the_messages() -> None:
    body = {**CHAT, "user": "ann"}
    keys = [affinity_key("t", body, session_id="s1"), affinity_key("t", body), affinity_key("t", CHAT)]
    assert keys[:2] == ["t/s/s1", "t/u/ann"]
    assert keys[2].startswith("t/h/")


def test_a_growing_chat_keeps_its_key() -> None:
    more = [{"role": "assistant", "content": "Because."}, {"role": "user", "content": "And?"}]
    assert affinity_key("t", {"messages": [SYSTEM, FIRST, *more]}) == affinity_key("t", CHAT)


def test_another_first_question_is_another_conversation() -> None:
    other = {"messages": [SYSTEM, {"role": "user", "content": "How?"}]}
    assert affinity_key("t", other) != affinity_key("t", CHAT)


@pytest.mark.parametrize("session", ["s1", None], ids=["session", "messages"])
def test_the_tenant_is_part_of_the_key(session: str | None) -> None:
    assert affinity_key("a", CHAT, session_id=session) != affinity_key("b", CHAT, session_id=session)


def test_a_session_is_no_user() -> None:
    assert affinity_key("t", {"user": "x"}) != affinity_key("t", {}, session_id="x")


@pytest.mark.parametrize("field", ["prompt", "input"])
def test_what_is_no_chat_is_keyed_by_its_text(field: str) -> None:
    assert affinity_key("t", {field: "a"}) == affinity_key("t", {field: "a", "n": 2})
    assert affinity_key("t", {field: "a"}) != affinity_key("t", {field: "b"})


@pytest.mark.parametrize("user", ["", 7, None], ids=["empty", "number", "null"])
def test_a_user_that_is_no_text_does_not_count(user: object) -> None:
    assert affinity_key("t", {**CHAT, "user": user}) == affinity_key("t", CHAT)


def test_long_ids_are_cut() -> None:
    assert len(affinity_key("t", {}, session_id="x" * 9999)) == len("t/s/") + MAX_SESSION_CHARS


def test_messages_of_any_shape_have_a_key() -> None:
    assert affinity_key("t", {"messages": ["x", 1, None, {"content": "\ud800"}]}).startswith("t/h/")


def test_messages_nested_without_end_are_the_clients_fault() -> None:
    with pytest.raises(BadRequest, match="nested too deeply"):
        affinity_key("t", {"messages": nested(100_000)})


def test_keys_stay_what_they_were() -> None:
    assert affinity_key("t", {**CHAT, "n": 2}) == "t/h/8ccd36f86f93a73a6bd57b69"
    assert affinity_key("t", {"prompt": 'a "quoted" line\n\x01'}) == "t/h/aab33241f38bd829022cdc1d"


LONG = "x" * PREFIX_CHARS
GROWN = [SYSTEM, FIRST, {"role": "assistant", "content": "Because."}, {"role": "user", "content": "And?"}]
PARTS = {"role": "user", "content": [{"type": "text", "text": "Why?"}]}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(CHAT, {"messages": GROWN, "user": "ann", "n": 2}, id="a-growing-chat"),
        pytest.param(CHAT, {"messages": [SYSTEM, PARTS]}, id="text-parts"),
        pytest.param({"input": [FIRST], "instructions": "i"}, {"input": [FIRST, *GROWN], "instructions": "i"}, id="responses"),
        pytest.param(
            {"system": "s", "messages": [FIRST]},
            {"system": [{"type": "text", "text": "s"}], "messages": [FIRST]},
            id="anthropic",
        ),
        pytest.param({"prompt": LONG + "a"}, {"prompt": LONG + "b"}, id="a-long-prompt"),
        pytest.param({"prompt": ["a", "b"]}, {"prompt": "a"}, id="several-prompts"),
        pytest.param({"prompt": [*range(PREFIX_TOKENS), 1]}, {"prompt": [*range(PREFIX_TOKENS), 2]}, id="token-ids"),
        pytest.param({"prompt": [[1, 2], [3]]}, {"prompt": [1, 2]}, id="several-lists-of-token-ids"),
        pytest.param(
            {"messages": [{"role": "system", "content": LONG}, FIRST]},
            {"messages": [{"role": "system", "content": LONG}, {"role": "user", "content": "How?"}]},
            id="a-long-system-prompt",
        ),
    ],
)
def test_prompts_that_start_alike_share_a_prefix_key(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert prefix_key(one) == prefix_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(CHAT, {"messages": [SYSTEM, {"role": "user", "content": "How?"}]}, id="another-question"),
        pytest.param({"messages": [FIRST]}, {"messages": [FIRST], "system": "s"}, id="another-system-prompt"),
        pytest.param({"input": "a"}, {"input": "a", "instructions": "i"}, id="other-instructions"),
        pytest.param({"prompt": "ab"}, {"prompt": ["a", "b"]}, id="another-prompt"),
        pytest.param({"prompt": [1, 23]}, {"prompt": [12, 3]}, id="other-tokens"),
        pytest.param({"query": "a", "documents": ["b"]}, {"query": "a", "documents": ["c"]}, id="no-prompt-at-all"),
        pytest.param({"prompt": [1.5]}, {"prompt": [2.5]}, id="numbers"),
    ],
)
def test_prompts_that_start_differently_do_not(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert prefix_key(one) != prefix_key(other)


def test_a_session_is_its_own_prefix() -> None:
    keys = [prefix_key(CHAT, session_id="s1"), prefix_key({}, session_id="s1"), prefix_key({}, session_id="x" * 9999)]
    assert keys == ["s/s1", "s/s1", "s/" + "x" * MAX_SESSION_CHARS]


def nested(depth: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"messages": None, "prompt": None}, id="null"),
        pytest.param({"messages": 7}, id="number"),
        pytest.param({"messages": ["x", 1, None, {"role": 3, "content": "\ud800"}]}, id="odd-messages"),
        pytest.param({"messages": [{}, "x", None]}, id="empty-message-first"),
        pytest.param({"prompt": [10**6000, -1, True, "x", {}]}, id="odd-tokens"),
        pytest.param({"prompt": [10**6000, -1, True]}, id="impossible-token-ids"),
        pytest.param({"prompt": [{"a": [10**6000]}]}, id="huge-number"),
        pytest.param({"messages": nested(100_000)}, id="nested-messages"),
        pytest.param({"x": nested(100_000)}, id="nested-body"),
        pytest.param({"messages": [{}] * 10 * MAX_VALUES}, id="many-empty-messages"),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": LONG}}]}]}, id="image"
        ),
    ],
)
def test_any_body_has_a_prefix_key(body: dict[str, Any]) -> None:
    assert prefix_key(body).startswith("p/")
