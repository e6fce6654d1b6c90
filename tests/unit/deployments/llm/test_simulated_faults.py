from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest

from deployments.llm.engine import AsgiApp
from deployments.llm.port import Guard
from deployments.llm.simulated import SimulatedEngine
from deployments.llm.simulated_answer import EngineDied
from deployments.llm.simulated_faults import FAULTS_PATH, GARBAGE, CutOnPurpose
from serve_app.config import SimulatedFaults, SimulatedLatency, SwitchedFaults
from serve_app.contracts import LOST_HEADER
from tests.unit.deployments.llm.asgi import Exchange
from tests.unit.serve_app.fakes import turns, until

TOKEN = "internal-token"
LATENCY = SimulatedLatency(prefill_s_per_token=0, decode_s_per_token=0)
CHAT = {"messages": [{"role": "user", "content": "Why?"}], "max_tokens": 8}
NONE = SwitchedFaults().model_dump()


async def started(latency: SimulatedLatency = LATENCY) -> tuple[SimulatedEngine, AsgiApp]:
    engine = SimulatedEngine("chat", latency)
    return engine, Guard(await engine.start(), token=TOKEN, is_dead=engine.is_dead)


async def control(app: AsgiApp, method: str, faults: Any = None) -> Exchange:
    body = faults if isinstance(faults, bytes) else json.dumps(faults).encode()
    return await Exchange(body, path=FAULTS_PATH, method=method, token=TOKEN).run(app)


def chat(*, is_stream: bool = True) -> Exchange:
    return Exchange(json.dumps({**CHAT, "stream": is_stream}).encode(), token=TOKEN)


async def test_faults_are_read_replaced_and_cleared() -> None:
    _, app = await started()
    assert json.loads((await control(app, "GET")).body) == NONE
    assert json.loads((await control(app, "POST", {"error_ratio": 1.0})).body) == {**NONE, "error_ratio": 1.0}
    assert json.loads((await control(app, "POST", {"slow_factor": 50})).body) == {**NONE, "slow_factor": 50.0}
    assert json.loads((await control(app, "GET")).body) == {**NONE, "slow_factor": 50.0}
    assert json.loads((await control(app, "DELETE")).body) == NONE


async def test_clearing_brings_back_what_is_configured() -> None:
    _, app = await started(LATENCY.model_copy(update={"faults": SimulatedFaults(error_ratio=0.5)}))
    await control(app, "POST", {"dead": True})
    assert json.loads((await control(app, "DELETE")).body) == {**NONE, "error_ratio": 0.5}


async def test_faults_need_the_internal_token() -> None:
    _, app = await started()
    assert (await Exchange(b'{"dead": true}', path=FAULTS_PATH).run(app)).status == 401
    assert json.loads((await control(app, "GET")).body) == NONE


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        pytest.param(
            {"error_ratio": 2}, "error_ratio", "error_ratio: Input should be less than or equal to 1, got 2", id="large"
        ),
        pytest.param({"slow_factor": "x"}, "slow_factor", "slow_factor: Input should be a valid number", id="text"),
        pytest.param({"eror_ratio": 1}, "eror_ratio", "eror_ratio: is no fault; there are error_ratio, hang_ratio", id="typo"),
        pytest.param({"fails_to_start": True}, "fails_to_start", "fails_to_start: is no fault", id="of-a-start"),
        pytest.param(b"{", None, "Invalid JSON", id="no-json"),
    ],
)
async def test_what_is_no_fault_is_refused_by_name_and_changes_nothing(body: Any, param: str | None, words: str) -> None:
    _, app = await started()
    made = await control(app, "POST", body)
    error = json.loads(made.body)["error"]
    assert (made.status, error["param"], error["message"].startswith(words)) == (400, param, True)
    assert json.loads((await control(app, "GET")).body) == NONE


async def test_every_mistake_is_named() -> None:
    _, app = await started()
    message = json.loads((await control(app, "POST", {"error_ratio": 2, "dead": "x"})).body)["error"]["message"]
    assert [part.partition(":")[0] for part in message.split("; ")] == ["error_ratio", "dead"]


