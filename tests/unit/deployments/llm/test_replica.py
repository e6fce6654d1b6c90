from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

import httpx
import pytest

from deployments.llm import health_watch
from deployments.llm import replica as replica_module
from deployments.llm.engine import PROBE_SCOPE, AdapterEngine, AsgiApp, Receive, Scope, Send
from deployments.llm.replica import LlmReplica, ReplicaIdentity
from serve_app.config import HealthConfig, VariantConfig
from serve_app.contracts import DRAINING_HEADER, EngineLoad, ReplicaEntry
from tests.unit.deployments.llm.shelves import FakeAdapters, FakeWatcher
from tests.unit.serve_app.fakes import turns, until

IDENTITY = ReplicaIdentity("r1", "chat", host="127.0.0.1", token="internal-token")
CONFIG = VariantConfig.model_validate({"name": "stable", "source": "org/x", "engine": {"kind": "simulated"}})


def probed(health: HealthConfig) -> VariantConfig:
    return CONFIG.model_copy(update={"engine": CONFIG.engine.model_copy(update={"health": health})})


PROBED = probed(HealthConfig(probe_interval_s=0.001, probe_timeout_s=0.01))
UNPROBED = probed(HealthConfig(probe_interval_s=0))


@dataclass
class FakeEngine:
    """An engine that starts when it may and serves an app that answers when it may."""

    error: Exception | None = None
    may_start: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    stops: int = 0
    is_gone: bool = False
    is_ill: bool = False
    is_mute: bool = False
    probes: int = 0
    doing: str = ""
    done: int = 0
    working: EngineLoad = EngineLoad(waiting=3)  # noqa: RUF009  # frozen
    shelved: AdapterEngine | None = None

    async def start(self) -> AsgiApp:
        await self.may_start.wait()
        if self.error is not None:
            raise self.error
        return self._app

    def load(self) -> EngineLoad:
        if self.is_gone:
            raise RuntimeError("no load")
        return self.working

    def steps(self) -> int:
        return self.done

    def phase(self) -> str:
        return self.doing

    def adapters(self) -> AdapterEngine | None:
        return self.shelved

    def is_dead(self) -> bool:
        return self.is_gone

    async def check_health(self) -> None:
        if self.is_mute:
            await asyncio.Event().wait()
        if self.is_gone or self.is_ill:
            raise RuntimeError("engine dead")

    async def stop(self) -> None:
        self.stops += 1

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                await send({"type": f"{(await receive())['type']}.complete"})
            return
        await self.may_answer.wait()
        self.probes += bool(scope.get(PROBE_SCOPE))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b'{"choices": [1]}' if scope.get(PROBE_SCOPE) else b"ok"})


@dataclass
class FakeDirectory:
    """Writes down what it is told, or is away."""

    said: list[str] = field(default_factory=list)
    entries: list[ReplicaEntry] = field(default_factory=list)
    seqs: list[int] = field(default_factory=list)
    is_away: bool = False

    async def heartbeat(self, entry: ReplicaEntry, seq: int) -> None:
        self._hear(entry.state.value)
        self.entries.append(entry)
        self.seqs.append(seq)

    async def drain(self, replica_id: str) -> None:
        self._hear(f"drain {replica_id}")

    async def deregister(self, replica_id: str) -> None:
        self._hear(f"goodbye {replica_id}")

    def _hear(self, word: str) -> None:
        if self.is_away:
            raise ConnectionError("directory away")
        self.said.append(word)


@dataclass
class Made:
    replica: LlmReplica
    engine: FakeEngine
    directory: FakeDirectory


def made(
    *,
    drain_timeout_s: float = 60.0,
    error: Exception | None = None,
    config: VariantConfig = CONFIG,
    directory: FakeDirectory | None = None,
) -> Made:
    engine, directory = FakeEngine(error), directory or FakeDirectory()
    engine.may_start.set()
    config = config.model_copy(update={"drain_timeout_s": drain_timeout_s})
    return Made(LlmReplica(IDENTITY, config, engine=engine, directory=directory, drain_margin_s=0.01), engine, directory)


