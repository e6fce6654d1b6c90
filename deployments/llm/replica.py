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
from deployments.llm.engine import Engine
from deployments.llm.port import ReplicaPort
from serve_app.config import VariantConfig
from serve_app.contracts import EngineLoad, ReplicaEntry, ReplicaState
from serve_app.rollout.document import NOT_IN_ARGS, revision

logger = logging.getLogger("ray.serve")

HEARTBEAT_S = 0.5
TELL_TIMEOUT_S = 5.0


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
        await self._beat()

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
        """Return the engine's load with what is counted on the port."""
        load = self._engine.load()
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
        """Raise when the engine can no longer serve, or Routers can no longer learn of this replica."""
        if self._heart is not None and self._heart.done():
            raise RuntimeError("the replica no longer tells the directory about itself")
        await self._engine.check_health()

    async def stop(self) -> None:
        """Drain: refuse new work, wait for open streams, then free the engine. A second call does nothing."""
        if self._is_stopped:
            return
        self._is_stopped = True
        try:
            if self._port is not None:
                await self._drain(self._port)
            if self._heart is not None:
                self._heart.cancel()
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
        await self._tell(lambda: self._directory.drain(self._identity.replica_id))
        budget_s = max(0.0, self._config.drain_timeout_s - self._drain_margin_s)
        if not await port.drain(budget_s):
            logger.warning("drain timed out after %.0f s with %d streams open", budget_s, port.guard.open_requests)

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            await self._step_back_if_ill()
            await self._beat()

    async def _step_back_if_ill(self) -> None:
        """Take no more work once the engine is dead: Serve needs some checks of its own before it replaces the replica."""
        if self._port is None or self._port.guard.is_draining:
            return
        try:
            await self._engine.check_health()
        except Exception as err:
            logger.warning("the engine cannot go on, so this replica takes no more work: %s", err)
            self._port.guard.is_draining = True
            self._entry = replace(self._entry, state=ReplicaState.DRAINING)

    async def _beat(self) -> None:
        adapters = () if self._shelf is None else self._shelf.keys()
        entry = replace(self._entry, load=self.load(), phase=self._engine.phase(), adapters=adapters)
        await self._tell(lambda: self._directory.heartbeat(entry, next(self._seq)))

    async def _tell(self, say: Callable[[], Awaitable[None]]) -> None:
        # The directory may be away (its restart is no reason to stop serving): the next heartbeat registers again.
        try:
            await asyncio.wait_for(say(), timeout=TELL_TIMEOUT_S)
        except Exception as err:
            logger.warning("the directory did not answer: %s", err)
