from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.sse import EventBuffer, error_event, event_document, json_event, with_document

EVENTS = [b'data: {"a": 1}\n\n', b": ping\r\n\r\n", b"data: [DONE]\n\n", b"event: x\r\ndata: {}\r\n\r\n"]


@settings(deadline=None)
@given(st.lists(st.sampled_from(EVENTS), max_size=5), st.lists(st.integers(0, 80), max_size=8), st.booleans())
def test_events_come_out_whole_however_they_were_cut(events: list[bytes], cuts: list[int], has_rest: bool) -> None:
    data = b"".join(events) + (b"data: {" if has_rest else b"")
    ends = [0, *sorted(min(c, len(data)) for c in cuts), len(data)]
    made = EventBuffer()
    found = [event for a, b in pairwise(ends) for event in made.feed(data[a:b])]
    assert found == events
    assert (made.flush(), made.flush()) == (b"data: {" if has_rest else b"", b"")


@pytest.mark.parametrize(
    ("event", "document"),
    [
        (b'data: {"a": 1}\n\n', {"a": 1}),
        (b'event: x\r\ndata:{"a": 1}\r\n\r\n', {"a": 1}),
        (b"data: [DONE]\n\n", None),
        (b'data: {"a"', None),
        (b"data: [1]\n\n", None),
        (b'data: "\xff"\n\n', None),
        (b": ping\n\n", None),
        (b'data: {"a":\nid: 3\ndata: 1}\n\n', {"a": 1}),
    ],
    ids=["plain", "named-crlf", "done", "cut", "list", "no-utf-8", "comment", "two-lines"],
)
def test_the_document_of_an_event(event: bytes, document: object) -> None:
    assert event_document(event) == document


def test_a_document_survives_its_way_as_an_event() -> None:
    assert event_document(json_event({"a": "é\n\n"})) == {"a": "é\n\n"}


def test_an_event_may_have_a_name() -> None:
    assert json_event({"a": 1}, name="x") == b'event: x\ndata: {"a": 1}\n\n'


@pytest.mark.parametrize(
    ("event", "changed"),
    [
        (b'data: {"a": 1}\n\n', b'data: {"b": 2}\n\n'),
        (b'event: x\r\ndata: {"a": 1}\r\n\r\n', b'event: x\ndata: {"b": 2}\n\n'),
        (b'data: {"a":\ndata: 1}\nid: 7\n\n', b'id: 7\ndata: {"b": 2}\n\n'),
        (b'event: x\ndata: {"a": 1}', b'event: x\ndata: {"b": 2}\n\n'),
    ],
    ids=["plain", "named-crlf", "two-lines", "unended"],
)
def test_an_event_with_another_document_keeps_its_other_lines(event: bytes, changed: bytes) -> None:
    assert with_document(event, {"b": 2}) == changed


def test_the_error_event_is_openais_error_object() -> None:
    assert json.loads(error_event("broke").removeprefix(b"data: "))["error"] == {
        "message": "broke",
        "type": "server_error",
        "param": None,
        "code": "stream_broken",
    }


def test_anthropics_clients_get_anthropics_error_event() -> None:
    name, _, data = error_event("broke", path="/v1/messages").partition(b"\n")
    assert name == b"event: error"
    assert json.loads(data.removeprefix(b"data: ")) == {"type": "error", "error": {"type": "api_error", "message": "broke"}}
