from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.affinity import affinity_key
from serve_app.rollout.table import BUCKETS, BucketRange, Share, Split, TrafficTable, arrange, bucket_of, pick, ranges

KEYS = [f"tenant/s/{i}" for i in range(2000)]


def canary_keys(weight: int) -> set[str]:
    table = ranges([("canary", weight), ("stable", 100 - weight)])
    return {key for key in KEYS if pick(table, key) == "canary"}


def test_ranges_follow_the_declared_order() -> None:
    assert ranges([("a", 10), ("b", 0), ("c", 90)]) == (
        BucketRange("a", 0, 1000),
        BucketRange("b", 1000, 1000),
        BucketRange("c", 1000, 10_000),
    )


def test_growing_the_canary_never_moves_a_conversation_back() -> None:
    assert canary_keys(0) < canary_keys(10) < canary_keys(25) < canary_keys(100) == set(KEYS)


@settings(deadline=None)
@given(st.lists(st.integers(0, 100), min_size=1, max_size=6), st.text())
def test_every_key_has_exactly_one_owner_and_it_has_weight(cuts: list[int], key: str) -> None:
    ends = [0, *sorted(cuts), 100]
    weights = [(f"v{i}", b - a) for i, (a, b) in enumerate(pairwise(ends))]
    table = ranges(weights)
    assert [r.variant for r in table if bucket_of(key) in r] == [pick(table, key)]
    assert dict(weights)[pick(table, key)] > 0
    assert (table[0].start, table[-1].stop) == (0, BUCKETS)


@pytest.mark.parametrize("weights", [[("a", 90)], [], [("a", 101), ("b", -1)]], ids=["short", "none", "negative"])
def test_weights_that_do_not_share_everything_are_refused(weights: list[tuple[str, int]]) -> None:
    with pytest.raises(ValueError, match="weights must be 0 or more and sum to 100"):
        ranges(weights)


@pytest.mark.parametrize(
    ("key", "crc"),
    [
        ("123456789", 0xCBF43926),
        ("The quick brown fox jumps over the lazy dog", 0x414FA339),
        ("", 0),
        ("é", 0x0E048D3E),
    ],
    ids=["check-value", "sentence", "empty", "utf-8"],
)
def test_buckets_are_crc_32_of_utf_8(key: str, crc: int) -> None:
    assert bucket_of(key) == crc % BUCKETS


def test_half_a_surrogate_pair_has_a_bucket_too() -> None:
    assert 0 <= bucket_of("tenant/u/\ud800") < BUCKETS


def test_declared_variants_lie_around_the_first_one() -> None:
    names = ("a", "b", "c", "d", "e")
    assert ["".join(arrange(names[:n])) for n in range(1, 6)] == ["a", "ab", "cab", "cabd", "ecabd"]


def shares(**weights: int) -> tuple[Share, ...]:
    return tuple(Share(variant=name, weight=weight) for name, weight in weights.items())


def split(name: str = "chat", baseline: str = "stable", /, **weights: int) -> Split:
    return Split(name=name, shares=shares(**weights), baseline=baseline)


def test_a_split_owns_its_buckets_around_the_first_variant() -> None:
    assert split(stable=80, canary=15, next=5).ranges == (
        BucketRange("next", 0, 500),
        BucketRange("stable", 500, 8500),
        BucketRange("canary", 8500, 10_000),
    )


def test_a_split_names_weights_and_who_was_withdrawn() -> None:
    made = Split(
        name="chat", shares=(*shares(stable=100), Share(variant="canary", weight=0, is_withdrawn=True)), baseline="stable"
    )
    assert (made.weights, made.withdrawn) == ({"stable": 100, "canary": 0}, frozenset({"canary"}))


