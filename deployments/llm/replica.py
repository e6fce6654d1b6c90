"""LLM: one replica of a model variant. Serve places and heals it; clients' bytes reach it on its own HTTP port."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

from deployments.llm.adapter_files import Label
from deployments.llm.adapter_metrics import AdapterWatcher
from deployments.llm.adapter_shelf import WORLD, AdapterShelf, World
from deployments.llm.adapters import AdapterHost
from deployments.llm.engine import AsgiApp, Engine
from deployments.llm.generation_probe import GenerationProbe
from deployments.llm.health_watch import HealthWatch, Signs
from deployments.llm.port import ReplicaPort
from serve_app.config import VariantConfig
from serve_app.contracts import EngineLoad, ReplicaEntry, ReplicaState
from serve_app.rollout.document import NOT_IN_ARGS, revision

logger = logging.getLogger("ray.serve")

HEARTBEAT_S = 0.5
MOST_UNHEARD = 4  # heartbeats that wait for the directory at a time: one that is lost must not hold up the next ones
TELL_TIMEOUT_S = 5.0
INTRODUCED_WITHIN_S = 300.0  # Rollouts is back from a restart, on a busy node, too
HEALTH_TIMEOUT_S = 5.0  # of a look at the engine's processes, which waits for nothing
GIVEN_UP_DRAIN_S = 10.0  # for the streams of an engine that gives no answers: its accelerators are for the next replica


class DirectoryClient(Protocol):
    """What a replica says to the directory."""

    async def heartbeat(self, entry: ReplicaEntry, seq: int) -> None:
        """Register or refresh."""
        ...

    async def drain(self, replica_id: str) -> None:
        """Ask Routers to send nothing new."""
        ...

    async def deregister(self, replica_id: str) -> None:
        """Say goodbye."""
        ...


@dataclass(frozen=True, slots=True)
class ReplicaIdentity:
    """Who a replica is and where it can be reached."""

    replica_id: str
    model: str
    host: str  # the node's IP address
    token: str

    def __repr__(self) -> str:
        return f"ReplicaIdentity({self.replica_id}, {self.model})"


class LlmReplica:
    """Engine, port and directory entry of one replica; knows nothing of Ray."""

    def __init__(
        self,
        identity: ReplicaIdentity,
        config: VariantConfig,
        *,
        engine: Engine,
        directory: DirectoryClient,
        drain_margin_s: float = 5.0,
    ) -> None:
        self._identity = identity
        self._config = config
        self._engine = engine
        self._directory = directory
        self._adapter_watcher: AdapterWatcher | None = None
        self._shelf: AdapterShelf | None = None
        self._drain_margin_s = drain_margin_s
        self._port: ReplicaPort | None = None
        self._seq = itertools.count(1)
        self._heart: asyncio.Task[None] | None = None
        self._probe: GenerationProbe | None = None
        self._watch: HealthWatch | None = None
        self._watching: asyncio.Task[None] | None = None
        self._is_stopped = False
        self._entry = ReplicaEntry(
            replica_id=identity.replica_id,
            model=identity.model,
            variant=config.name,
            url="",
            state=ReplicaState.STARTING,
            engine=config.engine.kind,
            revision=revision(config, without=NOT_IN_ARGS),
        )

    def watch_adapters(self, watcher: AdapterWatcher) -> None:
        """Tell a watcher of adapters that come and go; call it before ``start``."""
        self._adapter_watcher = watcher

    async def start(self) -> None:
        """Start the engine, open the port and register. Raises what the engine raises."""
        # From the first moment on, so that `manta status` shows a replica that is still loading.
        await self._beat()
        self._heart = asyncio.create_task(self._keep_beating())
        try:
            app = await self._engine.start()
            self._shelf = self._new_shelf()
            host = AdapterHost(app, self._shelf)
            port = ReplicaPort(host, token=self._identity.token, host=self._identity.host, is_dead=self._engine.is_dead)
            url = await port.start()
        except BaseException:
            await self.stop()  # or the engine's processes would outlive the failed replica
            raise
        self._port = port
        self._entry = replace(self._entry, url=url, state=ReplicaState.READY)
        self._begin_watch(app, port)
        await self._introduce()

    async def _introduce(self) -> None:
        """Return once the directory knows the replica: Serve calls it ready then, and may stop the one that it replaces.

        Without a directory for long, it is ready all the same: the next heartbeats go on trying.
        """
        try:
            async with asyncio.timeout(INTRODUCED_WITHIN_S):
                while True:
                    if await self._beat():
                        return
                    await asyncio.sleep(HEARTBEAT_S)
        except TimeoutError:
            logger.warning(
                "no directory has heard of this replica for %g s; it serves as soon as one does", INTRODUCED_WITHIN_S
            )

    def _begin_watch(self, app: AsgiApp, port: ReplicaPort) -> None:
        config = self._config.engine.health
        if not config.probe_interval_s:
            return
        guard, engine = port.guard, self._engine

        def signs() -> Signs:
            return Signs(guard.open_requests, guard.answered, failed_in_row=guard.failed_in_row, steps=engine.steps())

        self._probe = GenerationProbe(app, self._identity.model)
        self._watch = HealthWatch(self._probe, config, signs=signs)
        self._watching = asyncio.create_task(self._watch.keep())

    def _new_shelf(self) -> AdapterShelf | None:
        room = self._config.engine.lora
        adapters = None if room is None else self._engine.adapters()
        if room is None or adapters is None:
            return None
        # As of weights: to a simulated engine a source is only a label.
        is_simulated = self._config.engine.kind == "simulated"
        world = World(fetch=Label, check=lambda *_: "simulated") if is_simulated else WORLD
        return AdapterShelf(adapters, model=self._identity.model, room=room, world=world, watcher=self._adapter_watcher)

    def load(self) -> EngineLoad:
        """Return the engine's load with what is counted on the port, and without the replica's own probe."""
        load = self._engine.load()
        if self._probe is not None and self._probe.is_open:
            load = _without_one(load)
        if self._port is None:
            return load
        guard = self._port.guard
        return replace(
            load,
            open_requests=guard.open_requests,
            arrived=guard.arrived,
            prefill_tokens_queued=guard.prefill_tokens_queued,
        )

    async def check_health(self) -> None:
        """Raise when the engine can no longer serve, or Routers can no longer learn of this replica; never waits long."""
        if self._heart is not None and self._heart.done():
            raise RuntimeError("the replica no longer tells the directory about itself")
        if self._watch is not None and self._watch.failure:
            raise RuntimeError(self._watch.failure)
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                await self._engine.check_health()
        except TimeoutError as err:
            raise RuntimeError(f"the engine did not say within {HEALTH_TIMEOUT_S:g} s whether it is well") from err

    async def stop(self) -> None:
        """Drain: refuse new work, wait for open streams, then free the engine. A second call does nothing."""
        if self._is_stopped:
            return
        self._is_stopped = True
        try:
            if self._port is not None:
                await self._drain(self._port)
            for task in (self._heart, self._watching):
                if task is not None:
                    task.cancel()
            await self._tell(lambda: self._directory.deregister(self._identity.replica_id))
            if self._port is not None:
                await self._port.stop()
            if self._shelf is not None:
                await self._shelf.close()
        finally:
            await self._engine.stop()

    async def _drain(self, port: ReplicaPort) -> None:
        self._entry = replace(self._entry, state=ReplicaState.DRAINING)
        port.guard.is_draining = True
        budget_s = max(0.0, self._config.drain_timeout_s - self._drain_margin_s)
        if self._watch is not None and self._watch.failure:
            budget_s = min(budget_s, GIVEN_UP_DRAIN_S)
        # Side by side: a directory that is away must not take its time from the streams'.
        telling = self._tell(lambda: self._directory.drain(self._identity.replica_id))
        _, is_done = await asyncio.gather(telling, port.drain(budget_s))
        if not is_done:
            logger.warning("drain timed out after %.0f s with %d streams open", budget_s, port.guard.open_requests)

    async def _keep_beating(self) -> None:
        unheard: set[asyncio.Task[bool]] = set()
        async with asyncio.TaskGroup() as beats:
            while True:
                await asyncio.sleep(HEARTBEAT_S)
                await self._step_back_if_ill()
                if len(unheard) < MOST_UNHEARD:
                    beat = beats.create_task(self._beat())
                    unheard.add(beat)
                    beat.add_done_callback(unheard.discard)

    async def _step_back_if_ill(self) -> None:
        """Take no more work once the engine is dead or gives no answers: until Serve replaces the replica, time passes."""
        if self._port is None or self._port.guard.is_draining:
            return
        try:
            await self.check_health()
        except Exception as err:
            logger.warning("the engine cannot go on, so this replica takes no more work: %s", err)
            self._port.guard.is_draining = True
            self._entry = replace(self._entry, state=ReplicaState.DRAINING)

    async def _beat(self) -> bool:
        adapters = () if self._shelf is None else self._shelf.keys()
        entry = replace(self._entry, load=self.load(), phase=self._engine.phase(), adapters=adapters)
        return await self._tell(lambda: self._directory.heartbeat(entry, next(self._seq)))

    async def _tell(self, say: Callable[[], Awaitable[None]]) -> bool:
        # The directory may be away (its restart is no reason to stop serving): the next heartbeat registers again.
        try:
            await asyncio.wait_for(say(), timeout=TELL_TIMEOUT_S)
        except Exception as err:
            logger.warning("the directory did not answer: %s", err)
            return False
        return True


def _without_one(load: EngineLoad) -> EngineLoad:
    """Return a load with one request less, or a replica that probes itself would never count as idle."""
    if load.running:
        return replace(load, running=load.running - 1)
    return replace(load, waiting=max(0, load.waiting - 1))