async def test_a_replica_registers_when_it_can_be_called() -> None:
    it = made()
    await it.replica.start()
    first, last = it.directory.entries
    assert (first.state.value, first.url) == ("starting", "")
    assert (last.state.value, last.model, last.variant, last.engine) == ("ready", "chat", "stable", "simulated")
    assert last.load == EngineLoad(waiting=3, open_requests=0)
    async with httpx.AsyncClient() as client:
        assert (await client.get(last.url)).status_code == 401
    await it.replica.stop()


async def test_a_replica_that_loads_keeps_telling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "HEARTBEAT_S", 0.001)
    it = made()
    it.engine.may_start.clear()
    it.engine.doing = "load"
    starting = asyncio.create_task(it.replica.start())
    await until(lambda: len(it.directory.said) >= 3)
    assert set(it.directory.said) == {"starting"}
    assert {entry.phase for entry in it.directory.entries} == {"load"}
    it.engine.may_start.set()
    await starting
    await until(lambda: it.directory.said.count("ready") >= 3)
    assert it.directory.seqs == list(range(1, len(it.directory.seqs) + 1))
    await it.replica.stop()


async def test_a_replica_whose_engine_died_takes_no_more_work_before_serve_replaces_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "HEARTBEAT_S", 0.001)
    it = made()
    await it.replica.start()
    url = it.directory.entries[-1].url
    it.engine.is_ill = True
    await until(lambda: it.directory.said[-1] == "draining")
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {IDENTITY.token}"}) as client:
        answer = await client.post(url)
    assert (answer.status_code, DRAINING_HEADER in answer.headers) == (503, True)
    with pytest.raises(RuntimeError, match="engine dead"):
        await it.replica.check_health()
    await it.replica.stop()


async def test_stopping_drains_before_it_says_goodbye_and_frees_the_engine() -> None:
    it = made()
    await it.replica.start()
    url = it.directory.entries[-1].url
    headers = {"authorization": "Bearer internal-token"}
    async with httpx.AsyncClient(base_url=url, headers=headers) as client:
        open_one = asyncio.create_task(client.post("/v1/x"))
        await until(lambda: it.replica.load().open_requests)
        stopping = asyncio.create_task(it.replica.stop())
        await until(lambda: "drain r1" in it.directory.said)
        assert (await client.post("/v1/x")).headers["x-manta-draining"] == "1"
        assert (it.engine.stops, it.directory.said[-1]) == (0, "drain r1")
        it.engine.may_answer.set()
        assert (await open_one).text == "ok"
        await stopping
    assert (it.engine.stops, it.directory.said[-1]) == (1, "goodbye r1")


async def test_a_drain_ends_with_its_budget(caplog: pytest.LogCaptureFixture) -> None:
    it = made(drain_timeout_s=0.02)
    await it.replica.start()
    async with httpx.AsyncClient(headers={"authorization": "Bearer internal-token"}) as client:
        open_one = asyncio.create_task(client.post(it.directory.entries[-1].url))
        await until(lambda: it.replica.load().open_requests)
        with caplog.at_level(logging.WARNING, logger="ray.serve"):
            await it.replica.stop()
        open_one.cancel()
        await asyncio.wait([open_one])
    assert (it.engine.stops, "with 1 streams open" in caplog.text) == (1, True)


async def test_stopping_twice_stops_once() -> None:
    it = made()
    await it.replica.start()
    await it.replica.stop()
    await it.replica.stop()
    assert (it.engine.stops, it.directory.said.count("goodbye r1")) == (1, 1)


async def test_an_engine_that_fails_to_start_is_stopped() -> None:
    it = made(error=RuntimeError("no such model"))
    with pytest.raises(RuntimeError, match="no such model"):
        await it.replica.start()
    assert (it.engine.stops, it.directory.said) == (1, ["starting", "goodbye r1"])


async def test_a_port_that_fails_to_open_stops_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    it = made()
    monkeypatch.setattr(it.replica, "_identity", ReplicaIdentity("r1", "chat", host="203.0.113.1", token="t"))
    with pytest.raises(OSError, match="assign"):
        await it.replica.start()
    assert it.engine.stops == 1


