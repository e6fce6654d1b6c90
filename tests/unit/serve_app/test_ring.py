from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.ring import ARCS, HashRing, point_of

KEYS = [point_of(f"key {i}") for i in range(2000)]
SMALL_CHANGE = 100  # members beside which one more is inserted, not sorted anew


def ring(*members: int) -> HashRing:
    made = HashRing()
    for member in members:
        made.add(f"r{member}", member)
    return made


def owners(made: HashRing) -> list[int]:
    return [next(made.walk(key)) for key in KEYS]


def test_every_process_agrees_where_a_key_lies() -> None:
    assert (point_of("k"), point_of(b"k"), point_of("\ud800") >> 64) == (7193521810918036140, 7193521810918036140, 0)
    assert next(ring(0, 1, 2).walk(point_of("k"))) == 2


def test_a_walk_meets_every_member_once_and_starts_with_the_owner() -> None:
    made = ring(*range(5))
    for key in KEYS[:100]:
        assert sorted(made.walk(key)) == [0, 1, 2, 3, 4]
    assert {next(made.walk(key)) for key in KEYS[:100]} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("point", [0, 2**64 - 1], ids=["start", "end"])
def test_the_ring_has_no_ends(point: int) -> None:
    made = ring(*range(3))
    assert len(list(made.walk(point))) == 3
    assert next(made.walk(0)) == made.owners[0]


def test_an_empty_ring_leads_nowhere() -> None:
    assert list(ring().walk(KEYS[0])) == []
    left = ring(0)
    left.remove("r0")
    assert (list(left.walk(KEYS[0])), len(left)) == ([], 0)


@pytest.mark.parametrize("count", [1, 2, 10, SMALL_CHANGE])
def test_a_member_that_joins_takes_its_share_and_moves_no_other_key(count: int) -> None:
    made = ring(*range(count))
    before = owners(made)
    made.add("new", 9999)
    moved = [after for old, after in zip(before, owners(made), strict=True) if old != after]
    assert set(moved) <= {9999}
    assert 0 < len(moved) <= 1.5 * len(KEYS) / (count + 1)


@pytest.mark.parametrize("count", [2, 10, SMALL_CHANGE])
def test_a_member_that_leaves_gives_its_keys_to_the_next_ones_and_moves_no_other_key(count: int) -> None:
    made = ring(*range(count))
    walks = [list(made.walk(key))[:2] for key in KEYS]
    made.remove("r0")
    assert owners(made) == [following if first == 0 else first for first, following in walks]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sets(st.integers(0, 40), min_size=1, max_size=8), max_size=6))
def test_the_order_of_changes_leaves_no_trace(batches: list[set[int]]) -> None:
    base = range(100, 100 + SMALL_CHANGE)
    made, members = ring(*base), set(base)
    for batch in [set(), *batches]:
        for member in sorted(batch):
            if member in members:
                made.remove(f"r{member}")
            else:
                made.add(f"r{member}", member)
            members ^= {member}
        made.seek(0)  # each batch is carried out by itself
    fresh = ring(*sorted(members))
    fresh.seek(0)
    assert (made._ends, made.owners, made._starts) == (fresh._ends, fresh.owners, fresh._starts)
    assert len(made) == len(members)


def test_a_name_that_comes_back_between_two_walks_leads_to_its_new_member() -> None:
    made = ring(1)
    assert list(made.walk(0)) == [1]
    made.remove("r1")
    made.add("r1", 2)
    assert list(made.walk(0)) == [2]
    assert len(made.owners) == ARCS


def test_a_member_that_takes_the_number_of_one_that_left_owns_its_own_arcs() -> None:
    made = ring(*range(SMALL_CHANGE))
    made.seek(0)
    made.remove("r0")
    made.add("new", 0)
    other = ring(*range(1, SMALL_CHANGE))
    other.add("new", 0)
    assert owners(made) == owners(other)


def test_a_search_looks_at_as_many_arcs_in_a_large_ring_as_in_a_small_one() -> None:
    most = []
    for count in (2, 2000):
        made = ring(*range(count))
        made.seek(0)
        starts = made._starts
        most.append(max(end - start for start, end in pairwise(starts)).bit_length())
    assert most[1] <= most[0] + 2  # steps of the binary search
