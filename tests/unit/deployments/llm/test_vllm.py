from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.llm.phases import StartTimeout
from deployments.llm.sources import WeightsFolder
from deployments.llm.stages import Rendezvous
from deployments.llm.vllm import EngineEnded, VllmEngine, set_environment
from serve_app.config import EngineConfig, VariantConfig
from serve_app.contracts import EngineLoad
from tests.unit.deployments.clock import Clock


def engine(clock: Clock, *, has_work: bool = True) -> VllmEngine:
    """Return one whose engine has started, in the parts that its load is made of."""
    made = VllmEngine("chat", VariantConfig(name="stable", source="org/model"), clock=clock)
    llm: Any = SimpleNamespace(
        output_processor=SimpleNamespace(has_unfinished_requests=lambda: has_work),
        vllm_config=SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=256)),
    )
    made._llm = llm
    return made


SCHEDULER = SimpleNamespace(num_waiting_reqs=4, num_skipped_waiting_reqs=1, num_running_reqs=7, kv_cache_usage=0.5)


def test_an_engine_that_starts_has_no_load_and_no_known_slots() -> None:
    assert VllmEngine("chat", VariantConfig(name="stable", source="org/model")).load() == EngineLoad()


def test_its_load_is_what_the_scheduler_last_said() -> None:
    made = engine(Clock())
    made._latest.record(SCHEDULER, None)
    made._latest.record(None, None)
    assert made.load() == EngineLoad(waiting=5, running=7, kv_cache_usage_ratio=0.5, slots=256)


def test_the_schedulers_last_word_is_not_believed_once_nothing_is_unfinished() -> None:
    made = engine(Clock(), has_work=False)
    made._latest.record(SCHEDULER, None)
    assert made.load() == EngineLoad(slots=256)


def test_tokens_are_counted_over_the_last_seconds() -> None:
    clock = Clock()
    made = engine(clock)
    for _ in range(100):
        clock.now_s += 0.1
        made._latest.record(None, SimpleNamespace(num_generation_tokens=7))
    assert made.load().tokens_per_s == pytest.approx(70, rel=0.05)
    clock.now_s += 60
    assert made.load().tokens_per_s == 0


class FakeStages:
    """Stages that end when they are told to."""

    def __init__(self) -> None:
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.is_stopped = False
        self.has_weights = False

    async def fetch(self) -> None:
        self.has_weights = True

    def start(self) -> Rendezvous:
        assert self.has_weights
        return Rendezvous("10.0.0.1", 4711, stages=2)

    async def ended(self) -> str:
        return await self.end

    def stop(self) -> None:
        self.is_stopped = True


class FakeLlm:
    """The parts of AsyncLLM that a start and an end use."""

    def __init__(self) -> None:
        self.is_shut_down = False
        self.prepared = ""

    async def get_supported_tasks(self) -> tuple[str, ...]:
        return ()

    async def check_health(self) -> None:
        return None

    async def collective_rpc(self, method: str) -> None:
        self.prepared = method

    def shutdown(self, timeout: float) -> None:
        self.is_shut_down = timeout > 0


STAGED = VariantConfig(name="stable", source="org/model", engine=EngineConfig(pipeline_parallel_size=2))


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Fake what an engine is made of; the event says that its processes were killed."""
    event = threading.Event()

    async def app(llm: object, args: object) -> tuple[object, None]:
        return args, None

    monkeypatch.setattr("deployments.llm.vllm.fetch_weights", lambda config, *, on_progress: WeightsFolder("org/model"))
    monkeypatch.setattr("deployments.llm.vllm.set_environment", lambda config, *, host: None)
    monkeypatch.setattr("deployments.llm.vllm.engine_arguments", lambda model, folder, **more: more["rendezvous"])
    monkeypatch.setattr("deployments.llm.vllm._new_app", app)
    monkeypatch.setattr("deployments.llm.vllm._kill_processes", event.set)
    return event


async def test_a_stage_that_ends_while_the_engine_loads_ends_the_start_with_its_reason(
    killed: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(args: object, latest: object) -> None:
        assert killed.wait(30)
        raise RuntimeError("Engine core initialization failed")

    monkeypatch.setattr("deployments.llm.vllm._new_llm", load)
    stages = FakeStages()
    made = VllmEngine("chat", STAGED, stages=stages)
    start = asyncio.create_task(made.start())
    stages.end.set_result("stage 1 ended: no space left")
    with pytest.raises(EngineEnded, match="stage 1 ended: no space left"):
        await start
    await made.stop()
    assert stages.is_stopped


async def test_a_stage_that_ends_later_makes_the_replica_ill(killed: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = FakeLlm()
    monkeypatch.setattr("deployments.llm.vllm._new_llm", lambda args, latest: llm)
    stages = FakeStages()
    made = VllmEngine("chat", STAGED, stages=stages)
    app: object = await made.start()
    assert (app, llm.prepared) == (Rendezvous("10.0.0.1", 4711, stages=2), "prepare_stage")
    await made.check_health()
    stages.end.set_result("stage 1 ended: one of its ranks died")
    await asyncio.to_thread(killed.wait, 30)
    with pytest.raises(EngineEnded, match="one of its ranks died"):
        await made.check_health()
    await made.stop()
    assert llm.is_shut_down
    assert stages.is_stopped


async def test_a_start_that_takes_too_long_kills_what_it_waits_for(
    killed: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = FakeLlm()

    def load(args: object, latest: object) -> FakeLlm:
        assert killed.wait(30)
        return llm  # it was done already when its processes were killed

    monkeypatch.setattr("deployments.llm.vllm._new_llm", load)
    config = STAGED.model_copy(update={"engine": EngineConfig(start_timeout_s=0.5)})
    with pytest.raises(StartTimeout, match="load has run"):
        await VllmEngine("chat", config).start()
    assert llm.is_shut_down


def test_what_an_engine_compiles_is_kept_in_the_nodes_cache_unless_an_operator_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in set(os.environ):
        if name.startswith(("VLLM_", "TRITON_", "TORCHINDUCTOR_", "HF_HUB")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", {**os.environ, "MANTA_CACHE": str(tmp_path), "TRITON_CACHE_DIR": "/mine"})
    set_environment(VariantConfig(name="stable", source="./models/x"), host=None)
    assert (os.environ["VLLM_CACHE_ROOT"], os.environ["TRITON_CACHE_DIR"]) == (str(tmp_path / "compiled" / "vllm"), "/mine")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "compiled" / "torchinductor")
    assert (os.environ["HF_HUB_OFFLINE"], "VLLM_HOST_IP" in os.environ) == ("1", False)


@pytest.mark.parametrize(
    ("config", "is_offline"),
    [
        pytest.param({"source": "./models/x"}, True, id="folder"),
        pytest.param({"source": "s3://models/x"}, True, id="s3"),
        pytest.param({"source": "org/model"}, False, id="hub"),
        pytest.param({"source": "./models/x", "engine": {"tokenizer": "org/tokenizer"}}, False, id="tokenizer-from-the-hub"),
        pytest.param({"source": "./models/x", "engine": {"lora": {}}}, False, id="adapters-may-come-from-the-hub"),
        pytest.param(
            {"source": "s3://models/x", "engine": {"speculative": {"model": "org/draft", "num_speculative_tokens": 3}}},
            False,
            id="draft-model-from-the-hub",
        ),
    ],
)
def test_the_hub_is_closed_only_where_nothing_comes_from_it(
    config: dict[str, Any], is_offline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"})
    set_environment(VariantConfig.model_validate({"name": "stable", **config}), host=None)
    assert ("HF_HUB_OFFLINE" in os.environ) is is_offline
