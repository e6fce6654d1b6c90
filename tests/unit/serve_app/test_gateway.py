from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from serve_app import gateway as gateway_module
from serve_app import waiting_room
from serve_app.config import LimitsConfig
from serve_app.errand import ATTEMPTS, BROKEN_ATTEMPTS
from serve_app.errors import BadRequest, DeadlineExceeded, ErrorKind, PlatformError, RateLimited, Unavailable, UnknownModel
from serve_app.gateway import Reply, require_text
from serve_app.replica_set import EJECTION
from serve_app.rollout.document import RoutedModel, RoutedVariant, RoutingDocument
from serve_app.sse import DONE_EVENT
from serve_app.upstream import ReplicaDraining, UpstreamRequest
from tests.unit.serve_app.fakes import (
    BROKEN,
    PIPELINE,
    SSE,
    UNREACHED,
    FakeClock,
    FakeResponse,
    document,
    entry,
    gateway,
    leases_of,
    relay,
    snapshot,
    turns,
    until,
    upstream_of,
    woken_of,
)

DRAINING = ReplicaDraining("r1")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_room, "RECHOOSE_S", 0.001)


async def test_a_request_is_relayed_untouched() -> None:
    made = gateway(FakeResponse((b"[1]",)))
    made.update(snapshot(entry("r1")))
    reply = await relay(made)
    assert reply == Reply("application/json", b"[1]", "chat", "stable")
    assert upstream_of(made).requests == [UpstreamRequest("POST", "/v1/chat/completions", b'{"model": "chat"}', "q1")]
    assert (upstream_of(made).asked, leases_of(made)) == (["http://r1"], 0)


@pytest.mark.parametrize("failure", [UNREACHED, BROKEN, DRAINING], ids=["unreached", "broken", "draining"])
async def test_another_replica_is_tried(failure: Exception) -> None:
    made = gateway(failure, FakeResponse((b"[1]",)))
    made.update(snapshot(entry("r1"), entry("r2")))
    assert (await relay(made)).body == b"[1]"
    assert (sorted(upstream_of(made).asked), leases_of(made)) == (["http://r1", "http://r2"], 0)


async def test_an_answer_that_breaks_before_its_first_byte_is_asked_for_again() -> None:
    broken = FakeResponse((b"[", BROKEN))
    made = gateway(broken, FakeResponse((b"[1]",)))
    made.update(snapshot(entry("r1"), entry("r2")))
    assert ((await relay(made)).body, broken.closed, leases_of(made)) == (b"[1]", 1, 0)


async def test_it_gives_up_when_nobody_can_be_reached() -> None:
    made = gateway(UNREACHED)
    made.update(snapshot(*(entry(f"r{i}") for i in range(9))))
    with pytest.raises(Unavailable, match="no replica of model 'chat' could be reached") as caught:
        await relay(made)
    assert (len(set(upstream_of(made).asked)), caught.value.retry_after_s, leases_of(made)) == (ATTEMPTS, 5, 0)


async def test_a_request_that_kills_engines_does_not_kill_all() -> None:
    made = gateway(BROKEN)
    made.update(snapshot(*(entry(f"r{i}") for i in range(9))))
    with pytest.raises(Unavailable):
        await relay(made)
    assert len(upstream_of(made).asked) == BROKEN_ATTEMPTS


async def test_the_only_replica_is_tried_again_after_a_moment() -> None:
    clock = FakeClock()
    made = gateway(BROKEN, FakeResponse((b"[1]",)), clock=clock)
    made.update(snapshot(entry("r1")))
    asking = asyncio.create_task(relay(made))
    await turns()
    assert made.pool.waiting() == 1
    clock.now_s += EJECTION.base_s
    assert (await asking).body == b"[1]"


async def test_waiting_has_one_deadline_for_all_attempts() -> None:
    clock = FakeClock()
    made = gateway(UNREACHED, clock=clock)
    made.update(snapshot(entry("r1"), routing=document(limits=LimitsConfig(wait_timeout_s=3))))
    asking = asyncio.create_task(relay(made))
    await turns()
    clock.now_s += EJECTION.base_s
    await until(lambda: len(upstream_of(made).asked) >= 2)
    clock.now_s += EJECTION.base_s - 0.5
    with pytest.raises(DeadlineExceeded):
        await asking


async def test_a_full_queue_is_refused() -> None:
    made = gateway()
    made.update(snapshot(routing=document(limits=LimitsConfig(max_waiting=0))))
    with pytest.raises(RateLimited):
        await relay(made)
    woken_of(made).may_end.set()
    await turns()


