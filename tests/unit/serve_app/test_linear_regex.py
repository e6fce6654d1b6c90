from __future__ import annotations

import pytest

from serve_app.linear_regex import LinearRegex


def test_every_match_is_replaced() -> None:
    assert LinearRegex("[0-9]+").replace(["a1b22", "é3"], "[x]") == ["a[x]b[x]", "é[x]"]


@pytest.mark.parametrize(
    ("expression", "said"),
    [("(", "missing"), ("(?<=a)b", "no look-around"), (r"(a)\1", "no look-around"), ("a*", "empty text"), ("^", "empty text")],
    ids=["unclosed", "look-behind", "back-reference", "matches-nothing", "anchor"],
)
def test_what_cannot_be_used_says_why(expression: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LinearRegex(expression)


@pytest.mark.timeout(20)
def test_no_expression_takes_long_on_any_text() -> None:
    text = "a" * 50_000 + "!"
    assert LinearRegex("(a+)+$").replace([text], "") == [text]
