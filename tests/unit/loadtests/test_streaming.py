from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.streaming import MOST_BUFFERED, EventReader, NotEventsError


def event(content: str | None, **fields: object) -> bytes:
    delta = {} if content is None else {"content": content}
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}], **fields}).encode() + b"\n\n"


def read(*pieces: bytes, keeps_text: bool = False) -> EventReader:
    reader = EventReader(keeps_text=keeps_text)
    for number, piece in enumerate(pieces):
        reader.feed(piece, float(number))
    return reader


def test_a_token_has_the_time_at_which_its_bytes_came() -> None:
    reader = read(event("a"), event("b"), event("c"), b"data: [DONE]\n\n")
    assert (reader.stamps, reader.is_done, reader.coalesced) == ([0.0, 1.0, 2.0], True, 0)


def test_tokens_of_one_read_are_known_as_such() -> None:
    assert read(event("a") + event("b"), event("c")).coalesced == 1


@pytest.mark.parametrize(
    "silent",
    [
        pytest.param(event(""), id="role-without-text"),
        pytest.param(event(None, usage={"completion_tokens": 3}), id="usage"),
        pytest.param(b": still waking\n\n", id="comment"),
        pytest.param(b"event: ping\n\n", id="no-data"),
        pytest.param(b'data: {"choices": [{"text": ""}]}\n\n', id="empty-completion"),
    ],
)
def test_what_holds_no_text_is_no_token(silent: bytes) -> None:
    assert read(silent, event("a")).stamps == [1.0]


@pytest.mark.parametrize(
    "spoken",
    [
        pytest.param(b'data: {"choices":[{"text":"a"}]}\n\n', id="completion"),
        pytest.param(b'data: {"choices":[{"delta":{"reasoning_content":"a"}}]}\n\n', id="reasoning"),
        pytest.param(b'data:{"choices":[{"delta":{"content":"\\""}}]}\n\n', id="a-quote-and-no-space"),
    ],
)
def test_all_kinds_of_text_are_tokens(spoken: bytes) -> None:
    assert read(spoken).stamps == [0.0]


def test_an_answer_that_quotes_json_is_not_taken_for_more() -> None:
    reader = read(event('{"content": "", "error": {"message": "no"}}'))
    assert (reader.stamps, reader.error) == ([0.0], None)


def test_passages_are_no_tokens() -> None:
    last = b'data: {"choices": [{"delta": {}}], "citations": [{"text": "a passage"}, {"text": "another"}]}\n\n'
    reader = read(event("a"), last)
    assert (reader.stamps, reader.citations) == ([0.0], 2)


def test_text_beside_citations_is_a_token() -> None:
    assert read(b'data: {"choices": [{"delta": {"content": "end"}}], "citations": [{"text": "a"}]}\n\n').stamps == [0.0]


def test_an_error_event_is_kept_in_words() -> None:
    assert read(b'data: {"error": {"message": "the replica left"}}\n\n').error == "the replica left"
    assert read(b'data: {"error": "gone"}\n\n').error == "gone"


@given(st.lists(st.integers(1, 40), max_size=30), st.booleans())
def test_where_reads_are_cut_changes_no_event(cuts: list[int], has_carriage_returns: bool) -> None:
    whole = event("a") + b": comment\n\n" + event('b"\\') + event(None, usage={"completion_tokens": 2}) + b"data: [DONE]\n\n"
    if has_carriage_returns:
        whole = whole.replace(b"\n", b"\r\n")
    reader = EventReader(keeps_text=True)
    for cut in [*cuts, len(whole)]:
        reader.feed(whole[:cut], 1.0)
        whole = whole[cut:]
    assert (len(reader.stamps), reader.usage, reader.is_done) == (2, {"completion_tokens": 2}, True)
    assert reader.text() == 'ab"\\'


def test_text_is_kept_only_where_it_is_needed() -> None:
    assert read(event("a"), event("b"), keeps_text=True).text() == "ab"
    assert read(event("a")).text() == ""


def test_what_is_no_stream_of_events_is_refused() -> None:
    with pytest.raises(ValueError, match="Expecting"):
        read(b"data: <html>\n\n")
    with pytest.raises(NotEventsError, match="no JSON object"):
        read(b"data: [1]\n\n")
    with pytest.raises(NotEventsError, match="16 MiB"):
        read(b"x" * (MOST_BUFFERED + 1))
