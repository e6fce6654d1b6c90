"""What a request with a token limit is charged on its way through the gateway."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from serve_app.gateway import Call, Gateway, Reply
from serve_app.limits.permit import UNLIMITED, Permit
from serve_app.view import ANONYMOUS
from tests.unit.serve_app.fakes import SSE, FakeResponse, document, entry, gateway, model, snapshot, turns, upstream_of

CHUNK = (
    b'data: {"id": "c", "choices": [{"index": 0, "delta": {"content": "a"}}], '
    b'"usage": {"prompt_tokens": 7, "total_tokens": 8, "completion_tokens": 1}}\n\n'
)


class Account:
    """Hears what is charged."""

    def __init__(self) -> None:
        self.charged: list[int] = []
        self.permit = Permit(charge=self.charged.append)


def chat(permit: Permit, **body: Any) -> Call:
    body = {"model": "chat", "messages": [{"role": "user", "content": "Why?"}], **body}
    return Call("/v1/chat/completions", body, json.dumps(body).encode(), ANONYMOUS, request_id="q1", permit=permit)


def ready(*answers: Any) -> Gateway:
    made = gateway(*answers)
    made.update(snapshot(entry("r1")))
    return made


async def relayed(made: Gateway, call: Call) -> Reply:
    return await made.relay(call, made.view.models["chat"])


async def test_a_whole_answer_is_charged_as_it_says() -> None:
    account = Account()
    await relayed(ready(FakeResponse((b'{"usage": {"total_tokens": 12}}',))), chat(account.permit))
    assert account.charged == [12]


async def test_a_whole_answer_that_says_nothing_is_charged_by_its_prompt() -> None:
    account = Account()
    call = chat(account.permit)
    await relayed(ready(FakeResponse((b"{}",))), call)
    assert account.charged == [len(call.raw) // 4]


async def test_a_stream_that_its_client_leaves_is_charged_for_what_came() -> None:
    account = Account()
    made = ready(FakeResponse((CHUNK, CHUNK.replace(b'"completion_tokens": 1', b'"completion_tokens": 2')), content_type=SSE))
    reply = await relayed(made, chat(account.permit, stream=True))
    assert not isinstance(reply.body, bytes)
    first = await anext(reply.body)
    await reply.body.aclose()
    assert (account.charged, b"usage" in first) == ([8], False)


async def test_the_engine_is_asked_for_usage_in_every_chunk() -> None:
    made = ready(FakeResponse((CHUNK,), content_type=SSE))
    await relayed(made, chat(Account().permit, stream=True))
    sent = json.loads(upstream_of(made).requests[0].body)
    assert sent["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data; boundary=x"])
async def test_without_a_limit_or_with_a_form_the_body_is_sent_as_it_came(content_type: str) -> None:
    made = ready(FakeResponse((CHUNK,), content_type=SSE))
    permit = UNLIMITED if content_type == "application/json" else Account().permit
    call = replace(chat(permit, stream=True), content_type=content_type)
    await relayed(made, call)
    assert upstream_of(made).requests[0].body == call.raw


async def test_a_client_that_leaves_before_a_whole_answer_pays_for_its_prompt() -> None:
    account = Account()
    call = chat(account.permit)
    asking = asyncio.create_task(relayed(ready(FakeResponse((asyncio.Event(),))), call))
    await turns()
    asking.cancel()
    await asyncio.wait([asking])
    assert account.charged == [len(call.raw) // 4]


async def test_a_caller_of_higher_priority_is_served_before_those_who_came_earlier() -> None:
    made = gateway(FakeResponse((b"{}",)))
    answered: list[str] = []

    async def ask(priority: int) -> None:
        caller = ANONYMOUS.model_copy(update={"priority": priority})
        await relayed(made, replace(chat(UNLIMITED), caller=caller))
        answered.append(str(priority))

    made.update(snapshot())
    asking = [asyncio.create_task(ask(priority)) for priority in (1, 5, 9)]
    await turns()
    made.update(snapshot(entry("r1"), routing=document(models=(model(("stable", 100), max_leases=1),)), version=2))
    await asyncio.gather(*asking)
    assert answered == ["9", "5", "1"]
