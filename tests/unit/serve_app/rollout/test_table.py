from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.rollout.table import BUCKETS, BucketRange, bucket_of, pick, ranges

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
