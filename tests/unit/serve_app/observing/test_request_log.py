from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from serve_app.config import AuthConfig, LogsConfig
from serve_app.errors import EmptyCollection
from serve_app.gateway import Gateway
from serve_app.limits.permit import Admission
from serve_app.observing.record import RequestOutcome, RequestRecord
from serve_app.observing.recorder import Recorder
from serve_app.observing.request_log import NAME, RequestLog
from serve_app.rpc.results import Message
from serve_app.upstream import ReplicaDraining, ReplicaUnreachable
from tests.unit.serve_app.fakes import BROKEN, FakeClock, FakeResponse, FakeRetriever, entry, gateway, snapshot
from tests.unit.serve_app.observing.lines import KeptLines, kept_lines
from tests.unit.serve_app.observing.test_records import STREAM, Strict, streamed
from tests.unit.serve_app.observing.watching import Watched
from tests.unit.serve_app.rest.front import ASK, CHAT, ready
from tests.unit.serve_app.rpc.front import END, LAST, word
from tests.unit.serve_app.test_view import ANN, ANN_KEY

FIELDS = [
    "time", "request_id", "trace_id", "front", "endpoint", "tenant", "key", "model", "variant", "pipeline_version",
    "adapter_version", "outcome", "status", "error", "is_stream", "prompt_tokens", "completion_tokens", "tokens_estimated",
    "duration_ms", "ttft_ms", "queue_ms", "stages", "skipped", "attempts",
]  # fmt: skip
SECRET = "sk-A1b2C3d4E5f6G7h8I9j0"
ASK_SECRET = {**ASK, "messages": [{"role": "user", "content": f"my Zebra key is {SECRET}"}]}
USED = FakeResponse((b'{"usage": {"prompt_tokens": 7, "completion_tokens": 2}}',))


@dataclass
class Logged:
    """Both fronts of a gateway, and the lines that are written of what goes in."""

    watched: Watched
    lines: KeptLines

    async def post(self, body: dict[str, Any] = ASK, path: str = CHAT, **more: Any) -> dict[str, Any]:
        """Send a request and return its line."""
        await self.watched.request("POST", path, json=body, **more)
        return self.lines.last


@pytest.fixture
def lines() -> Iterator[KeptLines]:
    with kept_lines(NAME) as kept:
        yield kept


def logged(lines: KeptLines, made: Gateway, *, admission: Admission | None = None) -> Logged:
    watched = Watched(made, admission=admission)
    log = RequestLog(lambda: made.view.document.logs, wall=lambda: 1_700_000_000.5)
    watched.inference.recorder = Recorder([log, watched.kept])
    return Logged(watched, lines)


async def test_a_line_has_all_its_fields_in_their_order(lines: KeptLines) -> None:
    made = logged(lines, ready(USED, auth=AuthConfig(keys=(ANN.model_copy(update={"tenant": "acme"}),))))
    line = await made.post(headers={"x-request-id": "q1", "authorization": f"Bearer {ANN_KEY}"})
    assert list(line) == FIELDS
    assert list(line["stages"]) == ["authenticate", "admit", "queue", "answer"]
    assert line["duration_ms"] >= line["ttft_ms"] >= line["queue_ms"] >= 0
    times = dict.fromkeys(("duration_ms", "ttft_ms", "queue_ms", "stages"))
    assert {**line, **times} == {
        "time": "2023-11-14T22:13:20.500Z",
        "request_id": "q1",
        "trace_id": None,
        "front": "rest",
        "endpoint": CHAT,
        "tenant": "acme",
        "key": "ann",
        "model": "chat",
        "variant": "stable",
        "pipeline_version": None,
        "adapter_version": None,
        "outcome": "ok",
        "status": "200",
        "error": None,
        "is_stream": False,
        "prompt_tokens": 7,
        "completion_tokens": 2,
        "tokens_estimated": False,
        **times,
        "skipped": {},
        "attempts": ["ok"],
    }


def test_times_are_milliseconds_and_those_of_a_stage_are_summed(lines: KeptLines) -> None:
    clock = FakeClock()
    recorder = Recorder([RequestLog(LogsConfig)], clock=clock)
    record = recorder.begin("rest", request_id="q1")
    for _ in range(2):
        with record.stage("queue"):
            clock.now_s += 0.25
        record.attempted(None)
    clock.now_s += 0.0125
    record.begin_answer()
    clock.now_s += 1
    recorder.end(record)
    line = lines.last
    assert (line["duration_ms"], line["ttft_ms"], line["queue_ms"]) == (1512.5, 512.5, 500.0)
    assert (line["stages"], line["attempts"]) == ({"queue": 500.0}, ["draining", "draining"])


