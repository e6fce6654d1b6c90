from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import aiohttp
import pytest
from aiohttp import web

from autoscaling.simulation.calibration import Fit, Measurement
from benchmarks.latency_model import __main__ as command
from benchmarks.latency_model import measure
from benchmarks.latency_model.client import Answer, Client, Prompts, ServerError
from benchmarks.latency_model.measure import Sweep, capacity, closed_loop, measurement
from benchmarks.latency_model.validate import OpenLoop, Times, compare, measured, open_loop, predict, simulated

TEMPLATE_TOKENS = 7
TOKENS_PER_WORD = 2
FIT = Fit(0.01, 0.0, 0.0, 0.0)


def chunk(delta: dict[str, str]) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": delta}]}


@dataclass
class Engine:
    """A server of steps that are shared by all that ask: each takes 10 ms, 1 ms per sequence and 0.1 ms per prompt token."""

    takes_ignore_eos: bool = True
    bodies: list[dict[str, object]] = field(default_factory=list)
    open: int = 0
    most_open: int = 0
    _waiting: list[tuple[int, asyncio.Event]] = field(default_factory=list)
    _decoding: list[asyncio.Event] = field(default_factory=list)

    async def steps(self) -> None:
        while True:
            batch, read = self._decoding, self._waiting
            self._decoding, self._waiting = [], []
            work_s = 0.001 * len(batch) + 0.0001 * sum(tokens for tokens, _ in read)
            await asyncio.sleep(0.01 + work_s if batch or read else 0.001)
            for event in (*batch, *(event for _, event in read)):
                event.set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)  # what goes on joins the next step

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        if "ignore_eos" in body and not self.takes_ignore_eos:
            return web.json_response({"error": {"message": "unknown field ignore_eos"}}, status=400)
        prompt_tokens = TEMPLATE_TOKENS + TOKENS_PER_WORD * len(body["messages"][0]["content"].split())
        response = web.StreamResponse()
        await response.prepare(request)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        with suppress(ConnectionResetError):  # clients that are cut off at the end of a measurement
            await self._answer(response, prompt_tokens, body["max_tokens"])
        self.open -= 1
        return response

    async def _answer(self, response: web.StreamResponse, prompt_tokens: int, tokens: int) -> None:
        await self._tell(response, chunk({"role": "assistant", "content": ""}))
        for number in range(tokens):
            await self._step(prompt_tokens if number == 0 else 0)
            await self._tell(response, chunk({"content": "x"}))
        await self._tell(response, {"choices": [], "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": tokens}})
        await response.write(b"data: [DONE]\n\n")

    async def _step(self, prompt_tokens: int) -> None:
        event = asyncio.Event()
        if prompt_tokens:
            self._waiting.append((prompt_tokens, event))
        else:
            self._decoding.append(event)
        await event.wait()

    async def _tell(self, response: web.StreamResponse, event: dict[str, object]) -> None:
        await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")


@asynccontextmanager
async def served(chat: Callable[[web.Request], object]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)  # type: ignore[arg-type]
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def running(engine: Engine) -> AsyncIterator[str]:
    steps = asyncio.create_task(engine.steps())
    async with served(engine.chat) as url:
        yield url
    steps.cancel()


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Client(session, url, model="chat", api_key="made-up")


def prompts() -> Prompts:
    return Prompts(Random(1))  # noqa: S311 - chance that can be repeated


def answers(*ttft_s: float, tokens: int = 11) -> list[Answer]:
    return [Answer(10.0 + i, 10.0 + i + t, 10.0 + i + t + 0.1, 50, tokens) for i, t in enumerate(ttft_s)]


async def test_an_answer_is_timed_from_its_first_token_to_its_last() -> None:
    async with running(Engine()) as url, client_of(f"{url}/v1/") as client:
        answer = await client.chat("a b c", 11)
    assert (answer.prompt_tokens, answer.output_tokens) == (13, 11)
    assert 0.0113 <= answer.ttft_s < 0.1  # a busy machine adds to what the engine takes
    assert 0.0105 <= answer.itl_s < 0.05
    assert answer.e2e_s == pytest.approx(answer.ttft_s + 10 * answer.itl_s)


async def test_answers_are_as_long_as_was_asked_where_the_server_can() -> None:
    engine = Engine()
    async with running(engine) as url, client_of(url) as client:
        await client.probe("a")
    assert (engine.bodies[0]["ignore_eos"], engine.bodies[0]["min_tokens"], len(engine.bodies)) == (True, 2, 1)


async def test_a_server_without_ignore_eos_is_asked_without_it() -> None:
    engine = Engine(takes_ignore_eos=False)
    async with running(engine) as url, client_of(url) as client:
        assert (await client.probe("a")).output_tokens == 2
    assert ["ignore_eos" in body for body in engine.bodies] == [True, False]


async def test_prompts_learn_what_the_server_makes_of_words() -> None:
    async with running(Engine()) as url, client_of(url) as client:
        learned = await prompts().calibrated(client)
        assert (await client.chat(learned.of(107), 2)).prompt_tokens == 107
    assert learned.of(1) != ""
    assert learned.of(100) != learned.of(100)


async def failing(request: web.Request) -> web.Response:
    return web.json_response({"error": {"message": "no such model"}}, status=503)


async def breaking(request: web.Request) -> web.Response:
    return web.Response(text='data: {"error": {"message": "out of memory"}}\n\n')


async def silent(request: web.Request) -> web.Response:
    return web.Response(text="data: [DONE]\n\n")


