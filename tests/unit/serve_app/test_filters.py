from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import BadRequest
from serve_app.filters import (
    MAX_COMPARISONS,
    MAX_DEPTH,
    MAX_LIST_VALUES,
    Attributes,
    Comparison,
    Compound,
    matches,
    parse_filter,
)

BOOK: Attributes = {"year": 2024, "author": "Ada", "draft": False, "price": 9.5}


def passes(**filter_: Any) -> bool:
    return matches(parse_filter(filter_, param="filters"), BOOK)


@pytest.mark.parametrize(
    ("op", "key", "value", "expected"),
    [
        ("eq", "author", "Ada", True),
        ("eq", "author", "ada", False),
        ("eq", "year", 2024.0, True),
        ("ne", "author", "Bob", True),
        ("ne", "author", "Ada", False),
        ("gt", "year", 2023, True),
        ("gt", "year", 2024, False),
        ("gte", "year", 2024, True),
        ("lt", "price", 9.6, True),
        ("lte", "price", 9.4, False),
        ("lt", "author", "Bob", True),
        ("in", "author", ["Bob", "Ada"], True),
        ("in", "author", ["Bob"], False),
        ("nin", "author", ["Bob"], True),
        ("nin", "author", ["Ada"], False),
    ],
)
def test_an_attribute_is_compared(op: str, key: str, value: Any, expected: bool) -> None:
    assert passes(type=op, key=key, value=value) is expected


@pytest.mark.parametrize("op", ["eq", "gt", "gte", "lt", "lte"])
def test_an_absent_attribute_passes_no_comparison(op: str) -> None:
    assert passes(type=op, key="absent", value=1) is False


def test_an_absent_attribute_is_unequal_to_everything() -> None:
    assert passes(type="ne", key="absent", value=1)
    assert passes(type="nin", key="absent", value=[1])
    assert not passes(type="in", key="absent", value=[1])


@pytest.mark.parametrize(("key", "value"), [("year", "2024"), ("draft", 0), ("author", True)])
def test_values_of_different_kinds_are_unequal(key: str, value: Any) -> None:
    assert passes(type="eq", key=key, value=value) is False


def test_compounds_nest() -> None:
    recent, by_bob = {"type": "gt", "key": "year", "value": 2000}, {"type": "eq", "key": "author", "value": "Bob"}
    assert passes(type="or", filters=[recent, by_bob])
    assert not passes(type="and", filters=[recent, by_bob])
    assert passes(type="and", filters=[recent, {"type": "or", "filters": [by_bob, recent]}])


def test_a_filter_is_parsed_into_values() -> None:
    wanted = {
        "type": "and",
        "filters": [{"type": "in", "key": "a", "value": ["x", 1, True]}, {"type": "ne", "key": "b", "value": 1.5}],
    }
    parsed = parse_filter(wanted, param="filters")
    assert parsed == Compound("and", (Comparison("in", "a", ("x", 1, True)), Comparison("ne", "b", 1.5)))


def deep(levels: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"type": "eq", "key": "a", "value": 1}
    for _ in range(levels - 1):
        inner = {"type": "and", "filters": [inner]}
    return inner


ONE = {"type": "eq", "key": "a", "value": 1}


@pytest.mark.parametrize(
    ("document", "param"),
    [
        pytest.param([], "filters", id="no-object"),
        pytest.param({}, "filters.type", id="no-type"),
        pytest.param({"type": "like", "key": "a", "value": "b"}, "filters.type", id="unknown-type"),
        pytest.param({"type": ["eq"], "key": "a", "value": "b"}, "filters.type", id="type-of-a-type"),
        pytest.param({"type": "eq", "value": 1}, "filters.key", id="no-key"),
        pytest.param({"type": "eq", "key": "a"}, "filters.value", id="no-value"),
        pytest.param({"type": "eq", "key": "k" * 65, "value": 1}, "filters.key", id="long-key"),
        pytest.param({"type": "eq", "key": "a", "value": "v" * 513}, "filters.value", id="long-value"),
        pytest.param({"type": "eq", "key": "a", "value": [1]}, "filters.value", id="list-for-eq"),
        pytest.param({"type": "eq", "key": "a", "value": float("inf")}, "filters.value", id="infinite"),
        pytest.param({"type": "eq", "key": "a", "value": 10**400}, "filters.value", id="huge"),
        pytest.param({"type": "eq", "key": "a", "value": "\ud800"}, "filters.value", id="half-a-surrogate-pair"),
        pytest.param({"type": "gt", "key": "a", "value": True}, "filters.value", id="order-of-bools"),
        pytest.param({"type": "in", "key": "a", "value": "abc"}, "filters.value", id="text-for-in"),
        pytest.param({"type": "in", "key": "a", "value": []}, "filters.value", id="nothing-for-in"),
        pytest.param({"type": "in", "key": "a", "value": [1, None]}, "filters.value[1]", id="null-in-in"),
        pytest.param({"type": "in", "key": "a", "value": [1] * (MAX_LIST_VALUES + 1)}, "filters.value", id="long-list"),
        pytest.param({"type": "and", "filters": []}, "filters.filters", id="and-of-nothing"),
        pytest.param({"type": "or", "filters": [ONE, {"type": "eq", "key": ""}]}, "filters.filters[1].key", id="inner"),
        pytest.param({"type": "and", "filters": [ONE] * (MAX_COMPARISONS + 1)}, "filters.filters", id="wide"),
        pytest.param({"type": "and", "filters": [{"type": "or", "filters": [ONE] * 33}] * 2}, "filters", id="many"),
        pytest.param({**ONE, "boost": 2}, "filters.boost", id="unknown-member"),
    ],
)
def test_a_bad_filter_is_refused_and_its_member_named(document: Any, param: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        parse_filter(document, param="filters")
    assert refusal.value.param == param
    assert param in refusal.value.message


def test_the_depth_is_bounded() -> None:
    parse_filter(deep(MAX_DEPTH), param="filters")
    with pytest.raises(BadRequest, match="nested deeper than 8"):
        parse_filter(deep(MAX_DEPTH + 1), param="filters")


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["eq", "and", "in", "gt"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["type", "key", "value", "filters", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(ANY_JSON)
def test_any_json_is_parsed_or_refused(document: Any) -> None:
    try:
        parsed = parse_filter(document, param="filters")
    except BadRequest as err:
        named = err.param or ""
    else:
        named = "filters" if matches(parsed, BOOK) in (True, False) else ""
    assert named.startswith("filters")