async def test_an_engines_refusal_is_passed_on_and_no_other_replica_asked() -> None:
    refusal = FakeResponse((b'{"error": {"message": "bad", "code": 400}}',), status=400, content_type=SSE)
    made = gateway(refusal)
    made.update(snapshot(entry("r1"), entry("r2")))
    with pytest.raises(PlatformError, match="bad") as caught:
        await relay(made)
    assert (caught.value.kind, len(upstream_of(made).asked)) == (ErrorKind.BAD_REQUEST, 1)
    assert (refusal.closed, leases_of(made)) == (1, 0)


async def test_a_stream_holds_its_lease_until_it_ends() -> None:
    response = FakeResponse((b"data: 1\n\n", DONE_EVENT), content_type=SSE)
    made = gateway(response)
    made.update(snapshot(entry("r1")))
    reply = await relay(made)
    assert not isinstance(reply.body, bytes)
    assert (leases_of(made), response.closed) == (1, 0)
    assert [chunk async for chunk in reply.body] == [b"data: 1\n\n", DONE_EVENT]
    assert (leases_of(made), response.closed) == (0, 1)


async def test_a_request_cancelled_while_the_engine_thinks_gives_its_lease_back() -> None:
    async def think() -> FakeResponse:
        await asyncio.Event().wait()
        raise AssertionError

    made = gateway(think)
    made.update(snapshot(entry("r1")))
    asking = asyncio.create_task(relay(made))
    await turns()
    assert leases_of(made) == 1
    asking.cancel()
    await asyncio.wait([asking])
    assert leases_of(made) == 0


async def test_an_error_nobody_expected_gives_the_lease_back() -> None:
    made = gateway(RuntimeError("odd"))
    made.update(snapshot(entry("r1")))
    with pytest.raises(RuntimeError):
        await relay(made)
    assert leases_of(made) == 0


BAD_PROMPT = PIPELINE.versions[0].model_copy(update={"prompt": "{{ nope }}"})


def test_a_routing_document_that_cannot_be_used_does_not_stop_the_directory(caplog: pytest.LogCaptureFixture) -> None:
    made = gateway()
    made.update(snapshot())
    bad = document(pipelines=(PIPELINE.model_copy(update={"versions": (BAD_PROMPT,)}),))
    with caplog.at_level(logging.ERROR, logger="ray.serve"):
        made.update(snapshot(entry("r1"), routing=bad, version=2))
    assert made.view.document == document()
    assert ([e.replica_id for e in made.pool.entries()], made.version) == (["r1"], ("e", 2))
    assert "the one before stays in force" in caplog.text


def test_an_unchanged_document_is_not_compiled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made = gateway()
    made.update(snapshot())
    monkeypatch.setattr(gateway_module, "RoutingView", None)
    made.update(snapshot(version=2))
    assert made.version == ("e", 2)


def test_it_is_ready_when_something_can_answer() -> None:
    made = gateway()
    assert not made.is_ready()
    made.update(snapshot())
    assert [made.is_ready(name) for name in (None, "chat", "docs")] == [False, False, False]
    made.update(snapshot(entry("r1"), version=2))
    assert [made.is_ready(name) for name in (None, "chat", "docs")] == [True, True, True]
    with pytest.raises(UnknownModel):
        made.is_ready("nope")


def test_a_model_that_may_sleep_at_zero_is_ready() -> None:
    sleeper = RoutedVariant(name="stable", weight=100, max_leases=1, engine="vllm", may_sleep=True)
    made = gateway()
    made.update(snapshot(routing=RoutingDocument(models=(RoutedModel(name="chat", variants=(sleeper,)),))))
    assert made.is_ready()
    assert made.is_ready("chat")


def test_a_platform_without_models_is_ready_at_once() -> None:
    made = gateway()
    made.update(snapshot(routing=RoutingDocument()))
    assert made.is_ready()


@pytest.mark.parametrize("method", ["embed", "count_tokens"])
async def test_an_unknown_embedder_is_an_unknown_model(method: str) -> None:
    made = gateway()
    made.update(snapshot())
    with pytest.raises(UnknownModel):
        await getattr(made, method)("chat", ["a"])
    with pytest.raises(UnknownModel):
        await made.describe_embedder("nope")


@pytest.mark.parametrize("value", [None, 3, "", " \n", ["a"], "\ud800"])
def test_a_text_must_be_one(value: Any) -> None:
    with pytest.raises(BadRequest, match="input must be") as caught:
        require_text(value, "input")
    assert caught.value.param == "input"
