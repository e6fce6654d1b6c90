from __future__ import annotations

import base64
import struct
from typing import Any

import httpx
import pytest

from tests.unit.serve_app.rest.front import error_of, ready, request


async def embed(**body: Any) -> httpx.Response:
    return await request(ready(), "POST", "/v1/embeddings", json={"model": "minilm", "input": "one two", **body})


async def test_embeddings_are_numbers() -> None:
    response = await embed(input=["one two", "abc"], dimensions=2)
    assert response.json() == {
        "object": "list",
        "model": "minilm",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [7.0, 0.5]},
            {"object": "embedding", "index": 1, "embedding": [3.0, 0.5]},
        ],
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }


async def test_embeddings_may_be_base64_of_little_endian_floats() -> None:
    [row] = (await embed(encoding_format="base64")).json()["data"]
    assert struct.unpack("<2f", base64.b64decode(row["embedding"])) == (7.0, 0.5)


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"dimensions": 3}, (400, "invalid_request", "dimensions")),
        ({"input": "a " * 101}, (400, "invalid_request", "input")),
        ({"truncate_prompt_tokens": 7}, (400, "invalid_request", "truncate_prompt_tokens")),
        ({"input": []}, (400, "invalid_request", "input")),
        ({"model": "nope"}, (404, "model_not_found", "model")),
    ],
    ids=["dimensions", "too-long", "cut-elsewhere", "no-input", "unknown-embedder"],
)
async def test_embeddings_name_the_field_at_fault(body: dict[str, Any], answer: tuple[int, str, str]) -> None:
    assert error_of(await embed(**body)) == answer


async def test_a_long_text_is_cut_where_the_caller_says_so_and_only_what_is_read_counts() -> None:
    response = await embed(input="a " * 150, truncate_prompt_tokens=-1)
    assert (response.status_code, response.json()["usage"]["total_tokens"]) == (200, 100)
