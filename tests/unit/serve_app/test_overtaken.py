"""Requests that later ones overtake go to a second replica as well, and the first answer counts; all others wait on."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from serve_app.call import Reply
from serve_app.config_router import RetryBudgetConfig
from serve_app.engine_errors import UpstreamRejected
from serve_app.overtaken import BY_FEW, BY_OTHERS, BY_SAME, FORGET_S, LEAST_WAIT_S, MOST_AT_ONCE, MOST_LOOKED_AT, most_tokens
from serve_app.replica_set import EJECTION
from serve_app.rollout.telemetry import Outcome
from tests.unit.serve_app.fakes import (
    SSE,
    FakeResponse,
    entry,
    leases_of,
    snapshot,
    turns,
    upstream_of,
)
from tests.unit.serve_app.overtaking import DONE, RESCUED, STREAM, WHOLE, Lab, leave, never, stream, whole
from tests.unit.serve_app.virtual_time import run_virtually

BODIES = pytest.mark.parametrize("body", [STREAM, WHOLE], ids=["stream", "whole"])


async def stays(lab: Lab, asking: asyncio.Task[Reply], after_s: float = LEAST_WAIT_S) -> None:
    count = len(lab.asked)
    await lab.look(after_s)
    assert len(lab.asked) == count
    await leave(lab, asking)


@BODIES
async def test_a_request_that_dozens_of_later_ones_overtook_is_answered_elsewhere(body: Mapping[str, Any]) -> None:
    lab = Lab()
    asking = await lab.hang(body)
    await lab.answered(BY_SAME, at="r0", body=body)
    await lab.look()
    assert asking.result().body == RESCUED.parts[0]
    assert lab.asked[-1] == "http://r1"
    assert leases_of(lab.it) == 0
    assert lab.outcomes() == {Outcome.OK: BY_SAME + 1, Outcome.ABANDONED: 1}  # it says nothing of the variant
    assert lab.it.hedges.counts == {("chat", "stable", "won"): 1}


@BODIES
async def test_so_is_one_at_a_replica_that_answers_nothing_while_the_others_do(body: Mapping[str, Any]) -> None:
    lab = Lab()
    asking = await lab.hang(body)
    await lab.answered(BY_OTHERS, at="r1", body=body)
    await lab.look()
    assert asking.result().body == RESCUED.parts[0]
    assert leases_of(lab.it) == 0


async def test_a_replica_that_is_well_again_is_not_left_alone_for_each_few_of_those_that_it_forgot() -> None:
    lab = Lab()
    hung = [await lab.hang(STREAM) for _ in range(4 * MOST_AT_ONCE)]
    await lab.answered(BY_OTHERS, at="r1")
    await lab.look()
    assert [asking.done() for asking in hung].count(True) == MOST_AT_ONCE
    assert list(lab.it.pool.ejected()) == ["r0"]
    lab.clock.now_s += EJECTION.base_s
    await lab.answered(1, at="r0")  # the trial; and it gets few that could overtake what it has forgotten
    for _ in range(3):
        assert lab.it.pool.ejected() == {}
        await lab.look(1.0)
    assert [asking.done() for asking in hung].count(True) == 4 * MOST_AT_ONCE
    assert lab.it.pool.ejected() == {}
    assert leases_of(lab.it) == 0


async def test_the_first_replica_may_still_answer_first() -> None:
    lab = Lab()
    may_come = asyncio.Event()

    async def late() -> FakeResponse:
        await may_come.wait()
        return whole(1)

    asking = await lab.begin(STREAM, late, at="r0")
    await lab.answered(BY_SAME, at="r0")
    await lab.look(answer=never)
    assert lab.asked[-1] == "http://r1"
    may_come.set()
    await turns(12)
    assert asking.result().body == whole(1).parts[0]
    assert leases_of(lab.it) == 0
    assert lab.outcomes() == {Outcome.OK: BY_SAME + 1, Outcome.ABANDONED: 1}
    assert lab.it.hedges.counts == {("chat", "stable", "lost"): 1}


async def test_a_second_replica_that_fails_it_changes_nothing() -> None:
    lab = Lab()
    asking = await lab.hang(STREAM)
    await lab.answered(BY_SAME, at="r0")
    await lab.look(answer=FakeResponse((b"oops",), status=500))
    assert lab.asked[-1] == "http://r1"
    await stays(lab, asking, 3600.0)


async def test_what_the_first_replica_fails_then_the_second_one_answers() -> None:
    lab = Lab()
    may_fail, may_come = asyncio.Event(), asyncio.Event()

    async def late(may: asyncio.Event, answer: FakeResponse) -> FakeResponse:
        await may.wait()
        return answer

    asking = await lab.begin(STREAM, lambda: late(may_fail, FakeResponse((b"oops",), status=500)), at="r0")
    await lab.answered(BY_SAME, at="r0")
    await lab.look(answer=lambda: late(may_come, RESCUED))
    may_fail.set()
    await turns(12)
    assert not asking.done()
    may_come.set()
    await turns(12)
    assert asking.result().body == RESCUED.parts[0]
    assert leases_of(lab.it) == 0


async def test_a_request_that_is_to_blame_itself_is_told_so_at_once() -> None:
    lab = Lab()
    may_fail = asyncio.Event()

    async def late() -> FakeResponse:
        await may_fail.wait()
        return FakeResponse((b'{"error": {"message": "no"}}',), status=400)

    asking = await lab.begin(STREAM, late, at="r0")
    await lab.answered(BY_SAME, at="r0")
    await lab.look(answer=never)
    may_fail.set()
    await turns(12)
    assert isinstance(asking.exception(), UpstreamRejected)
    assert leases_of(lab.it) == 0


async def test_a_client_that_leaves_ends_both() -> None:
    lab = Lab()
    asking = await lab.hang(STREAM)
    await lab.answered(BY_SAME, at="r0")
    await lab.look(answer=never)
    assert leases_of(lab.it) == 2
    await leave(lab, asking)


async def test_so_is_one_whose_address_has_a_query() -> None:
    lab = Lab()
    asking = await lab.hang(STREAM, path="/v1/chat/completions?api-version=1")
    await lab.answered(BY_SAME, at="r0")
    await lab.look()
    assert asking.done()


async def test_earlier_requests_that_end_later_have_overtaken_nobody() -> None:
    lab, may = Lab(), asyncio.Event()

    async def late() -> FakeResponse:
        await may.wait()
        return whole(8)

    earlier = [await lab.begin(WHOLE, late, at="r0") for _ in range(2 * BY_SAME)]
    asking = await lab.hang(WHOLE)
    may.set()
    await turns(12)
    assert all(each.done() for each in earlier)
    await stays(lab, asking)


async def test_one_that_few_have_overtaken_stays() -> None:
    lab = Lab()
    asking = await lab.hang(STREAM)
    await lab.answered(BY_SAME - 1, at="r0")
    await stays(lab, asking, 3600.0)


async def test_one_that_has_not_waited_long_stays() -> None:
    lab = Lab()
    asking = await lab.hang(STREAM)
    await lab.answered(200, at="r0")
    await stays(lab, asking, LEAST_WAIT_S - 0.1)


async def test_one_at_a_replica_that_still_goes_on_with_earlier_ones_stays_whatever_others_answer() -> None:
    lab, may_come = Lab(), asyncio.Event()

    async def late() -> FakeResponse:
        await may_come.wait()
        return stream(8)

    earlier = await lab.begin(STREAM, late, at="r0")
    asking = await lab.hang(STREAM)
    await lab.answered(200, at="r1")
    lab.clock.now_s += 1
    may_come.set()
    await turns(12)
    reply = earlier.result()
    assert not isinstance(reply.body, bytes)
    assert [piece async for piece in reply.body]
    await stays(lab, asking, LEAST_WAIT_S - 1)


async def test_one_at_a_replica_that_is_well_again_and_gets_few_requests_goes_once_some_have_overtaken_it() -> None:
    lab = Lab()
    asking = await lab.hang(STREAM)
    await lab.answered(BY_OTHERS, at="r1")
    lab.clock.now_s += 1
    await lab.answered(BY_FEW - 1, at="r0")
    count = len(lab.asked)
    await lab.look(LEAST_WAIT_S - 1)
    assert len(lab.asked) == count
    await lab.answered(1, at="r0")
    await lab.look(0)
    assert asking.result().body == RESCUED.parts[0]
    assert leases_of(lab.it) == 0


async def test_one_at_a_replica_that_has_begun_nothing_for_long_goes_though_it_had_begun_later_ones() -> None:
    lab = Lab()
    asking = await lab.hang(STREAM)
    lab.clock.now_s += 1
    await lab.answered(1, at="r0")
    await lab.answered(BY_OTHERS, at="r1")
    count = len(lab.asked)
    await lab.look(LEAST_WAIT_S - 1)
    assert len(lab.asked) == count
    await lab.look(1)
    assert asking.result().body == RESCUED.parts[0]


@BODIES
async def test_a_long_prompt_may_be_overtaken_by_any_number_of_short_ones(body: Mapping[str, Any]) -> None:
    lab = Lab()
    asking = await lab.hang({**body, "messages": "x" * 100_000})
    await lab.answered(200, at="r1", body=body)
    await lab.answered(200, at="r0", body=body)
    await stays(lab, asking)


async def test_a_whole_answer_may_be_overtaken_by_any_number_of_shorter_ones() -> None:
    lab = Lab()
    asking = await lab.hang(WHOLE)
    await lab.answered(200, at="r0", body=WHOLE, answer=lambda: whole(7))
    await stays(lab, asking)


TOKENS = [
    pytest.param({"n": 2}, lambda: whole(16), False, id="two-choices"),
    pytest.param({"best_of": 2}, lambda: whole(16), False, id="best-of-two"),
    pytest.param({"prompt": ["a", "b"]}, lambda: whole(16), False, id="two-prompts"),
    pytest.param({"max_tokens": None}, lambda: whole(8), False, id="without-a-limit"),
    pytest.param({"stream": True}, lambda: stream(8), True, id="stream-as-long-as-allowed"),
    pytest.param({"stream": True}, lambda: stream(8, pieces=5), True, id="stream-in-few-pieces"),
    pytest.param({"stream": True}, lambda: stream(8, reason="stop"), True, id="stream-that-ended-by-itself"),
    pytest.param({"stream": True}, lambda: stream(7, reason="stop"), False, id="stream-that-is-shorter"),
    pytest.param({"stream": True, "max_tokens": 7}, lambda: stream(7), False, id="stream-that-may-have-fewer"),
    pytest.param({"stream": True, "max_tokens": 5_000}, lambda: stream(3), False, id="stream-cut-by-the-context"),
]


@pytest.mark.parametrize(("later", "answer", "is_overtaken"), TOKENS)
async def test_how_many_tokens_later_ones_had(
    later: dict[str, Any], answer: Callable[[], FakeResponse], is_overtaken: bool
) -> None:
    lab = Lab()
    asking = await lab.hang(WHOLE)
    await lab.answered(BY_SAME, at="r0", body={**WHOLE, **later}, answer=answer)
    await lab.look()
    assert asking.done() is is_overtaken
    asking.cancel()


async def test_what_a_stream_says_it_used_goes_before_its_pieces() -> None:
    lab = Lab()
    asking = await lab.hang(WHOLE)
    usage = b'data: {"usage": {"prompt_tokens": 1, "completion_tokens": 8}}\n\n'
    one_piece = FakeResponse((b"data: {}\n\n" + usage + DONE[-1],), content_type=SSE)
    await lab.answered(BY_SAME, at="r0", answer=lambda: replace(one_piece))
    await lab.look()
    assert asking.done()


async def test_a_whole_answer_that_may_become_as_long_as_it_likes_is_left_alone() -> None:
    lab = Lab()
    asking = await lab.hang({"model": "chat"})
    await lab.answered(200, at="r0", body=WHOLE, answer=lambda: whole(5_000))
    await stays(lab, asking)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/tokenize", "/v1/messages/count_tokens", "/v1/audio/transcriptions"])
async def test_what_queues_in_no_engine_neither_overtakes_nor_is_overtaken(path: str) -> None:
    lab = Lab()
    asking = await lab.hang(STREAM)
    for _ in range(200):
        await lab.ask(WHOLE, whole(8), at="r0", path=path)
    await stays(lab, asking)
    other = await lab.hang(WHOLE, path=path)
    await lab.answered(200, at="r0")
    await stays(lab, other)


async def test_an_overtaken_request_stays_where_nobody_else_has_a_place_and_goes_when_one_has() -> None:
    lab = Lab()
    asking = await lab.hang(STREAM)
    await lab.answered(BY_SAME, at="r0")
    lab.open("r0")
    count = len(lab.asked)
    await lab.look()
    assert len(lab.asked) == count
    lab.open("r0", "r1")
    await lab.look(1)
    assert asking.result().body == RESCUED.parts[0]


async def test_the_only_replica_is_not_asked_twice() -> None:
    lab = Lab()
    asking = await lab.hang(STREAM)
    await lab.answered(200, at="r0")
    lab.it.update(snapshot(entry("r0"), routing=lab.routing, version=2))
    await stays(lab, asking)


async def test_an_overtaken_request_stays_while_the_budget_is_spent_which_is_no_refusal() -> None:
    lab = Lab()
    lab.it.budgets.limits = RetryBudgetConfig(ratio=0, min_per_s=0)
    asking = await lab.hang(STREAM)
    await lab.answered(BY_SAME, at="r0")
    count = len(lab.asked)
    await lab.look()
    assert len(lab.asked) == count
    lab.it.budgets.limits = RetryBudgetConfig()
    await lab.look(1)
    assert asking.result().body == RESCUED.parts[0]
    assert not lab.it.budgets.refused
    assert lab.it.budgets.taken == {"chat": 1}


async def test_a_model_that_is_hedged_is_left_to_its_clock() -> None:
    lab = Lab(hedge_after_s=3600)
    asking = await lab.hang(STREAM)
    await lab.answered(200, at="r0")
    await stays(lab, asking)


async def test_a_replica_that_answers_nothing_is_left_alone_in_the_end_and_has_cost_its_variant_nothing() -> None:
    lab = Lab()
    asked = [await lab.hang(STREAM) for _ in range(5)]
    await lab.answered(BY_OTHERS, at="r1")
    await lab.look()
    assert all(asking.done() for asking in asked)
    assert lab.it.pool.ejected() == {"r0": Outcome.TIMEOUT}
    assert Outcome.TIMEOUT not in lab.outcomes()


async def test_many_are_rescued_a_few_at_a_time() -> None:
    lab = Lab()
    asked = [await lab.hang(STREAM) for _ in range(MOST_AT_ONCE + 3)]
    await lab.answered(BY_OTHERS, at="r1")
    await lab.look()
    assert [asking.done() for asking in asked] == [True] * MOST_AT_ONCE + [False] * 3
    await lab.look(1)
    assert all(asking.done() for asking in asked)


async def test_whole_answers_that_take_long_do_not_hide_a_stream() -> None:
    lab = Lab()
    long = [await lab.hang({**WHOLE, "max_tokens": 10_000}) for _ in range(MOST_LOOKED_AT)]
    asking = await lab.hang(STREAM)
    await lab.answered(BY_SAME, at="r0")
    await lab.look()
    assert asking.done()
    await leave(lab, *long)


async def test_streams_that_nothing_overtakes_do_not_hide_one_behind_them_for_good() -> None:
    lab = Lab()
    long = [await lab.hang({**STREAM, "messages": "x" * 100_000}) for _ in range(2 * MOST_LOOKED_AT)]
    asking = await lab.hang(STREAM)
    await lab.answered(BY_SAME, at="r0")
    for _ in range(3):
        assert not asking.done()
        await lab.look()
    assert asking.done()
    await leave(lab, *long)


async def test_a_long_prompt_is_overtaken_by_the_few_that_are_as_long() -> None:
    lab = Lab()
    body = {**STREAM, "messages": "x" * 1_000}
    asking = await lab.hang(body)
    for _ in range(BY_SAME):
        await lab.answered(1, at="r0", body=body)
        await lab.answered(6, at="r0")
    await lab.look()
    assert asking.done()


def test_the_timer_looks_every_second_and_stops_when_nothing_is_left() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        lab = Lab()
        lab.watch._clock = loop.time
        asking = await lab.hang(STREAM)
        await lab.answered(BY_SAME, at="r0")
        upstream_of(lab.it).answers[:] = [RESCUED]
        assert (await asyncio.wait_for(asking, 60)).body == RESCUED.parts[0]
        assert LEAST_WAIT_S <= loop.time() <= LEAST_WAIT_S + 2
        await asyncio.sleep(FORGET_S + 5)
        assert lab.watch._timer is None

    run_virtually(main())


async def test_what_nobody_asks_any_more_is_forgotten() -> None:
    lab = Lab()
    await lab.answered(3, at="r0")
    await lab.ask({"model": "chat"}, whole(8), at="r1")  # not watched, but noted
    assert lab.watch._variants
    await lab.look(FORGET_S + 1)
    assert not lab.watch._variants


@BODIES
async def test_no_request_outlives_its_answer(body: dict[str, Any]) -> None:
    class Body(dict[str, Any]):
        """A body that can be watched."""

    lab = Lab()
    gc.collect()
    gc.disable()
    try:
        made = Body(body)
        known = weakref.ref(made)
        await lab.answered(1, at="r0", body=made)
        del made
        await turns()
        assert known() is None
    finally:
        gc.enable()


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
