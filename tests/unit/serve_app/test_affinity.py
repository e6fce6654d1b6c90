from __future__ import annotations

from typing import Any

import pytest

from serve_app.affinity import MAX_SESSION_CHARS, affinity_key
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
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(BadRequest, match="nested too deeply"):
        affinity_key("t", {"messages": nested})