async def test_both_fronts_write_the_same_line_of_a_stream(lines: KeptLines) -> None:
    made = logged(lines, ready(*(streamed(word("a"), word("b"), END, LAST) for _ in range(2))))
    await made.post(STREAM)
    async with made.watched.grpc() as client:
        async for _ in client.chat("chat", [Message("user", "Why?")]):
            pass
    rest, rpc = made.lines.read
    theirs = ("request_id", "front", "endpoint", "status", "duration_ms", "ttft_ms", "queue_ms")
    assert [list(rest), list(rest["stages"])] == [list(rpc), list(rpc["stages"])]
    assert {k: v for k, v in rest.items() if k not in (*theirs, "stages")} == {
        k: v for k, v in rpc.items() if k not in (*theirs, "stages")
    }
    assert (rest["status"], rpc["status"], rpc["front"], rpc["endpoint"]) == ("200", "OK", "grpc", "Chat")
    assert (rpc["prompt_tokens"], rpc["completion_tokens"], rpc["is_stream"]) == (3, 2, True)


async def test_a_pipelines_line_names_its_version_and_the_variant_that_answered(lines: KeptLines) -> None:
    line = await logged(lines, ready(FakeResponse((b"{}",)))).post({**ASK, "model": "docs"})
    assert (line["model"], line["pipeline_version"], line["variant"]) == ("docs", "v1", "stable")


FAILURES: dict[str, tuple[Gateway, dict[str, Any], Admission | None, tuple[str, str, str | None]]] = {
    "unknown-model": (ready(), {**ASK_SECRET, "model": "nope"}, None, ("client_error", "404", "model_not_found")),
    "bad-request": (ready(), {**ASK_SECRET, "n": 1000}, None, ("client_error", "400", "invalid_request")),
    "rate-limit": (ready(), ASK_SECRET, Strict(), ("rate_limited", "429", "rate_limit_exceeded")),
    "no-key": (ready(auth=AuthConfig(keys=(ANN,))), ASK_SECRET, None, ("unauthenticated", "401", "invalid_api_key")),
    "retriever": (
        ready(retriever=FakeRetriever(error=EmptyCollection("books"))),
        {**ASK_SECRET, "model": "docs"},
        None,
        ("client_error", "409", "collection_empty"),
    ),
    "broken-stream": (ready(streamed(word("a"), BROKEN)), {**ASK_SECRET, "stream": True}, None, ("broken", "200", None)),
    "engine-refuses": (
        ready(FakeResponse((json.dumps({"error": {"message": f"bad {SECRET} Zebra"}}).encode(),), status=400)),
        ASK_SECRET,
        None,
        ("client_error", "400", "invalid_request"),
    ),
    "unexpected": (ready(RuntimeError("boom")), ASK_SECRET, None, ("server_error", "500", "internal_error")),
}


