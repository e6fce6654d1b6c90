from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.documents import requests
from serve_app.documents.records import BatchMember, Chunking, ExpiresAfter
from serve_app.errors import BadRequest

PARSERS = [
    requests.parse_new_store,
    requests.parse_store_changes,
    requests.parse_new_store_file,
    requests.parse_new_batch,
    requests.parse_new_attributes,
    requests.parse_search,
]
FIELDS = st.sampled_from(
    [
        *("name", "description", "metadata", "expires_after", "anchor", "days", "file_ids", "files", "file_id", "attributes"),
        *("chunking_strategy", "type", "static", "max_chunk_size_tokens", "chunk_overlap_tokens", "query", "filters", "key"),
        *("value", "max_num_results", "ranking_options", "score_threshold"),
    ]
)
WORDS = st.text(max_size=9) | FIELDS | st.sampled_from(["auto", "eq"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | WORDS
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=10,
)


@pytest.mark.parametrize("parse", PARSERS, ids=lambda parse: parse.__name__)
@given(body=st.dictionaries(FIELDS, JSON, max_size=5))
def test_any_json_is_parsed_or_refused_with_the_field(parse: Any, body: dict[str, Any]) -> None:
    try:
        parsed = parse(body)
    except BadRequest as err:
        named: object = err.param
    else:
        named = "none needed"
        assert pickle.loads(pickle.dumps(parsed)) == parsed  # noqa: S301 -- it travels to the service
    assert named


def test_a_new_store_is_read_whole() -> None:
    body = {
        "name": "birds",
        "description": "all of them",
        "metadata": {"a": "b"},
        "expires_after": {"anchor": "last_active_at", "days": 7},
        "file_ids": ["file-1"],
        "chunking_strategy": {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 50}},
    }
    member = BatchMember("file-1", chunking=Chunking(100, 50))
    assert requests.parse_new_store(body) == requests.NewStore("birds", "all of them", {"a": "b"}, ExpiresAfter(7), (member,))


def test_a_batch_takes_each_file_once_with_its_last_settings() -> None:
    body = {"files": [{"file_id": "file-1"}, {"file_id": "file-1", "attributes": {"a": 1}}]}
    assert requests.parse_new_batch(body) == (BatchMember("file-1", {"a": 1}),)


def test_null_means_left_out_or_emptied() -> None:
    assert requests.parse_new_store({"name": None, "metadata": None}) == requests.NewStore()
    changes = requests.parse_store_changes({"name": None, "metadata": None, "expires_after": None})
    assert changes == {"name": "", "metadata": {}, "expires_after": None}
    assert requests.parse_store_changes({}) == {}


@pytest.mark.parametrize("overlap", [51, -1, True, 1.0])
def test_an_overlap_over_half_of_a_chunk_is_refused(overlap: object) -> None:
    static = {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": overlap}
    with pytest.raises(BadRequest, match="chunk_overlap_tokens must be a whole number between 0 and 50"):
        requests.parse_chunking({"type": "static", "static": static}, param="chunking_strategy")
