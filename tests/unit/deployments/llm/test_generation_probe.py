from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from deployments.llm.engine import PROBE_SCOPE, AsgiApp, Receive, Scope, Send
from deployments.llm.generation_probe import GenerationProbe, ProbeOutcome, ProbeResult
from deployments.llm.simulated import SimulatedEngine
from serve_app.config import SimulatedFaults, SimulatedLatency

Answers = dict[str, tuple[int, bytes]]
TEXT = (200, b'{"choices": [{"text": "ok"}]}')
VECTOR = (200, b'{"data": [{"embedding": [0.5]}]}')
NO_ROUTE = (404, b'{"detail": "Not Found"}')


class App:
    """An engine's app that answers by path, and writes down what it was asked."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.asked: list[tuple[str, Any]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope[PROBE_SCOPE] is True
        self.asked.append((scope["path"], json.loads((await receive())["body"])))
        status, body = self.answers[scope["path"]]
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": body[:3], "more_body": True})
        await send({"type": "http.response.body", "body": body[3:]})


async def outcome(app: AsgiApp, *, timeout_s: float = 5.0) -> ProbeResult:
    return await GenerationProbe(app, "chat").ask(timeout_s)


async def test_a_probe_is_one_greedy_token() -> None:
    app = App({"/v1/completions": TEXT})
    assert await outcome(app) == ProbeResult(ProbeOutcome.ANSWERED)
    assert app.asked == [("/v1/completions", {"model": "chat", "prompt": "ok", "max_tokens": 1, "temperature": 0})]


@pytest.mark.parametrize("status", [400, 404, 405])
async def test_an_engine_that_completes_nothing_is_asked_for_an_embedding_from_then_on(status: int) -> None:
    app = App({"/v1/completions": (status, b"{}"), "/v1/embeddings": VECTOR})
    probe = GenerationProbe(app, "chat")
    assert [(await probe.ask(5)).outcome for _ in range(2)] == [ProbeOutcome.ANSWERED] * 2
    assert [path for path, _ in app.asked] == ["/v1/completions", "/v1/embeddings", "/v1/embeddings"]


async def test_an_engine_that_does_neither_refuses_and_says_what() -> None:
    result = await outcome(App({"/v1/completions": NO_ROUTE, "/v1/embeddings": NO_ROUTE}))
    assert result.outcome is ProbeOutcome.REFUSED
    assert result.detail.split("; ") == [
        '/v1/completions answered 404: {"detail": "Not Found"}',
        '/v1/embeddings answered 404: {"detail": "Not Found"}',
    ]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param((500, b'{"error": {"message": "no"}}'), id="status-500"),
        pytest.param((200, b"\x00\xff}{"), id="garbage"),
        pytest.param((200, b'{"choices": []}'), id="nothing-generated"),
        pytest.param((200, b"[1]"), id="no-object"),
    ],
)
async def test_what_is_no_answer_is_a_failure(answer: tuple[int, bytes]) -> None:
    result = await outcome(App({"/v1/completions": answer}))
    assert (result.outcome, result.detail.startswith(f"/v1/completions answered {answer[0]}")) == (ProbeOutcome.FAILED, True)


async def test_an_embedding_too_long_to_keep_is_an_answer() -> None:
    long = b'{"data": [' + b"0.123456, " * 20_000 + b"0]}"
    app = App({"/v1/completions": NO_ROUTE, "/v1/embeddings": (200, long)})
    assert (await outcome(app)).outcome is ProbeOutcome.ANSWERED


async def test_an_app_that_raises_has_failed() -> None:
    async def app(*_: object) -> None:
        raise ValueError("broken")

    assert await outcome(app) == ProbeResult(ProbeOutcome.FAILED, "/v1/completions raised ValueError: broken")


async def test_an_app_that_gives_up_by_itself_has_failed() -> None:
    async def app(*_: object) -> None:
        raise asyncio.CancelledError

    assert (await outcome(app)).outcome is ProbeOutcome.FAILED


@pytest.mark.parametrize("ends", [True, False], ids=["when-cancelled", "never"])
async def test_an_app_that_hangs_is_late_and_left_behind(ends: bool) -> None:
    may_end = asyncio.Event()
    cancelled = asyncio.Event()

    async def app(_: Scope, receive: Receive, __: Send) -> None:
        await receive()
        try:
            await receive()  # nobody leaves
        except asyncio.CancelledError:
            cancelled.set()
            if ends:
                raise
            await may_end.wait()

    result = await outcome(app, timeout_s=0.001)
    assert result == ProbeResult(ProbeOutcome.LATE, "no answer within 0.001 s")
    await cancelled.wait()
    may_end.set()


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ({}, ProbeOutcome.ANSWERED),
        ({"error_ratio": 1.0}, ProbeOutcome.FAILED),
        ({"garbage_ratio": 1.0}, ProbeOutcome.FAILED),
        ({"half_stream_ratio": 1.0}, ProbeOutcome.FAILED),
        ({"dead": True}, ProbeOutcome.FAILED),
        ({"hang_ratio": 1.0}, ProbeOutcome.LATE),
        ({"stall_ratio": 1.0}, ProbeOutcome.LATE),
    ],
    ids=lambda value: next(iter(value), "well") if isinstance(value, dict) else "",
)
async def test_the_faults_of_a_simulated_engine_show(faults: dict[str, Any], expected: ProbeOutcome) -> None:
    latency = SimulatedLatency(decode_s_per_token=0, prefill_s_per_token=0, faults=SimulatedFaults.model_validate(faults))
    app = await SimulatedEngine("chat", latency).start()
    timeout_s = 0.01 if expected is ProbeOutcome.LATE else 60
    assert (await outcome(app, timeout_s=timeout_s)).outcome is expected


async def test_probes_do_not_count_to_what_makes_a_simulated_engine_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    died: list[int] = []
    monkeypatch.setattr("deployments.llm.simulated_faults.os._exit", died.append)
    app = await SimulatedEngine("chat", SimulatedLatency(faults=SimulatedFaults(crash_after_requests=1))).start()
    for _ in range(3):
        await outcome(app)
    assert died == []