@pytest.mark.parametrize(("made", "body", "admission", "said"), FAILURES.values(), ids=FAILURES.keys())
async def test_a_failure_has_its_class_and_no_word_of_the_prompt(
    lines: KeptLines,
    made: Gateway,
    body: dict[str, Any],
    admission: Admission | None,
    said: tuple[str, str, str | None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    line = await logged(lines, made, admission=admission).post(body)
    assert (line["outcome"], line["status"], line["error"]) == said
    assert (list(line), len(lines.raw)) == (FIELDS, 1)
    assert "Zebra" not in lines.raw[0] + caplog.text


async def test_by_default_no_body_is_even_kept(lines: KeptLines) -> None:
    made = logged(lines, ready(USED, FakeResponse((b"{}",))))
    await made.post(ASK_SECRET)
    await made.post({**ASK_SECRET, "model": "docs"})
    await made.post({"model": "minilm", "input": SECRET}, "/v1/embeddings")
    assert [record.body for record in made.watched.kept.over] == [None, None, None]
    assert [list(line) for line in lines.read] == [FIELDS] * 3


async def test_attempts_are_told_in_their_order(lines: KeptLines) -> None:
    made = gateway(ReplicaUnreachable("gone", was_sent=False), ReplicaDraining(), FakeResponse())
    made.update(snapshot(entry("r1"), entry("r2"), entry("r3")))
    assert (await logged(lines, made).post())["attempts"] == ["unreachable", "draining", "ok"]


async def test_a_client_that_leaves_has_a_line(lines: KeptLines) -> None:
    made = logged(lines, ready(streamed(word("a"), asyncio.Event())))
    async with made.watched.grpc() as client:
        stream = client.chat("chat", [Message("user", "Why?")])
        await anext(stream)
        await stream.aclose()
        await asyncio.wait_for(made.watched.kept.is_over.wait(), 30)
    assert (lines.last["outcome"], lines.last["tokens_estimated"]) == ("cancelled", True)


async def test_names_that_nobody_serves_are_not_repeated(lines: KeptLines) -> None:
    made = logged(lines, ready())
    line = await made.post({**ASK, "model": 'x"}\n{"outcome": "ok'}, path="/v1/chat/completions")
    await made.watched.request("GET", "/nope/%0a%7b")
    assert (line["model"], lines.last["endpoint"], lines.last["status"]) == (None, None, "404")
    assert [raw.count("\n") for raw in lines.raw] == [0, 0]


def written(lines: KeptLines, outcome: RequestOutcome, *, ratio: float) -> set[str]:
    """Return which of 2,000 requests have a line."""
    lines.raw.clear()
    log = RequestLog(lambda: LogsConfig(sample_ratio=ratio))
    for i in range(2_000):
        log.ended(RequestRecord(request_id=f"q{i}", outcome=outcome))
    return {line["request_id"] for line in lines.read}


def test_of_what_went_well_a_share_is_written_and_the_same_each_time(lines: KeptLines) -> None:
    chosen = written(lines, RequestOutcome.OK, ratio=0.25)
    assert 400 <= len(chosen) <= 600
    assert written(lines, RequestOutcome.OK, ratio=0.25) == chosen < written(lines, RequestOutcome.OK, ratio=0.5)
    assert len(written(lines, RequestOutcome.OK, ratio=1)) == 2_000


@pytest.mark.parametrize("outcome", [each for each in RequestOutcome if each is not RequestOutcome.OK])
def test_what_did_not_go_well_is_always_written(lines: KeptLines, outcome: RequestOutcome) -> None:
    assert len(written(lines, outcome, ratio=0)) == 2_000


@pytest.mark.parametrize("logs", [LogsConfig(requests=False), LogsConfig(sample_ratio=0)], ids=["off", "none-of-the-good"])
async def test_what_is_not_wanted_is_not_written(lines: KeptLines, logs: LogsConfig) -> None:
    await logged(lines, ready(USED, logs=logs)).watched.request("POST", CHAT, json=ASK)
    assert lines.raw == []


async def test_a_new_document_is_followed_at_once(lines: KeptLines) -> None:
    made = ready(USED, logs=LogsConfig(requests=False))
    it = logged(lines, made)
    await it.watched.request("POST", CHAT, json=ASK)
    made.update(snapshot(entry("r1"), routing=ready(logs=LogsConfig(prompts=True)).view.document, version=2))
    await it.post()
    assert (len(lines.raw), lines.last["prompt"]) == (1, [{"role": "user", "text": "Why?"}])


PROMPTS = LogsConfig(prompts=True, prompt_chars=60, mask=("EMP-[0-9]{6}",))
PROMPTED: dict[str, tuple[str, dict[str, Any], list[dict[str, str]]]] = {
    "model": (CHAT, ASK_SECRET, [{"role": "user", "text": "my Zebra key is [masked]"}]),
    "pipeline": (CHAT, {**ASK, "model": "docs"}, [{"role": "user", "text": "Why?"}]),
    "embedder": ("/v1/embeddings", {"model": "minilm", "input": ["EMP-123456"]}, [{"role": "input", "text": "[masked]"}]),
    "long": (CHAT, {**ASK, "messages": [{"role": "user", "content": "x" * 99}]}, [{"role": "user", "text": "x" * 60}]),
}


@pytest.mark.parametrize(("path", "body", "prompt"), PROMPTED.values(), ids=PROMPTED.keys())
async def test_where_prompts_are_asked_for_they_are_cut_and_masked(
    lines: KeptLines, path: str, body: dict[str, Any], prompt: list[dict[str, str]]
) -> None:
    line = await logged(lines, ready(FakeResponse((b"{}",)), logs=PROMPTS)).post(body, path)
    assert (list(line), line["prompt"]) == ([*FIELDS, "prompt"], prompt)


async def test_grpc_has_its_prompts_too(lines: KeptLines) -> None:
    made = logged(lines, ready(streamed(word("Zebra"), END, LAST), logs=PROMPTS))
    async with made.watched.grpc() as client:
        async for _ in client.chat("chat", [Message("user", f"use {SECRET}")]):
            pass
        await client.search("books", "Where is EMP-123456?")
    assert [line["prompt"] for line in lines.read] == [
        [{"role": "user", "text": "use [masked]"}],
        [{"role": "query", "text": "Where is [masked]?"}],
    ]
    assert "Zebra" not in lines.raw[0]  # the answer


async def test_what_a_caller_may_not_ask_is_not_kept(lines: KeptLines) -> None:
    made = logged(lines, ready(logs=PROMPTS))
    assert list(await made.post({**ASK_SECRET, "model": "nope"})) == FIELDS


def test_a_prompt_cannot_begin_another_line(lines: KeptLines) -> None:
    log = RequestLog(lambda: LogsConfig(prompts=True))
    body = {"prompt": 'a\r\n\u2028\u0085{"outcome":"ok"}\x00\x1b[31m\ud800é'}
    log.ended(RequestRecord(request_id="q1", body=body))
    assert lines.raw[0].isascii()
    assert lines.raw[0].isprintable()
    assert lines.last["prompt"] == [{"role": "prompt", "text": body["prompt"]}]
