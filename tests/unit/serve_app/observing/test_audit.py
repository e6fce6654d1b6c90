from __future__ import annotations

from typing import Any

import pytest

from serve_app.config import ApiKeyConfig, LimitsConfig
from serve_app.observing.audit import NAME, Audit, Entry, Event
from serve_app.observing.audit_config import changes, digest
from serve_app.observing.audit_keys import key_entries, keys_digest, limit_entries
from tests.unit.serve_app.observing.lines import kept_lines
from tests.unit.serve_app.test_view import ANN, BOB


def told(before: list[ApiKeyConfig], after: list[ApiKeyConfig]) -> list[tuple[str, str, object, object]]:
    return [(e.event.value, e.subject, e.before, e.after) for e in key_entries(before, after, actor="x")]


def short(key: ApiKeyConfig) -> str:
    return key.hash[-64:][:8]


def changed(key: ApiKeyConfig, **fields: Any) -> ApiKeyConfig:
    return key.model_copy(update=fields)


def test_a_line_has_its_fields_in_their_order() -> None:
    with kept_lines(NAME) as lines:
        Audit(wall=lambda: 1_700_000_000.5).write(
            Entry(Event.ROLLOUT_COMMANDED, "ann", "chat", {"a": 1}, {"a": 2}, "q1", {"verb": "abort"}),
            Entry(Event.CONFIG_REFUSED, "x", "y\n{"),
        )
    first, second = lines.read
    assert list(first.items()) == [
        ("time", "2023-11-14T22:13:20.500Z"), ("event", "rollout.commanded"), ("actor", "ann"), ("subject", "chat"),
        ("before", {"a": 1}), ("after", {"a": 2}), ("request_id", "q1"), ("verb", "abort"),
    ]  # fmt: skip
    assert (second["subject"], second["before"], second["request_id"]) == ("y\n{", None, None)
    assert "\n" not in lines.raw[1]


def test_a_key_that_comes_is_told_with_what_it_may_do_and_no_more_of_its_hash_than_tells_it_apart() -> None:
    key = changed(ANN, admin=True, tokens_per_minute=500)
    said = {"hash": short(ANN), "models": ["chat"], "admin": True, "tokens_per_minute": 500, "priority": 5}
    assert told([], [key]) == [("key.added", "ann", None, said)]
    assert told([key], []) == [("key.removed", "ann", said, None)]


def test_of_a_key_that_changes_only_what_does_is_told_and_limits_by_themselves() -> None:
    new = changed(ANN, hash=BOB.hash, models=None, requests_per_minute=60, priority=9)
    assert told([ANN], [new]) == [
        ("key.changed", "ann", {"hash": short(ANN), "models": ["chat"]}, {"hash": short(BOB), "models": None}),
        ("limits.changed", "ann", {"requests_per_minute": None, "priority": 5}, {"requests_per_minute": 60, "priority": 9}),
    ]


def test_keys_that_stay_are_not_told_in_whatever_order() -> None:
    assert told([ANN, BOB], [BOB, ANN]) == []


def test_no_line_holds_a_hash() -> None:
    entries = list(key_entries([ANN], [changed(ANN, hash=BOB.hash), BOB], actor="x"))
    assert entries
    for key in (ANN, BOB):
        _, salt, secret = key.hash.split(":")
        assert not any(part in str(entries) for part in (salt, secret, secret[:9]))


def test_two_sets_of_keys_are_told_apart() -> None:
    assert keys_digest([ANN]) == keys_digest([changed(ANN)])
    assert len({keys_digest(each) for each in ([], [ANN], [ANN, BOB], [changed(ANN, admin=True)])}) == 4


def test_limits_of_everybody_are_told_where_they_differ() -> None:
    old, new = LimitsConfig(), LimitsConfig(max_choices=4)
    [entry] = limit_entries(old, new, actor="x")
    assert (entry.event, entry.subject, entry.before, entry.after) == (
        Event.LIMITS_CHANGED, "platform", {"max_choices": 16}, {"max_choices": 4},
    )  # fmt: skip
    assert list(limit_entries(old, old, actor="x")) == []


CHAT = {"name": "chat", "variants": [{"name": "stable", "weight": 100, "source": "a"}]}
CANARY = {"name": "canary", "weight": 0, "source": "s3://user:pass@x/y"}
CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]] = {
    "number": ({"a": {"b": 1}}, {"a": {"b": 2.5}}, [{"path": "a.b", "before": 1, "after": 2.5}]),
    "switch": ({"a": False}, {"a": True}, [{"path": "a", "before": False, "after": True}]),
    "text-without-its-value": ({"a": "secret-1"}, {"a": "secret-2"}, [{"path": "a"}]),
    "new-and-gone": ({"a": 1}, {"b": 2}, [{"path": "a", "is": "gone", "before": 1}, {"path": "b", "is": "new", "after": 2}]),
    "named-parts-are-found-by-name": (
        {"models": [CHAT]},
        {"models": [{**CHAT, "variants": [CANARY, {**CHAT["variants"][0], "weight": 90}]}]},  # type: ignore[dict-item]
        [
            {"path": "models[chat].variants[canary].name", "is": "new"},
            {"path": "models[chat].variants[canary].source", "is": "new"},
            {"path": "models[chat].variants[canary].weight", "is": "new", "after": 0},
            {"path": "models[chat].variants[stable].weight", "before": 100, "after": 90},
        ],
    ),
    "others-by-their-place": ({"a": [1, 2]}, {"a": [1, 3]}, [{"path": "a[1]", "before": 2, "after": 3}]),
    "emptied": ({"a": [1]}, {"a": []}, [{"path": "a", "is": "new"}, {"path": "a[0]", "is": "gone", "before": 1}]),
    "nothing": ({"a": [1], "b": {}}, {"b": {}, "a": [1]}, []),
}


@pytest.mark.parametrize(("before", "after", "said"), CHANGES.values(), ids=CHANGES.keys())
def test_what_a_document_changes_is_told_by_paths(before: dict[str, Any], after: dict[str, Any], said: list[Any]) -> None:
    assert changes(before, after) == said


def test_a_digest_does_not_depend_on_the_order_of_fields() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})