async def test_errors_begin_and_end_at_once() -> None:
    _, app = await started()
    statuses = []
    for method, faults in (("GET", None), ("POST", {"error_ratio": 1.0}), ("DELETE", None)):
        await control(app, method, faults)
        statuses.append((await chat().run(app)).status)
    assert statuses == [200, 500, 200]


@pytest.mark.parametrize(("is_stream", "kind"), [(True, b"text/event-stream"), (False, b"application/json")])
async def test_garbage_has_the_head_of_an_answer(is_stream: bool, kind: bytes) -> None:
    _, app = await started()
    await control(app, "POST", {"garbage_ratio": 1.0})
    made = await chat(is_stream=is_stream).run(app)
    assert (made.status, made.headers[b"content-type"].partition(b";")[0], made.body) == (200, kind, GARBAGE)


def words(made: Exchange) -> int:
    return made.body.count(b'"content"')


async def test_half_a_stream_ends_with_the_connection() -> None:
    _, app = await started()
    await control(app, "POST", {"half_stream_ratio": 1.0})
    made = chat()
    with pytest.raises(CutOnPurpose):
        await made.run(app)
    assert (words(made), b"[DONE]" in made.body) == (4, False)


async def test_half_an_answer_is_shorter_than_it_said() -> None:
    _, app = await started()
    await control(app, "POST", {"half_stream_ratio": 1.0})
    made = chat(is_stream=False)
    with pytest.raises(CutOnPurpose):
        await made.run(app)
    assert len(made.body) == int(made.headers[b"content-length"]) // 2


async def test_a_silent_end_is_orderly_and_not_whole() -> None:
    _, app = await started()
    await control(app, "POST", {"silent_end_ratio": 1.0})
    made = await chat().run(app)
    assert (words(made), b"[DONE]" in made.body, made.sent[-1]["more_body"]) == (4, False, False)
    assert json.loads((await chat(is_stream=False).run(app)).body)["usage"]["completion_tokens"] == 8


@pytest.mark.parametrize("is_stream", [True, False])
async def test_a_stalled_answer_stays_open(is_stream: bool) -> None:
    engine, app = await started()
    await control(app, "POST", {"stall_ratio": 1.0})
    made = chat(is_stream=is_stream)
    asking = asyncio.create_task(made.run(app))
    await until(lambda: len(made.body) > 0)
    await turns(50)
    assert (asking.done(), words(made), engine.load().running) == (False, *((4, 1) if is_stream else (0, 0)))
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking


async def test_a_slow_engine_multiplies_its_times(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    _, app = await started(SimulatedLatency(prefill_s_per_token=0.01, decode_s_per_token=0))
    for factor in (1, 50):
        await control(app, "POST", {"slow_factor": factor})
        with monkeypatch.context() as patched:
            patched.setattr("deployments.llm.simulated.asyncio.sleep", sleep)
            await chat(is_stream=False).run(app)
    plain, slow = [seconds for seconds in slept if seconds > 0]
    assert slow == pytest.approx(50 * plain)


async def test_a_dead_engine_says_so_and_its_answers_are_taken_back() -> None:
    engine, app = await started()
    await control(app, "POST", {"dead": True})
    with pytest.raises(EngineDied, match="plays dead"):
        await engine.check_health()
    made = [await chat(is_stream=is_stream).run(app) for is_stream in (True, False)]
    assert [(m.status, m.headers[LOST_HEADER.encode()]) for m in made] == [(503, b"1")] * 2
    await control(app, "DELETE")
    await engine.check_health()
    assert (await chat().run(app)).status == 200


async def test_streams_of_an_engine_that_dies_end_with_an_error() -> None:
    _, app = await started(LATENCY.model_copy(update={"decode_s_per_token": 0.001}))
    made = chat()
    asking = asyncio.create_task(made.run(app))
    await until(lambda: words(made) > 0)
    await control(app, "POST", {"dead": True})
    await asking
    *_, last, done, _ = made.body.split(b"\n\n")
    assert (b'"error"' in last, done) == (True, b"data: [DONE]")