async def test_a_start_that_is_cancelled_stops_the_engine() -> None:
    it = made()
    it.engine.may_start.clear()
    starting = asyncio.create_task(it.replica.start())
    await turns(10)
    starting.cancel()
    await asyncio.wait([starting])
    assert (starting.cancelled(), it.engine.stops) == (True, 1)


async def test_its_load_is_the_engines_and_what_its_port_counts() -> None:
    it = made(config=UNPROBED)
    assert it.replica.load() == EngineLoad(waiting=3)
    await it.replica.start()
    headers = {"authorization": f"Bearer {IDENTITY.token}"}
    async with httpx.AsyncClient(base_url=it.directory.entries[-1].url, headers=headers) as client:
        call = asyncio.create_task(client.post("/v1/chat/completions", content=b"x" * 400))
        await until(lambda: it.replica.load().open_requests)
        assert it.replica.load() == EngineLoad(waiting=3, open_requests=1, arrived=1, prefill_tokens_queued=100)
        it.engine.may_answer.set()
        await call
    await until(lambda: not it.replica.load().open_requests)
    assert it.replica.load() == EngineLoad(waiting=3, arrived=1)
    await it.replica.stop()


async def test_a_replica_is_ready_once_the_directory_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "HEARTBEAT_S", 0.001)
    it = made()
    it.directory.is_away = True
    starting = asyncio.create_task(it.replica.start())
    await asyncio.sleep(0.1)
    # Else Serve would stop the replica that this one replaces, and Routers would know of neither.
    assert not starting.done()
    it.directory.is_away = False
    await asyncio.wait_for(starting, timeout=5)
    assert "ready" in it.directory.said
    await it.replica.stop()


async def test_a_directory_that_is_away_stops_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_module, "INTRODUCED_WITHIN_S", 0.05)
    it = made()
    it.directory.is_away = True
    with caplog.at_level(logging.WARNING, logger="ray.serve"):
        await it.replica.start()
        assert "no directory has heard of this replica" in caplog.text
        await it.replica.check_health()
        await it.replica.stop()
    assert (it.engine.stops, "directory away" in caplog.text) == (1, True)


async def test_health_is_the_engines() -> None:
    it = made()
    await it.replica.start()
    await it.replica.check_health()
    it.engine.is_gone = True
    with pytest.raises(RuntimeError, match="engine dead"):
        await it.replica.check_health()
    it.engine.is_gone = False
    await it.replica.stop()


async def test_a_replica_that_no_longer_tells_is_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "HEARTBEAT_S", 0.001)
    it = made()
    await it.replica.start()
    it.engine.is_gone = True  # asking for its load raises
    assert it.replica._heart is not None
    await asyncio.wait([it.replica._heart])
    it.engine.is_gone = False
    with pytest.raises(RuntimeError, match="no longer tells the directory"):
        await it.replica.check_health()
    assert it.replica._heart.exception() is not None
    await it.replica.stop()


async def test_a_heartbeat_that_is_lost_does_not_hold_up_the_next_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lossy(FakeDirectory):
        async def heartbeat(self, entry: ReplicaEntry, seq: int) -> None:
            if seq in lost:
                await asyncio.Event().wait()
            await super().heartbeat(entry, seq)

    monkeypatch.setattr(replica_module, "HEARTBEAT_S", 0.001)
    lost = {3, 5}
    it = made(directory=Lossy())
    it.engine.may_start.set()
    await it.replica.start()
    await until(lambda: len(it.directory.seqs) >= 10)
    assert not lost & set(it.directory.seqs)
    lost |= set(range(it.directory.seqs[-1] + 1, 10_000))
    await asyncio.sleep(0.05)
    assert len(asyncio.all_tasks()) < 20  # a directory that hangs is not sent ever more
    await it.replica.stop()


def test_an_identity_does_not_show_its_token() -> None:
    assert "internal-token" not in repr(IDENTITY)


WITH_ROOM = VariantConfig.model_validate(
    {"name": "stable", "source": "org/x", "engine": {"kind": "simulated", "lora": {"max_loras": 1, "max_loaded": 2}}}
)
ADAPTER = {
    "authorization": "Bearer internal-token",
    "x-manta-adapter": "legal/v1",
    "x-manta-adapter-source": "/anywhere",
    "x-manta-adapter-revision": "r1",
}