@pytest.mark.parametrize(
    ("parts", "baseline", "message"),
    [
        ((*shares(stable=50), *shares(stable=50)), "stable", "variant names must be unique"),
        (shares(stable=90, canary=10), "other", "baseline 'other' is none of"),
        (shares(stable=90, canary=5), "stable", "weights must sum to 100, got 95"),
        ((), "stable", "at least 1 item"),
    ],
    ids=["name-twice", "unknown-baseline", "short", "none"],
)
def test_a_split_that_is_not_whole_is_refused(parts: tuple[Share, ...], baseline: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Split(name="chat", shares=parts, baseline=baseline)


@pytest.mark.parametrize("weight", [-1, 101, 10.5], ids=["negative", "over-100", "fractional"])
def test_a_share_is_a_whole_percentage(weight: float) -> None:
    with pytest.raises(ValueError, match="weight"):
        Share.model_validate({"variant": "stable", "weight": weight})


def test_a_table_finds_splits_by_name() -> None:
    chat, docs = split(stable=100), split("docs", stable=100)
    assert TrafficTable(splits=(chat, docs)).by_name == {"chat": chat, "docs": docs}


def test_a_digest_is_the_same_in_every_process_and_order() -> None:
    chat, docs = split(stable=90, canary=10), split("docs", "v1", v1=100)
    tables = [TrafficTable(version=1, splits=(chat, docs)), TrafficTable(version=7, splits=(docs, chat))]
    assert [table.digest for table in tables] == ["896eada641019654"] * 2


@pytest.mark.parametrize(
    "other",
    [
        split(stable=89, canary=11),
        split(canary=10, stable=90),
        split("docs", stable=90, canary=10),
        Split(
            name="chat", shares=(*shares(stable=90), Share(variant="canary", weight=10, is_withdrawn=True)), baseline="stable"
        ),
    ],
    ids=["weight", "order-of-shares", "name", "withdrawn"],
)
def test_whatever_splits_otherwise_has_another_digest(other: Split) -> None:
    assert TrafficTable(splits=(other,)).digest != TrafficTable(splits=(split(stable=90, canary=10),)).digest


def test_a_table_survives_its_way_as_json() -> None:
    table = TrafficTable(version=3, splits=(split(stable=90, canary=10),))
    assert TrafficTable.model_validate_json(table.model_dump_json()) == table


MANY = [bucket_of(f"acme/s/{i:x}-{i * 7919 % 100_003}") for i in range(100_000)]


@pytest.mark.parametrize("weight", [1, 5, 10, 37, 50])
def test_a_variant_gets_its_share_of_many_conversations(weight: int) -> None:
    [canary] = [r for r in split(stable=100 - weight, canary=weight).ranges if r.variant == "canary"]
    share, observed = weight / 100, sum(bucket in canary for bucket in MANY) / len(MANY)
    width = NormalDist().inv_cdf(0.9995) * math.sqrt(share * (1 - share) / len(MANY))
    assert abs(observed - share) <= width


Conversation = Iterator[tuple[dict[str, Any], str | None]]


def chat(i: int) -> Conversation:
    """Yield the growing bodies of a chat, as clients of ``/v1/chat/completions`` and ``/v1/messages`` send them."""
    turns: list[dict[str, Any]] = [{"role": "system", "content": "Be brief."}] if i % 2 else []
    for turn in range(3):
        turns = [*turns, {"role": "user", "content": f"question {i}, {turn}"}]
        yield {"messages": turns, "temperature": turn / 10}, None
        turns = [*turns, {"role": "assistant", "content": f"answer {turn}"}]


def messages(i: int) -> Conversation:
    for turn, (body, _) in enumerate(chat(2 * i)):
        cached = [{"type": "text", "text": "You are kind.", "cache_control": {"type": "ephemeral"}}]
        yield {**body, "system": cached, "max_tokens": 10 + turn}, None


def responses(i: int) -> Conversation:
    for body, _ in chat(i):
        yield {"input": body["messages"], "instructions": "Be kind."}, None


def completions_with_user(i: int) -> Conversation:
    for turn in range(3):
        yield {"prompt": f"story {i}" + " and then" * turn, "user": f"user-{i}"}, None


def completions_with_session(i: int) -> Conversation:
    for turn in range(3):
        yield {"prompt": f"story {i}" + " and then" * turn}, f"session-{i}"


def messages_with_user(i: int) -> Conversation:
    for turn in range(3):
        said = [{"role": "user", "content": f"unrelated {i} {turn}"}]
        yield {"messages": said, "metadata": {"user_id": f"user-{i}"}}, None


def responses_with_session(i: int) -> Conversation:
    for turn in range(3):
        yield {"input": f"next question {turn}", "previous_response_id": f"resp_{i}_{turn}"}, f"session-{i}"


KINDS = (
    chat,
    messages,
    responses,
    completions_with_user,
    completions_with_session,
    messages_with_user,
    responses_with_session,
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_conversation_changes_its_variant_while_the_weights_stay(kind: Callable[[int], Conversation]) -> None:
    table = split(stable=50, canary=37, next=13).ranges
    owners = [
        {pick(table, affinity_key("acme", body, session_id=session)) for body, session in kind(i)}
        for i in range(math.ceil(10_000 / len(KINDS)))
    ]
    assert ([o for o in owners if len(o) > 1], set().union(*owners)) == ([], {"stable", "canary", "next"})


def owners(made: Split) -> list[str]:
    """Return who owns each bucket."""
    return [r.variant for r in made.ranges for _ in range(r.start, r.stop)]


def moved(before: Split, after: Split) -> Counter[tuple[str, str]]:
    """Return how many buckets went from one to another."""
    pairs = zip(owners(before), owners(after), strict=True)
    return Counter(pair for pair in pairs if pair[0] != pair[1])


@pytest.mark.parametrize("names", [("stable", "canary"), ("canary", "stable")], ids=["canary-last", "canary-first"])
def test_growing_from_10_to_20_moves_exactly_the_buckets_that_the_canary_gains(names: tuple[str, str]) -> None:
    before, after = ({"stable": 100 - weight, "canary": weight} for weight in (10, 20))
    made = [split(**{name: weights[name] for name in names}) for weights in (before, after)]
    assert moved(*made) == {("stable", "canary"): 1000}


@pytest.mark.parametrize("name", ["canary", "next"])
@pytest.mark.parametrize("weight", [0, 1, 9, 30, 60])
def test_of_three_variants_one_that_changes_trades_with_the_baseline_only(name: str, weight: int) -> None:
    weights = {"stable": 80, "canary": 10, "next": 10}
    changed = {**weights, name: weight, "stable": 90 - weight}
    pair = ("stable", name) if weight > 10 else (name, "stable")
    assert moved(split(**weights), split(**changed)) == {pair: 100 * abs(weight - 10)}
