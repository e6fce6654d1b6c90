from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.stores.fusion import RANK_CONSTANT, fuse

RANKINGS = st.lists(st.lists(st.integers(0, 30), unique=True, max_size=15), max_size=4)


@given(RANKINGS)
def test_every_item_comes_out_once_and_scores_never_rise(rankings: list[list[int]]) -> None:
    fused = fuse(rankings)
    assert sorted(item for item, _ in fused) == sorted({item for ranking in rankings for item in ranking})
    scores = [score for _, score in fused]
    assert scores == sorted(scores, reverse=True)


@given(st.lists(st.integers(), unique=True, max_size=20), st.integers(1, 4))
def test_rankings_that_agree_keep_their_order(ranking: list[int], copies: int) -> None:
    assert [item for item, _ in fuse([ranking] * copies)] == ranking


@given(RANKINGS)
def test_the_order_of_the_rankings_does_not_change_a_score(rankings: list[list[int]]) -> None:
    forward, backward = dict(fuse(rankings)), dict(fuse(rankings[::-1]))
    assert forward.keys() == backward.keys()
    assert all(forward[item] == pytest.approx(backward[item]) for item in forward)


@given(RANKINGS.filter(lambda rankings: len(rankings) >= 2))
def test_an_item_first_everywhere_wins(rankings: list[list[int]]) -> None:
    winner, score = fuse([[-1, *ranking] for ranking in rankings])[0]
    assert winner == -1
    assert score == pytest.approx(len(rankings) / (RANK_CONSTANT + 1))


def test_found_by_both_beats_found_first_by_one() -> None:
    assert [item for item, _ in fuse([["dense", "both"], ["sparse", "both"]])] == ["both", "dense", "sparse"]


def test_a_rank_constant_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        fuse([["a"]], k=0)