async def uncounted(request: web.Request) -> web.Response:
    return web.Response(text=f"data: {json.dumps(chunk({'content': 'x'}))}\n\n")


async def constant(request: web.Request) -> web.Response:
    usage = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 1}}
    return web.Response(text=f"data: {json.dumps(chunk({'content': 'x'}))}\n\ndata: {json.dumps(usage)}\n\n")


@pytest.mark.parametrize(
    ("chat", "message"),
    [
        pytest.param(failing, "answered 503: .*no such model", id="status"),
        pytest.param(breaking, "out of memory", id="error-in-stream"),
        pytest.param(silent, "without a token", id="no-token"),
        pytest.param(uncounted, "without a usage", id="no-usage"),
        pytest.param(constant, "does not grow with the prompt: 9 and 9", id="constant-usage"),
    ],
)
async def test_a_server_that_answers_otherwise_is_named(chat: Callable[[web.Request], object], message: str) -> None:
    async with served(chat) as url, client_of(url) as client:
        with pytest.raises(ServerError, match=message):
            await prompts().calibrated(client)


async def test_an_error_ends_both_loops() -> None:
    async with served(silent) as url, client_of(url) as client:
        with pytest.raises(ServerError, match="without a token"):
            await closed_loop(client, prompts(), (2, 5), plan=Sweep(rounds=1))
        with pytest.raises(ServerError, match="without a token"):
            await open_loop(client, prompts(), OpenLoop(50.0, 0.2, (5, 6), (2, 3)))


async def test_no_server_is_an_error_with_the_address() -> None:
    async with client_of("http://127.0.0.1:9") as client:
        with pytest.raises(ServerError, match=r"127\.0\.0\.1:9"):
            await client.chat("a", 2)


async def test_a_closed_loop_keeps_so_many_clients_busy_and_drops_the_first_of_each() -> None:
    engine = Engine()
    async with running(engine) as url, client_of(url) as client:
        seen = await closed_loop(client, prompts(), (3, 5), plan=Sweep(output_tokens=4, rounds=2))
    assert engine.most_open == 3
    assert len(seen) >= 6
    assert len(engine.bodies) >= len(seen) + 3


def test_a_measurement_has_the_lengths_that_the_server_counted() -> None:
    made = measurement(2, answers(0.25, 0.5))
    assert (made.concurrency, made.prompt_tokens, made.output_tokens) == (2, 50, 11)
    assert made.ttft_s == pytest.approx((0.25, 0.5))
    assert made.itl_s == pytest.approx((0.01, 0.01))


def test_capacity_is_that_of_the_most_clients() -> None:
    times = {"output_tokens": 11, "itl_s": (0.1,)}
    made = [Measurement(c, p, ttft_s=(t,), **times) for c, p, t in ((1, 64, 1.0), (8, 64, 1.0), (8, 512, 3.0))]  # type: ignore[arg-type]
    assert capacity(made) == pytest.approx(8 / 3.0)


def test_the_simulator_gets_the_same_requests() -> None:
    same = answers(0.5, 0.5)  # a second apart, 11 tokens each
    seen = predict(same, Fit(0.02, 0.0, 0.001, 0.004), slots=4)
    assert seen.ttft == pytest.approx([0.074] * 2)
    assert seen.itl == pytest.approx([0.02] * 2)
    assert seen.e2e == pytest.approx([0.274] * 2)


def test_a_single_slot_makes_the_second_request_wait() -> None:
    same = [Answer(0.0, 1.0, 2.0, 50, 11), Answer(0.0, 1.0, 2.0, 50, 11)]
    assert simulated(same, FIT.model(1, 0.0), request_s=0.0).ttft == pytest.approx([0.01, 0.12])


def test_percentiles_are_compared_side_by_side() -> None:
    rows = compare(Times((0.2,), (0.02,), (0.4,)), measured(answers(0.1)))
    assert [(row.what, row.percentile) for row in rows[:4]] == [("TTFT", 50), ("TTFT", 90), ("TTFT", 99), ("ITL", 50)]
    assert [row.ratio for row in rows[::3]] == pytest.approx([2.0, 2.0, 2.0])


async def test_the_whole_study_predicts_an_engine_that_is_like_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, full = tmp_path / "latency.json", tmp_path / "report.json"
    monkeypatch.setattr(measure, "SETTLE_S", 0.05)
    lengths = ["--prompts", "20", "200", "--output-tokens", "8"]
    sizes = ["--concurrency", "1", "2", "4", *lengths, "--rounds", "2", "--seconds", "1.5"]
    async with running(Engine()) as url:
        arguments = ["--url", url, "--model", "chat", "--slots", "16", *sizes, "--out", str(out), "--report", str(full)]
        await asyncio.to_thread(command.main, arguments)
    fitted = Fit.from_json(out.read_text())
    assert [fitted.step_s, fitted.prefill_s_per_token] == pytest.approx([0.011, 0.0001], rel=0.5)
    report = json.loads(full.read_text())
    assert len(report["measurements"]) == 6
    assert [row["ratio"] for row in report["validation"] if row["percentile"] == 50] == pytest.approx([1.0] * 3, abs=0.5)


async def test_a_failure_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    async with served(failing) as url:
        with pytest.raises(SystemExit):
            await asyncio.to_thread(command.main, ["--url", url, "--model", "chat", "--slots", "16"])
    assert capsys.readouterr().err.startswith("latency_model: ")


def test_more_clients_than_slots_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.parse(["--model", "chat", "--slots", "4"])
    assert "--concurrency 16 is over --slots 4" in capsys.readouterr().err
