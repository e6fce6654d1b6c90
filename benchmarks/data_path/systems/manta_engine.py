"""A stand-in for Manta's LLM app: it tells the directory of an engine that runs outside Ray, and does nothing else."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from typing import Any

import httpx

from benchmarks.prefix_choice.engines import LOOKS
from deployments.handles import HandleDirectory
from deployments.names import ROLLOUTS_APP
from serve_app.contracts import EngineLoad, ReplicaEntry, ReplicaState

HEARTBEAT_S = 0.5  # as deployments/llm/replica.py


class OutsideEngines:
    """Serve deployment that registers engines by URL, so that every system stands in front of the same process."""

    async def __init__(self, model: str, urls: list[str], kind: str) -> None:  # type: ignore[misc]
        """Register, and go on doing so: the directory forgets who is silent."""
        self._directory = HandleDirectory(ROLLOUTS_APP)
        self._look = LOOKS[kind]
        self._client = httpx.AsyncClient(timeout=30)
        self._entries = [ReplicaEntry(f"outside-{i}", model, "stable", url, ReplicaState.READY) for i, url in enumerate(urls)]
        self._heart = asyncio.create_task(self._beat())

    async def _beat(self) -> None:
        for seq in itertools.count(1):
            for entry in self._entries:
                loaded = replace(entry, load=await self._load(entry.url))
                await self._directory.heartbeat(loaded, seq)
            await asyncio.sleep(HEARTBEAT_S)

    async def _load(self, url: str) -> EngineLoad:
        """Return what Manta's own replicas would report. One engine behind all Routers leaves them nothing to choose."""
        if len(self._entries) == 1:
            return EngineLoad()
        path, read = self._look
        try:
            answer = await self._client.get(url + path)
        except httpx.HTTPError:
            return EngineLoad()
        return EngineLoad(open_requests=int(read(answer.text).open))

    async def wake(self) -> None:
        """Be there."""

    async def check_health(self) -> None:
        """Raise when the directory hears nothing any more."""
        if self._heart.done():
            raise RuntimeError("the heartbeat has stopped")


def build(args: dict[str, Any]) -> Any:
    """Build the app; Serve calls this by its import path."""
    from ray import serve

    return serve.deployment(name="LLM")(OutsideEngines).bind(**args)
