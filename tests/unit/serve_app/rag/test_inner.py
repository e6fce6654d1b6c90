from __future__ import annotations

import dataclasses
import json
from typing import Any

from serve_app.gateway import Call
from serve_app.rag.inner import InnerCall, inner_call
from tests.unit.serve_app.rag.asking import asking, ready

CHANGED = {"model": "chat", "messages": [{"role": "user", "content": "changed"}]}


def test_the_conversation_is_that_of_the_request_as_sent() -> None:
    """The passages of each question differ; were they part of the key, a chat would move between variants."""
    call = asking()
    inner = inner_call(call, CHANGED)
    view = ready().view
    variants = [view.variant(view.models["chat"], c.affinity) for c in (call, inner)]
    assert inner.affinity == call.affinity
    assert variants[0] == variants[1]


def test_all_but_the_body_is_the_outer_calls() -> None:
    call = dataclasses.replace(asking(), session_id="s1")
    inner = inner_call(call, CHANGED)
    kept = {f.name: getattr(inner, f.name) for f in dataclasses.fields(Call)}
    assert kept == {f.name: getattr(call, f.name) for f in dataclasses.fields(Call)} | {
        "body": CHANGED,
        "raw": json.dumps(CHANGED).encode(),
    }


def test_a_field_that_calls_get_later_is_passed_on() -> None:
    names = {f.name for f in dataclasses.fields(InnerCall)}
    assert names == {f.name for f in dataclasses.fields(Call)} | {"outer_affinity"}


def test_named_fields_change() -> None:
    changes: dict[str, Any] = {"path": "/v1/other", "request_id": "q2"}
    inner = inner_call(asking(), CHANGED, **changes)
    assert (inner.path, inner.request_id) == ("/v1/other", "q2")
