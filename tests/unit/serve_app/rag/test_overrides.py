from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from serve_app.config import PipelineVersionConfig
from serve_app.errors import BadRequest, Forbidden
from serve_app.filters import Comparison
from serve_app.rag.overrides import SearchPlan, search_plan, without_retrieval
from tests.unit.serve_app.rag.asking import pipeline

EQ = {"type": "eq", "key": "lang", "value": "en"}


def plan(wish: object, *, may_search: Callable[[str], bool] = lambda _: True, **overrides: Any) -> SearchPlan:
    [version] = pipeline(overrides=overrides).versions
    return search_plan({"retrieval": wish}, version, may_search)


@pytest.mark.parametrize("body", [{}, {"retrieval": None}, {"retrieval": {}}, {"retrieval": {"top_k": None}}])
def test_without_a_wish_the_version_decides(body: dict[str, Any]) -> None:
    [version] = pipeline().versions
    assert search_plan(body, version, lambda _: False) == SearchPlan("books", 5, None)


def test_wishes_within_bounds_come_true() -> None:
    wish = {"top_k": 20, "collection": "others", "filters": EQ}
    assert plan(wish, max_top_k=20, collections=["others"]) == SearchPlan("others", 20, Comparison("eq", "lang", "en"))


@pytest.mark.parametrize("top_k", [1, 5])
def test_fewer_passages_may_always_be_asked_for(top_k: int) -> None:
    assert plan({"top_k": top_k}).top_k == top_k


def test_the_versions_own_collection_may_be_named_by_whoever_may_use_the_pipeline() -> None:
    assert plan({"collection": "books"}, may_search=lambda _: False).collection == "books"


WRONG: dict[str, tuple[object, dict[str, Any], str, str]] = {
    "unknown": ({"topk": 3}, {}, "retrieval.topk", "retrieval.topk is unknown; retrieval takes top_k, filters, collection"),
    "text": ("all", {}, "retrieval", "retrieval must be an object"),
    "list": ([], {}, "retrieval", "retrieval must be an object"),
    "top-k-text": ({"top_k": "3"}, {}, "retrieval.top_k", "valid integer"),
    "top-k-true": ({"top_k": True}, {}, "retrieval.top_k", "valid integer"),
    "top-k-zero": ({"top_k": 0}, {}, "retrieval.top_k", "greater than or equal to 1"),
    "top-k-raised": ({"top_k": 6}, {}, "retrieval.top_k", "at most 5 here, got 6"),
    "top-k-over": ({"top_k": 21}, {"max_top_k": 20}, "retrieval.top_k", "at most 20 here, got 21"),
    "collection-number": ({"collection": 3}, {}, "retrieval.collection", "valid string"),
    "collection": (
        {"collection": "secret"},
        {"collections": ["others"]},
        "retrieval.collection",
        "must be one of: books, others",
    ),
    "filters": ({"filters": {"type": "near"}}, {}, "retrieval.filters.type", "must be one of eq"),
    "no-filters": ({"filters": EQ}, {"filters": False}, "retrieval.filters", "not open to requests"),
}


@pytest.mark.parametrize(("wish", "overrides", "param", "message"), WRONG.values(), ids=WRONG.keys())
def test_any_other_wish_is_refused_by_its_name(wish: object, overrides: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message) as caught:
        plan(wish, **overrides)
    assert caught.value.param == param


def test_a_name_that_a_client_made_up_is_told_back_shortened() -> None:
    with pytest.raises(BadRequest) as caught:
        plan({"x" * 10_000: 1})
    assert len(caught.value.message) < 200


def test_a_key_bound_to_collections_searches_no_other() -> None:
    with pytest.raises(Forbidden, match="'others'") as caught:
        plan({"collection": "others"}, may_search=lambda name: name == "mine", collections=["others", "mine"])
    assert caught.value.param == "retrieval.collection"


def test_a_refusal_names_only_collections_that_the_key_covers() -> None:
    with pytest.raises(BadRequest, match=r"one of: books, mine$"):
        plan({"collection": "x"}, may_search=lambda name: name == "mine", collections=["others", "mine"])


def test_engines_are_not_told_of_it() -> None:
    assert without_retrieval({"model": "m", "retrieval": 3}) == {"model": "m"}


def test_the_default_must_be_within_what_requests_may_ask_for() -> None:
    with pytest.raises(ValueError, match="max_top_k 4 is under the version's top_k 5"):
        PipelineVersionConfig.model_validate({**pipeline().versions[0].model_dump(), "overrides": {"max_top_k": 4}})
