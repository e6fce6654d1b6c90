from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from serve_app.config import ApiKeyConfig, AuthConfig
from serve_app.errors import EmptyCollection, ErrorKind, RateLimited
from serve_app.limits.permit import Permit
from serve_app.observing.record import OUTCOME, STAGES, RequestOutcome, RequestRecord, current_record
from serve_app.observing.recorder import Recorder
from serve_app.rollout.telemetry import Outcome
from serve_app.rpc.results import Message
from serve_app.upstream import ReplicaDraining, ReplicaUnreachable
from serve_app.usage import Usage
from tests.unit.serve_app.fakes import BROKEN, SSE, FakeClock, FakeResponse, FakeRetriever, entry, gateway, snapshot
from tests.unit.serve_app.observing.watching import Kept, Watched
from tests.unit.serve_app.rest.front import ASK, CHAT, ready
from tests.unit.serve_app.rpc.front import END, LAST, word
from tests.unit.serve_app.test_view import ANN, ANN_KEY

STREAM = {**ASK, "stream": True}


def streamed(*parts: Any) -> FakeResponse:
    return FakeResponse(parts, content_type=SSE)


class Strict:
    """Admits nobody."""

    async def admit(self, caller: ApiKeyConfig) -> Permit:
        error = RateLimited(f"{caller.name} has had enough", retry_after_s=1)
        error.limit = "tokens"
        raise error


async def test_a_record_tells_who_asked_for_what_and_who_answered() -> None:
    watched = Watched(ready(FakeResponse((b'{"usage": {"prompt_tokens": 7, "completion_tokens": 2}}',))))
    await watched.request("POST", CHAT, json=ASK, headers={"x-request-id": "q1", "traceparent": "00-ab"})
    record = watched.record
    assert (record.front, record.request_id, record.endpoint, record.traceparent) == ("rest", "q1", CHAT, "00-ab")
    assert (record.asked, record.variant, record.outcome) == ("chat", "stable", RequestOutcome.OK)
    assert (record.usage, record.attempts) == (Usage(7, 2), [Outcome.OK])
    assert [timing.stage for timing in record.timings] == ["authenticate", "admit", "queue", "answer"]
    assert record.began_s <= record.timings[0].began_s <= record.timings[-1].ended_s <= record.ended_s


async def test_both_fronts_tell_the_same_of_a_stream() -> None:
    watched = Watched(ready(streamed(word("a"), word("b"), END, LAST), streamed(word("a"), word("b"), END, LAST)))
    await watched.request("POST", CHAT, json=STREAM)
    async with watched.grpc() as client:
        async for _ in client.chat("chat", [Message("user", "Why?")]):
            pass
    rest, rpc = watched.kept.over
    assert [(r.front, r.endpoint) for r in (rest, rpc)] == [("rest", CHAT), ("grpc", "Chat")]
    for record in (rest, rpc):
        assert (record.asked, record.variant, record.outcome, record.is_stream) == ("chat", "stable", RequestOutcome.OK, True)
        assert record.usage == Usage(3, 2)
        assert [t.stage for t in record.timings] == ["authenticate", "admit", "queue", "first_token", "stream"]
        assert record.ttft_s is not None


async def test_a_pipelines_record_has_its_stages_and_its_version() -> None:
    watched = Watched(ready(FakeResponse((b"{}",))))
    await watched.request("POST", CHAT, json={**ASK, "model": "docs"})
    record = watched.record
    assert (record.asked, record.variant, record.passages) == ("docs", "v1", 2)
    assert [t.stage for t in record.timings] == ["authenticate", "admit", "retrieve", "prompt", "queue", "answer"]


async def test_a_stage_that_fails_is_told_as_such() -> None:
    watched = Watched(ready(retriever=FakeRetriever(error=EmptyCollection("books"))))
    await watched.request("POST", CHAT, json={**ASK, "model": "docs"})
    record = watched.record
    assert [(t.stage, t.error) for t in record.timings if t.error] == [("retrieve", "collection_empty")]
    assert (record.outcome, record.asked) == (RequestOutcome.CLIENT_ERROR, "docs")


