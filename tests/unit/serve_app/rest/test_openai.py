from __future__ import annotations

from typing import Any

import pytest

from serve_app.errors import BadRequest
from serve_app.rest.openai import parse_embeddings


@pytest.mark.parametrize(("given", "texts"), [("a", ["a"]), (["a", "b"], ["a", "b"])], ids=["one", "list"])
def test_input_is_a_text_or_a_list_of_them(given: object, texts: list[str]) -> None:
    assert parse_embeddings({"model": "m", "input": given, "user": "unknown fields pass"}).texts == texts


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": [1, 2]}, "input"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "dimensions": "many"}, "dimensions"),
    ],
    ids=["missing", "tokens", "format", "dimensions"],
)
def test_the_field_at_fault_is_named(body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_embeddings({"model": "m", **body})
    assert caught.value.param == param