async def test_a_replica_tells_which_adapters_it_has_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "HEARTBEAT_S", 0.001)
    it, watcher = made(config=WITH_ROOM), FakeWatcher()
    it.engine.shelved = FakeAdapters()
    it.engine.may_answer.set()
    it.replica.watch_adapters(watcher)
    await it.replica.start()
    async with httpx.AsyncClient(base_url=it.directory.entries[-1].url, headers=ADAPTER) as client:
        assert (await client.post("/v1/x")).text == "ok"
    await until(lambda: it.directory.entries[-1].adapters == ("legal/v1",))
    assert (it.engine.shelved.said, watcher.heard) == (["+legal/v1"], [("ok", 1)])
    await it.replica.stop()


@pytest.mark.parametrize("config", [CONFIG, WITH_ROOM], ids=["no-room", "an-engine-that-takes-none"])
async def test_a_replica_without_adapters_refuses_their_requests(config: VariantConfig) -> None:
    it = made(config=config)
    it.engine.may_answer.set()
    await it.replica.start()
    async with httpx.AsyncClient(base_url=it.directory.entries[-1].url, headers=ADAPTER) as client:
        answer = await client.post("/v1/x")
        assert (answer.status_code, answer.headers["x-manta-adapter-unavailable"]) == (503, "1")
    assert it.directory.entries[-1].adapters == ()
    await it.replica.stop()


async def ill(it: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the engine answer one probe and hang at all others, until the replica gives it up."""
    monkeypatch.setattr(replica_module, "HEARTBEAT_S", 0.001)
    monkeypatch.setattr(health_watch, "LOOK_EVERY_S", 0)
    monkeypatch.setattr(health_watch, "RETRY_S", 0)
    it.engine.may_answer.set()
    await it.replica.start()
    await until(lambda: it.engine.probes >= 1)
    it.engine.may_answer.clear()
    await until(lambda: it.directory.said[-1] == "draining")


async def test_a_replica_whose_engine_hangs_takes_no_more_work_and_asks_to_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    it = made(config=PROBED)
    await ill(it, monkeypatch)
    with pytest.raises(RuntimeError, match=r"generates nothing any more: 2 probes in a row failed; no answer within 0\.01 s"):
        await it.replica.check_health()
    assert it.replica.load().arrived == 0
    await it.replica.stop()


async def test_a_replica_that_gave_its_engine_up_does_not_wait_for_its_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "GIVEN_UP_DRAIN_S", 0.0)
    it = made(config=PROBED)
    it.engine.may_answer.set()
    await it.replica.start()
    it.engine.may_answer.clear()
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {IDENTITY.token}"}) as client:
        open_one = asyncio.create_task(client.post(it.directory.entries[-1].url))
        await until(lambda: it.replica.load().open_requests)
        it.replica._watch.failure = "hangs"  # type: ignore[union-attr]
        await it.replica.stop()
        open_one.cancel()
        await asyncio.wait([open_one])
    assert it.engine.stops == 1


async def test_a_probe_is_no_load() -> None:
    it = made()
    await it.replica.start()
    seen = []
    for working in (EngineLoad(running=2, waiting=1), EngineLoad(waiting=1), EngineLoad()):
        it.engine.working = working
        assert it.replica._probe is not None
        it.replica._probe.is_open = True
        seen.append(it.replica.load())
    assert seen == [EngineLoad(running=1, waiting=1), EngineLoad(), EngineLoad()]
    await it.replica.stop()


async def test_a_replica_without_an_interval_sends_no_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_watch, "LOOK_EVERY_S", 0)
    it = made(config=UNPROBED)
    await it.replica.start()
    await turns(20)
    assert it.engine.probes == 0
    await it.replica.check_health()
    await it.replica.stop()


async def test_a_check_of_the_engine_that_hangs_is_a_failed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "HEALTH_TIMEOUT_S", 0.001)
    it = made()
    it.engine.is_mute = True
    with pytest.raises(RuntimeError, match=r"did not say within 0\.001 s"):
        await it.replica.check_health()