async def test_a_retry_is_an_attempt_of_its_own() -> None:
    made = gateway(ReplicaUnreachable("gone", was_sent=False), ReplicaDraining(), FakeResponse())
    made.update(snapshot(entry("r1"), entry("r2"), entry("r3")))
    watched = Watched(made)
    await watched.request("POST", CHAT, json=ASK)
    assert watched.record.attempts == [Outcome.UNREACHABLE, None, Outcome.OK]
    assert watched.record.outcome is RequestOutcome.OK


async def test_a_stream_that_breaks_is_no_success() -> None:
    watched = Watched(ready(streamed(word("a"), BROKEN)))
    response = await watched.request("POST", CHAT, json=STREAM)
    assert (response.status_code, watched.record.outcome) == (200, RequestOutcome.BROKEN)


ASKED: dict[str, tuple[dict[str, Any], RequestOutcome, str]] = {
    "unknown-model": ({"json": {**ASK, "model": "nope"}}, RequestOutcome.CLIENT_ERROR, "none"),
    "malformed": ({"content": b"{"}, RequestOutcome.CLIENT_ERROR, "none"),
    "engine-refuses": ({"json": ASK}, RequestOutcome.CLIENT_ERROR, "chat"),
}


@pytest.mark.parametrize(("more", "outcome", "asked"), ASKED.values(), ids=ASKED.keys())
async def test_errors_are_told_by_class_and_only_names_that_are_served(
    more: dict[str, Any], outcome: RequestOutcome, asked: str
) -> None:
    watched = Watched(ready(FakeResponse((b'{"error": {"message": "no"}}',), status=400)))
    await watched.request("POST", CHAT, **more)
    assert (watched.record.outcome, watched.record.asked) == (outcome, asked)


async def test_a_client_that_leaves_before_its_answer_has_cancelled() -> None:
    made = ready(streamed(word("a"), asyncio.Event()))
    watched = Watched(made)
    async with watched.grpc() as client:
        stream = client.chat("chat", [Message("user", "Why?")])
        await anext(stream)
        await stream.aclose()
        await asyncio.wait_for(watched.kept.is_over.wait(), 30)
    assert watched.record.outcome is RequestOutcome.CANCELLED
    assert watched.record.usage == Usage(watched.record.prompt_estimate, 1, is_estimated=True)


async def test_a_limit_that_is_reached_is_named() -> None:
    watched = Watched(ready(), admission=Strict())
    await watched.request("POST", CHAT, json=ASK)
    error = watched.record.error
    assert isinstance(error, RateLimited)
    assert (watched.record.outcome, error.limit) == (RequestOutcome.RATE_LIMITED, "tokens")


async def test_probes_and_pages_are_not_recorded() -> None:
    watched = Watched(ready())
    for path in ("/healthz", "/readyz", "/docs", "/metrics", "/admin/status"):
        assert (await watched.request("GET", path)).status_code == 200
    assert watched.kept.over == []


async def test_a_look_at_the_platform_that_is_refused_is_recorded() -> None:
    watched = Watched(ready(auth=AuthConfig(keys=(ANN,))))
    for path in ("/metrics", "/admin/status"):
        assert (await watched.request("GET", path, headers={"authorization": f"Bearer {ANN_KEY}"})).status_code == 403
    assert [record.outcome for record in watched.kept.over] == [RequestOutcome.UNAUTHENTICATED] * 2


def test_work_that_nobody_records_has_a_record_that_nobody_reads() -> None:
    assert current_record() is not current_record()


def test_an_observer_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        def began(self, record: RequestRecord) -> None:
            raise RuntimeError(record.request_id)

        ended = began

    kept = Kept()
    recorder = Recorder([Failing(), kept], clock=FakeClock())
    recorder.end(recorder.begin("rest", request_id="q1"))
    assert (len(kept.begun), len(kept.over)) == (1, 1)
    assert "q1 could not be observed" in caplog.text


def test_every_kind_of_error_has_an_outcome() -> None:
    assert set(OUTCOME) == set(ErrorKind)


def test_stages_are_a_closed_set() -> None:
    assert json.loads(json.dumps(STAGES)) == list(dict.fromkeys(STAGES))
