"""VllmEngine: vLLM's AsyncLLM and its own OpenAI-compatible app, inside the replica's process."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from deployments.llm.engine import AdapterEngine, AsgiApp
from deployments.llm.phases import StartPhases
from deployments.llm.sources import WeightsFolder, weights_folder
from deployments.llm.stages import Rendezvous, Stages
from deployments.llm.vllm_args import is_streamed, parse_args, vllm_args
from deployments.llm.vllm_lora import attach_lora
from deployments.llm.vllm_stats import LatestStats
from deployments.llm.worker_extension import StageExtension
from deployments.rate import Rate
from serve_app.config import EngineConfig, VariantConfig, source_kind
from serve_app.contracts import EngineLoad
from serve_app.storage.cache import cache_from
from serve_app.storage.progress import OnProgress

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

logger = logging.getLogger("ray.serve")


SHUTDOWN_S = 5.0
KILL_AGAIN_S = 0.5


class EngineEnded(RuntimeError):
    """A part of the engine has ended, so all of it has."""


class VllmEngine:
    """An Engine backed by vLLM 0.29. vllm is imported when the engine starts, never before."""

    def __init__(
        self,
        model: str,
        config: VariantConfig,
        *,
        stages: Stages | None = None,
        phases: StartPhases | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``stages``: the others of a replica that has several."""
        self._model = model
        self._config = config
        self._stages = stages
        self._phases = phases or StartPhases(timeout_s=config.engine.start_timeout_s, clock=clock)
        self._llm: AsyncLLM | None = None
        self._latest = LatestStats(Rate(clock=clock))
        self._weights: WeightsFolder | None = None
        self._adapters: AdapterEngine | None = None
        self._watch: asyncio.Task[None] | None = None
        self._failure = ""

    async def start(self) -> AsgiApp:
        """Load the weights, start the engine's processes, generate a few tokens, and return vLLM's app.

        Raises:
            PlatformError: the weights are missing.
            StartTimeout: it took longer than ``engine.start_timeout_s``.
            EngineEnded: another stage ended meanwhile.
            Exception: whatever vLLM says of a configuration it cannot run.
        """
        async with self._phases.phase("download"):
            self._weights = await self._fetch()
        async with self._phases.phase("load"):
            rendezvous = self._stages.start() if self._stages is not None else None
            set_environment(self._config, host=rendezvous.host if rendezvous is not None else None)
            args = await asyncio.to_thread(
                engine_arguments, self._model, self._weights.path, engine=self._config.engine, rendezvous=rendezvous
            )
            self._llm = await self._load(args)
        async with self._phases.phase("warm-up"):
            if rendezvous is not None:
                await self._llm.collective_rpc(StageExtension.prepare_stage.__name__)
            await _warm_up(self._llm)
            app, state = await _new_app(self._llm, args)
        if self._config.engine.lora is not None:
            self._adapters = attach_lora(state, self._llm)
        return app

    def adapters(self) -> AdapterEngine | None:
        """Return what loads LoRA adapters; None before the start, and where the engine takes none."""
        return self._adapters

    async def _fetch(self) -> WeightsFolder:
        """Have every node of the replica fetch its weights. Ranks wait for each other, but not as long as a download takes."""
        own = asyncio.to_thread(fetch_weights, self._config, on_progress=self._phases.on_progress)
        if self._stages is None:
            return await own
        weights, _ = await asyncio.gather(own, self._stages.fetch())
        return weights

    async def _load(self, args: Any) -> AsyncLLM:
        if self._stages is not None:
            self._watch = asyncio.create_task(self._watch_stages(self._stages))
        # In a thread: it takes minutes, in which the replica tells the directory that it lives.
        loading = asyncio.get_running_loop().run_in_executor(None, _new_llm, args, self._latest)
        try:
            return await asyncio.shield(loading)
        except asyncio.CancelledError:
            await _give_up(loading)
            raise
        except Exception as err:
            if self._failure:
                raise EngineEnded(self._failure) from err
            raise

    async def _watch_stages(self, stages: Stages) -> None:
        """End the engine when a stage has ended: vLLM itself would wait for the stage's answer for minutes."""
        try:
            self._failure = await stages.ended()
        except Exception as err:
            self._failure = f"the stages cannot be watched: {err}"
        logger.error("%s: this replica cannot go on", self._failure)
        _kill_processes()

    def phase(self) -> str:
        """Return what the start does right now."""
        return self._phases.current

    def load(self) -> EngineLoad:
        """Return what the scheduler last said; nothing unfinished in the front end means that nothing waits or runs."""
        if self._llm is None:
            return EngineLoad()
        # An abort that empties the engine ends its loop before it reports again, so its last word would be stale.
        is_idle = not self._llm.output_processor.has_unfinished_requests()
        load = EngineLoad() if is_idle else self._latest.load
        slots = self._llm.vllm_config.scheduler_config.max_num_seqs
        return replace(load, slots=slots, tokens_per_s=self._latest.tokens.per_s())

    def steps(self) -> int:
        """Return the steps that the engine has told of, with the warm-up's."""
        return self._latest.steps

    def is_dead(self) -> bool:
        """Whether a part of the engine is gone."""
        return bool(self._failure) or (self._llm is not None and self._llm.errored)

    async def check_health(self) -> None:
        """Raise EngineDeadError when a process of the engine is gone, EngineEnded when another stage is."""
        if self._failure:
            raise EngineEnded(self._failure)
        if self._llm is not None:
            await self._llm.check_health()

    async def stop(self) -> None:
        """End the engine's processes, on every node."""
        if self._watch is not None:
            self._watch.cancel()
        with ExitStack() as ends:  # each of them, whatever the others raise
            if self._weights is not None:
                ends.callback(self._weights.close)
            if self._stages is not None:
                ends.callback(self._stages.stop)
            if self._llm is not None:
                await asyncio.to_thread(self._llm.shutdown, timeout=SHUTDOWN_S)


