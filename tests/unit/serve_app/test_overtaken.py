"""Requests that a replica holds while later ones are answered go to another one; all others stay where they are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from serve_app.call import Reply
from serve_app.config_router import RetryBudgetConfig
from serve_app.gateway import Gateway
from serve_app.overtaken import BY_OTHERS, BY_SAME, LEAST_WAIT_S, most_tokens
from serve_app.rollout.telemetry import Outcome
from tests.unit.serve_app.fakes import (
    SSE,
    Answer,
    FakeClock,
    FakeResponse,
    call,
    document,
    entry,
    gateway,
    leases_of,
    model,
    snapshot,
    turns,
    upstream_of,
)

DONE = (b"data: {}\n\n", b"data: [DONE]\n\n")
STREAM = {"model": "chat", "stream": True}
WHOLE = {"model": "chat", "max_tokens": 8}


class Lab:
    """Two replicas, ``r0`` and ``r1``, of which tests say what each answers next."""

    def __init__(self, **changes: Any) -> None:
        self.clock = FakeClock()
        self.it = gateway(clock=self.clock)
        routing = document(models=(model(("stable", 100), max_leases=500),), **changes)
        self.it.update(snapshot(entry("r0"), entry("r1"), routing=routing))
        self.hung: list[asyncio.Task[Reply]] = []

    async def ask(self, body: Mapping[str, Any], answer: Answer, *, at: str) -> Reply:
        """Return what one replica answers; the other one has gone from the directory for the moment."""
        upstream_of(self.it).answers[:] = [answer]
        self._know(at)
        asking = asyncio.create_task(self._relay(body))
        await turns()
        self._know("r0", "r1")
        if asking.done():
            return asking.result()
        self.hung.append(asking)
        return await asyncio.shield(asking)

    async def hang(self, body: Mapping[str, Any], *, at: str) -> asyncio.Task[Reply]:
        """Send a request that a replica never answers."""
        waiting = asyncio.create_task(self.ask(body, never, at=at))
        await turns(12)
        waiting.cancel()
        await turns()
        return self.hung[-1]

    async def answered(self, count: int, *, at: str, tokens: int = 8, body: Mapping[str, Any] = STREAM) -> None:
        """Have a replica answer some more requests."""
        for _ in range(count):
            reply = await self.ask(body, whole(tokens) if body is WHOLE else stream(), at=at)
            if not isinstance(reply.body, bytes):
                assert [piece async for piece in reply.body] == [*DONE]

    async def look(self, after_s: float = LEAST_WAIT_S) -> None:
        """Let some time pass and have the Router look at what waits."""
        self.clock.now_s += after_s
        upstream_of(self.it).answers[:] = [whole(3)]
        self.it._relay._overtaken.look()
        await turns(12)

    async def _relay(self, body: Mapping[str, Any]) -> Reply:
        asked = replace(call(), body=body, raw=json.dumps(body).encode())
        return await self.it.relay(asked, self.it.view.models["chat"])

    def _know(self, *names: str) -> None:
        for name, replica in self.it.pool._replicas.items():
            index = replica.home._index
            if index.is_open[replica.seat] != (name in names):
                (index.open if name in names else index.close)(replica.seat)


async def never() -> FakeResponse:
    await asyncio.Event().wait()
    raise AssertionError


def stream() -> FakeResponse:
    return FakeResponse(DONE, content_type=SSE)


def whole(tokens: int) -> FakeResponse:
    return FakeResponse((json.dumps({"usage": {"completion_tokens": tokens}}).encode(),))


def outcomes(it: Gateway) -> dict[Outcome, int]:
    return dict(it.attempts.stats(("chat", "stable")).outcomes)


async def leave(asking: asyncio.Task[Reply], it: Gateway) -> None:
    """End a request that still waits, as its client would."""
    assert not asking.done()
    asking.cancel()
    await turns()
    assert leases_of(it) == 0


@pytest.mark.parametrize("body", [STREAM, WHOLE], ids=["stream", "whole"])
async def test_a_request_that_dozens_of_later_ones_overtook_is_answered_elsewhere(body: Mapping[str, Any]) -> None:
    lab = Lab()
    asking = await lab.hang(body, at="r0")
    await lab.answered(BY_SAME, at="r0", body=body)
    await lab.look()
    assert asking.result().body == b'{"usage": {"completion_tokens": 3}}'
    assert upstream_of(lab.it).asked[0] == "http://r0"
    assert upstream_of(lab.it).asked[-1] == "http://r1"
    assert leases_of(lab.it) == 0
    assert outcomes(lab.it) == {Outcome.OK: BY_SAME + 1, Outcome.TIMEOUT: 1}


@pytest.mark.parametrize("body", [STREAM, WHOLE], ids=["stream", "whole"])
async def test_so_is_one_at_a_replica_that_answers_nothing_while_the_others_do(body: Mapping[str, Any]) -> None:
    lab = Lab()
    asking = await lab.hang(body, at="r0")
    await lab.answered(BY_OTHERS, at="r1", body=body)
    await lab.look()
    assert asking.result().body == b'{"usage": {"completion_tokens": 3}}'
    assert leases_of(lab.it) == 0


async def stays(lab: Lab, asking: asyncio.Task[Reply], after_s: float = LEAST_WAIT_S) -> None:
    await lab.look(after_s)
    await leave(asking, lab.it)
    assert Outcome.TIMEOUT not in outcomes(lab.it)


async def test_one_that_few_have_overtaken_stays() -> None:
    lab = Lab()
    asking = await lab.hang(STREAM, at="r0")
    await lab.answered(BY_SAME - 1, at="r0")
    await stays(lab, asking, 3600.0)


async def test_one_that_has_not_waited_long_stays() -> None:
    lab = Lab()
    asking = await lab.hang(STREAM, at="r0")
    await lab.answered(200, at="r0")
    await stays(lab, asking, LEAST_WAIT_S - 0.1)


async def test_one_at_a_replica_that_goes_on_with_earlier_ones_stays_whatever_others_answer() -> None:
    lab = Lab()
    asking = await lab.hang(STREAM, at="r0")
    lab.clock.now_s += 1
    await lab.answered(1, at="r0")
    await lab.answered(200, at="r1")
    await stays(lab, asking)


async def test_a_whole_answer_may_be_overtaken_by_any_number_of_shorter_ones() -> None:
    lab = Lab()
    asking = await lab.hang(WHOLE, at="r0")
    await lab.answered(200, at="r0", tokens=7, body=WHOLE)
    await stays(lab, asking)


@pytest.mark.parametrize("of_later", [{"n": 8}, {"n": 2}], ids=str)
async def test_several_choices_have_not_as_many_tokens_each(of_later: dict[str, Any]) -> None:
    lab = Lab()
    asking = await lab.hang(WHOLE, at="r0")
    for _ in range(200):
        await lab.ask({**WHOLE, **of_later}, whole(8 * 2), at="r0")
    await stays(lab, asking)


@pytest.mark.parametrize(
    ("max_tokens", "reason", "is_overtaken"),
    [(8, "length", True), (7, "length", False), (8, "stop", False)],
    ids=["as-long-as-allowed", "allowed-fewer", "ended-by-itself"],
)
async def test_a_stream_that_was_cut_had_all_the_tokens_that_it_may_have(
    max_tokens: int, reason: str, is_overtaken: bool
) -> None:
    lab = Lab()
    asking = await lab.hang(WHOLE, at="r0")
    last = json.dumps({"choices": [{"delta": {}, "finish_reason": reason}]}).encode()
    for _ in range(BY_SAME):
        cut = FakeResponse((b"data: {}\n\n", b"data: " + last + b"\n\n", b"data: [DONE]\n\n"), content_type=SSE)
        reply = await lab.ask({**STREAM, "max_tokens": max_tokens}, cut, at="r0")
        assert not isinstance(reply.body, bytes)
        assert len([piece async for piece in reply.body]) == 3
    await lab.look()
    assert asking.done() is is_overtaken
    asking.cancel()


async def test_a_whole_answer_that_may_become_as_long_as_it_likes_is_left_alone() -> None:
    lab = Lab()
    asking = await lab.hang({"model": "chat"}, at="r0")
    await lab.answered(200, at="r0", tokens=5_000, body=WHOLE)
    await stays(lab, asking)


async def test_an_overtaken_request_stays_where_nobody_else_may_answer_it() -> None:
    lab = Lab()
    asking = await lab.hang(STREAM, at="r0")
    await lab.answered(200, at="r0")
    lab.it.update(snapshot(entry("r0"), routing=document(models=(model(("stable", 100), max_leases=500),)), version=2))
    await stays(lab, asking)


async def test_an_overtaken_request_stays_while_the_budget_is_spent_and_goes_when_it_is_not() -> None:
    lab = Lab()
    lab.it.budgets.limits = RetryBudgetConfig(ratio=0, min_per_s=0)
    asking = await lab.hang(STREAM, at="r0")
    await lab.answered(BY_SAME, at="r0")
    await lab.look()
    assert not asking.done()
    lab.it.budgets.limits = RetryBudgetConfig()
    await lab.look(1)
    assert asking.result().body == b'{"usage": {"completion_tokens": 3}}'


async def test_a_replica_that_answers_nothing_is_left_alone_in_the_end() -> None:
    lab = Lab()
    asked = [await lab.hang(STREAM, at="r0") for _ in range(5)]
    await lab.answered(BY_OTHERS, at="r1")
    await lab.look()
    assert all(asking.done() for asking in asked)
    assert lab.it.pool.ejected() == {"r0": Outcome.TIMEOUT}


async def test_what_nobody_asks_any_more_is_forgotten() -> None:
    lab = Lab()
    await lab.answered(3, at="r0")
    watch = lab.it._relay._overtaken
    assert watch._variants
    await lab.look(3600)
    assert not watch._variants


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6, "max_tokens": 5}, 6),
        ({"max_output_tokens": 7}, 7),
        ({}, None),
        *(({"max_tokens": value}, None) for value in (0, -1, "5", 5.0, True, None)),
    ],
    ids=str,
)
def test_how_long_an_answer_may_become(body: dict[str, Any], tokens: int | None) -> None:
    assert most_tokens(body) == tokens
