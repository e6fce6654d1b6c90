"""Streams that go on at another replica, over real connections: the simulated engine behind the ports of two replicas."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from deployments.llm.port import ReplicaPort
from deployments.llm.simulated import SimulatedEngine
from deployments.llm.simulated_answer import EngineDied
from serve_app.config import SimulatedFaults, SimulatedLatency
from serve_app.gateway import Call, Gateway, Stages
from serve_app.http_upstream import HttpUpstream
from serve_app.observing.record import RequestRecord
from serve_app.view import ANONYMOUS
from tests.unit.serve_app.continuing import text_of
from tests.unit.serve_app.fakes import FakeRetriever, Woken, document, entry, model, snapshot

TOKEN = "t0ken"
SOUND = SimulatedFaults()
ENDPOINTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Tell me more"}]},
    "/v1/completions": {"prompt": "Tell me more"},
}


@asynccontextmanager
async def platform(faults: SimulatedFaults = SOUND) -> AsyncIterator[tuple[Gateway, list[SimulatedEngine]]]:
    """Run a gateway before two replicas; the first has the faults, and less load, so that requests go there."""
    latencies = [SimulatedLatency(prefill_s_per_token=0, decode_s_per_token=0, faults=each) for each in (faults, SOUND)]
    engines = [SimulatedEngine("chat", latency) for latency in latencies]
    ports = [ReplicaPort(await engine.start(), token=TOKEN, host="127.0.0.1") for engine in engines]
    upstream = HttpUpstream(token=TOKEN)
    try:
        urls = [await port.start() for port in ports]
        made = Gateway(upstream=upstream, wake=Woken(), stages=Stages(retriever=FakeRetriever()))
        entries = [entry(f"r{number}", url=url, open_requests=9 * number) for number, url in enumerate(urls)]
        on = model(("stable", 100)).model_copy(update={"continue_streams": True})
        made.update(snapshot(*entries, routing=document(models=(on,), replica_choice="least_loaded")))
        yield made, engines
    finally:
        await upstream.close()
        for port in ports:
            await port.stop()


async def read(made: Gateway, path: str, *, on_piece: Callable[[], None] | None = None) -> tuple[bytes, RequestRecord]:
    """Return what the client of a stream reads, and the record of its request."""
    body: dict[str, Any] = {"model": "chat", "stream": True, "temperature": 0, "max_tokens": 30, **ENDPOINTS[path]}
    record = RequestRecord()
    call = Call(path, body, json.dumps(body).encode(), ANONYMOUS, request_id="q1", record=record)
    reply = await made.relay(call, made.view.models["chat"])
    assert not isinstance(reply.body, bytes)
    pieces = []
    async for piece in reply.body:
        pieces.append(piece)
        if on_piece is not None:
            on_piece()
    return b"".join(pieces), record


@pytest.mark.parametrize("path", list(ENDPOINTS))
@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(SimulatedFaults(half_stream_ratio=1), id="cut-connection"),
        pytest.param(SimulatedFaults(silent_end_ratio=1), id="end-before-the-end"),
    ],
)
async def test_a_stream_that_is_cut_goes_on_with_the_very_next_word(path: str, faults: SimulatedFaults) -> None:
    async with platform() as (made, _):
        whole, _ = await read(made, path)
    async with platform(faults) as (made, engines):
        got, record = await read(made, path)
        assert [engine.steps() > 0 for engine in engines] == [True, True]
    assert text_of(got) == text_of(whole)
    assert len(text_of(got).split()) == 30
    assert (got.count(b": continued on another replica\n\n"), got[-14:]) == (1, b"data: [DONE]\n\n")
    assert (record.continued, b"error" in got) == (1, False)


async def test_a_stream_whose_engine_dies_in_the_middle_goes_on_elsewhere() -> None:
    async with platform() as (made, engines):
        whole, _ = await read(made, "/v1/chat/completions")
        dying, heard = engines[0], asyncio.Event()
        steps = dying.steps()

        async def check_health() -> None:
            if dying.steps() - steps >= 9:
                await heard.wait()
                raise EngineDied("out of memory")

        dying.check_health = check_health  # type: ignore[method-assign]
        got, record = await read(made, "/v1/chat/completions", on_piece=heard.set)
    assert (text_of(got), record.continued, b"error" in got) == (text_of(whole), 1, False)