async def _warm_up(llm: AsyncLLM) -> None:
    """Generate two tokens: the first forward passes allocate and compile, and no client should wait for that."""
    if "generate" not in await llm.get_supported_tasks():
        return
    from vllm import SamplingParams

    params = SamplingParams(max_tokens=2, ignore_eos=True)
    async for _ in llm.generate({"prompt_token_ids": [0, 1, 2, 3]}, params, request_id="warm-up"):
        pass


def set_environment(config: VariantConfig, *, host: str | None) -> None:
    """Set what vLLM reads from the environment when it is imported. What an operator has set wins.

    ``host``: this node's address for the other stages; None where there are none.
    """
    engine = config.engine
    os.environ.setdefault("VLLM_ENGINE_READY_TIMEOUT_S", str(int(engine.start_timeout_s)))
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(engine.cpu_kv_cache_gib))
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_CONFIGURE_LOGGING", "1")
    # What an engine compiles is kept beside the weights: the next replica of this node finds it. Their own defaults are
    # the home folder, which a container loses, and the temporary one.
    compiled = cache_from().root / "compiled"
    for name in ("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        os.environ.setdefault(name, str(compiled / name.partition("_")[0].lower()))
    if host is not None:
        os.environ.setdefault("VLLM_HOST_IP", host)
    if not _needs_hub(config):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


def _needs_hub(config: VariantConfig) -> bool:
    """Whether anything of the engine may come from the Hugging Face hub: adapters come later, from wherever they are."""
    engine = config.engine
    sources = [config.source, engine.tokenizer, engine.speculative.model if engine.speculative is not None else None]
    return engine.lora is not None or any(source is not None and source_kind(source) == "hub" for source in sources)


def fetch_weights(config: VariantConfig, *, on_progress: OnProgress | None = None) -> WeightsFolder:
    """Return what this node's part of the engine is to load. May download for minutes. Raises MissingWeights."""
    return weights_folder(config.source, is_streamed=is_streamed(config.source, config.engine), on_progress=on_progress)


def engine_arguments(model: str, folder: str, *, engine: EngineConfig, rendezvous: Rendezvous | None) -> Any:
    """Return vLLM's parsed arguments of this stage, or of an engine that has no stages. Raises ArgumentsError."""
    arguments = vllm_args(model, folder, engine)
    if rendezvous is not None:
        arguments |= {
            "distributed_executor_backend": "mp",
            "nnodes": rendezvous.stages,
            "node_rank": rendezvous.stage,
            "master_addr": rendezvous.host,
            "master_port": rendezvous.port,
            "worker_extension_cls": f"{StageExtension.__module__}.{StageExtension.__qualname__}",
        }
    args = parse_args(arguments)
    if rendezvous is not None:
        # All that this process sees. Unless it is told, vLLM asks the platform how many ranks a node has, and on CPU that
        # says one, whatever the tensor-parallel size.
        args.device_ids = list(range(engine.tensor_parallel_size))
    return args


def _kill_processes() -> None:
    """End the engine's processes now; this process has no other children of multiprocessing."""
    for child in multiprocessing.active_children():
        child.kill()


async def _give_up(loading: asyncio.Future[AsyncLLM]) -> None:
    """End an engine that is being made; the thread that makes it may not have started its processes yet."""
    while not loading.done():
        _kill_processes()
        await asyncio.sleep(KILL_AGAIN_S)
    if not loading.cancelled() and loading.exception() is None:
        await asyncio.to_thread(loading.result().shutdown, timeout=SHUTDOWN_S)


def _new_llm(args: Any, latest: LatestStats) -> AsyncLLM:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    engine_args = AsyncEngineArgs.from_cli_args(args)
    return AsyncLLM.from_engine_args(engine_args, usage_context=UsageContext.OPENAI_API_SERVER, stat_loggers=[latest.factory()])


async def _new_app(llm: AsyncLLM, args: Any) -> tuple[AsgiApp, Any]:
    """Return vLLM's app and its state."""
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.app import build_app

    tasks = await llm.get_supported_tasks()
    app = build_app(args, tasks, llm.model_config)
    await init_app_state(llm, app.state, args, tasks)
    return app, app.state
