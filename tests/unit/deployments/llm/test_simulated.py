from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from deployments.llm.engine import CURRENT_ADAPTER, AsgiApp, LoadedAdapter
from deployments.llm.simulated import DEFAULT_TOKENS, SimulatedAdapters, SimulatedEngine
from serve_app.config import SimulatedFaults, SimulatedLatency
from serve_app.contracts import EngineLoad
from tests.unit.deployments.clock import Clock
from tests.unit.deployments.llm.asgi import Exchange
from tests.unit.serve_app.fakes import turns

FAST = SimulatedLatency(prefill_s_per_token=0, decode_s_per_token=0)
SLOW = SimulatedLatency(prefill_s_per_token=0, decode_s_per_token=60, slots=1)
CHAT = {"messages": [{"role": "user", "content": "Why?"}]}


async def answer(body: Any, *, path: str = "/v1/chat/completions", latency: SimulatedLatency = FAST) -> Exchange:
    app = await SimulatedEngine("chat", latency).start()
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await Exchange(raw, path=path).run(app)


async def test_a_chat_says_that_it_is_simulated() -> None:
    document = json.loads((await answer({**CHAT, "max_tokens": 2})).body)
    assert (document["object"], document["model"], document["system_fingerprint"]) == ("chat.completion", "chat", "simulated")
    assert document["choices"][0]["message"] == {"role": "assistant", "content": "simulated answer "}
    assert document["usage"]["completion_tokens"] == 2


async def test_a_completion_has_text() -> None:
    document = json.loads((await answer({"prompt": "Why?", "max_tokens": 1}, path="/v1/completions")).body)
    assert (document["object"], document["choices"][0]["text"]) == ("text_completion", "simulated ")


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/v1/chat/completions", "chat.completion.chunk"), ("/v1/completions", "text_completion")],
    ids=["chat", "completion"],
)
async def test_a_stream_has_one_event_per_token_then_the_reason_then_done(path: str, kind: str) -> None:
    made = await answer({**CHAT, "stream": True, "max_completion_tokens": 2}, path=path)
    assert made.headers[b"content-type"].startswith(b"text/event-stream")
    *events, done, empty = made.body.split(b"\n\n")
    documents = [json.loads(e.removeprefix(b"data: ")) for e in events]
    choices = [d["choices"][0] for d in documents]
    assert [c["delta"].get("content") if "delta" in c else c["text"] for c in choices] == [
        "simulated ",
        "answer ",
        None if "chat" in path else "",
    ]
    assert [c["finish_reason"] for c in choices] == [None, None, "length"]
    assert ({d["object"] for d in documents}, len({d["id"] for d in documents})) == ({kind}, 1)
    assert (done, empty) == (b"data: [DONE]", b"")


async def test_an_answer_has_a_default_length() -> None:
    assert json.loads((await answer(CHAT)).body)["usage"]["completion_tokens"] == DEFAULT_TOKENS


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("value", [-1, 0, 1.5, "7", True], ids=["negative", "zero", "fraction", "text", "truth"])
async def test_a_bad_length_is_refused_by_name(field: str, value: object) -> None:
    made = await answer({**CHAT, field: value})
    error = json.loads(made.body)["error"]
    assert (made.status, error["param"], error["code"]) == (400, field, "invalid_request")


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff"], ids=["cut", "list", "no-utf-8"])
async def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    assert (await answer(body)).status == 400


async def test_the_list_of_models_says_that_it_is_simulated() -> None:
    made = Exchange(path="/v1/models")
    made.scope["method"] = "GET"
    [card] = json.loads((await made.run(await SimulatedEngine("chat", FAST).start())).body)["data"]
    assert (card["id"], card["owned_by"]) == ("chat", "simulated")


async def start(app: AsgiApp, exchange: Exchange) -> asyncio.Task[Exchange]:
    task = asyncio.create_task(exchange.run(app))
    await turns(20)
    return task


async def test_requests_over_the_slots_wait_and_clients_that_leave_free_theirs() -> None:
    engine = SimulatedEngine("chat", SLOW)
    app = await engine.start()
    body = json.dumps({**CHAT, "stream": True}).encode()
    first, second = Exchange(body), Exchange(body)
    tasks = [await start(app, each) for each in (first, second)]
    assert engine.load() == EngineLoad(waiting=1, running=1, kv_cache_usage_ratio=1.0, slots=1)
    first.leaves.set()
    await turns(40)
    assert engine.load() == EngineLoad(waiting=0, running=1, kv_cache_usage_ratio=1.0, slots=1)
    second.leaves.set()
    await asyncio.wait(tasks)
    await turns()
    assert engine.load() == EngineLoad(slots=1)
    await engine.check_health()
    await engine.stop()


async def test_the_tokens_of_the_last_seconds_are_counted() -> None:
    clock = Clock()
    engine = SimulatedEngine("chat", FAST, clock=clock)
    app = await engine.start()
    for _ in range(3):
        await Exchange(json.dumps({**CHAT, "max_tokens": 30}).encode()).run(app)
    assert engine.load().tokens_per_s == pytest.approx(90 / 4.5)
    clock.now_s += 60
    assert engine.load().tokens_per_s == 0


async def test_a_share_of_requests_fails_on_purpose_evenly_spread() -> None:
    latency = FAST.model_copy(update={"faults": SimulatedFaults(error_ratio=0.3)})
    app = await SimulatedEngine("chat", latency).start()
    statuses = [(await Exchange(json.dumps(CHAT).encode(), path="/v1/chat/completions").run(app)).status for _ in range(10)]
    assert statuses == [200, 200, 200, 500, 200, 200, 500, 200, 200, 500]


async def test_a_request_that_hangs_on_purpose_is_never_answered() -> None:
    latency = FAST.model_copy(update={"faults": SimulatedFaults(hang_ratio=1.0)})
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(answer(CHAT, latency=latency), 0.05)


async def test_a_replica_dies_on_purpose_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    died: list[int] = []
    monkeypatch.setattr("deployments.llm.simulated_faults.os._exit", died.append)
    latency = FAST.model_copy(update={"faults": SimulatedFaults(crash_after_requests=1)})
    app = await SimulatedEngine("chat", latency).start()
    for _ in range(2):
        await Exchange(json.dumps(CHAT).encode(), path="/v1/chat/completions").run(app)
    assert died == [1]


async def test_an_engine_that_is_meant_to_fail_says_so() -> None:
    latency = FAST.model_copy(update={"faults": SimulatedFaults(fails_to_start=True)})
    with pytest.raises(RuntimeError, match="configured to fail"):
        await SimulatedEngine("chat", latency).start()


@pytest.mark.parametrize("is_stream", [False, True])
async def test_an_adapters_answer_begins_with_it_and_names_it_as_the_model(is_stream: bool) -> None:
    token = CURRENT_ADAPTER.set(LoadedAdapter("legal/v2", "chat:legal", "r1"))
    try:
        made = await answer({**CHAT, "max_tokens": 2, "stream": is_stream})
    finally:
        CURRENT_ADAPTER.reset(token)
    body = made.body.replace(b'": "', b'":"')
    assert (b'"model":"chat:legal"' in body, b'"content":"legal/v2 ' in body) == (True, True)


async def test_a_simulated_engine_remembers_its_adapters() -> None:
    adapters = SimulatedAdapters()
    adapter = LoadedAdapter("legal/v2", "chat:legal", "r1")
    await adapters.load(adapter, "anywhere")
    assert adapters.loaded == {adapter}
    await adapters.unload(adapter)
    assert adapters.loaded == set()
