"""Stages: the other pipeline ranks of a replica, each a Ray actor in a bundle of the replica's placement group.

The replica is stage 0. Every stage runs vLLM's multi-node executor (``--nnodes``, ``--node-rank``) over its own tensor-parallel
ranks, and all of them meet at an address of stage 0. A stage that loses a rank ends as a whole, and the replica with it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import dataclass, replace
from typing import Any, Protocol

from serve_app.config import VariantConfig

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """Where the stages of one replica meet, and which of them this is."""

    host: str  # of stage 0
    port: int
    stages: int
    stage: int = 0


class Stages(Protocol):
    """The stages of a replica beside the replica itself."""

    def start(self) -> Rendezvous:
        """Start them; they wait at the rendezvous for each other. Does not block."""
        ...

    async def ended(self) -> str:
        """Wait until one of them has ended, which none does by itself; return which and why."""
        ...

    def stop(self) -> None:
        """End them with all their processes."""
        ...


class StageActor:
    """One stage; its process is the parent of the stage's ranks."""

    def run(self, model: str, config: dict[str, Any], rendezvous: Rendezvous) -> str:
        """Serve as this stage until one of its ranks ends; return why. Raises what the engine raises while it starts."""
        from deployments.llm.follower import follow
        from serve_app.settings import read_settings

        return follow(model, VariantConfig.model_validate(config), rendezvous, host=own_host(read_settings().replica_host))


class RayStages:
    """Stages as actors in bundles 1, 2, ... of the placement group that Serve made for this replica."""

    def __init__(self, model: str, config: VariantConfig, *, host: str, name: str) -> None:
        """``host``: address of this replica's node that the others reach; ``name``: of the replica."""
        self._model = model
        self._config = config
        self._host = host
        self._name = name
        self._actors: list[Any] = []
        self._runs: list[Any] = []

    def start(self) -> Rendezvous:
        """Start the actors.

        Raises:
            RuntimeError: this process is in no placement group, so nothing is reserved for them.
        """
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        group = ray.util.get_current_placement_group()
        if group is None:
            raise RuntimeError("a replica of several stages needs Serve's placement group; deploy it by `manta render`")
        here = Rendezvous(self._host, _free_port(self._host), self._config.engine.pipeline_parallel_size)
        for stage in range(1, here.stages):
            options = {
                **_actor_resources(self._config),
                "name": f"{self._name}.stage{stage}",
                "scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=stage),
            }
            actor: Any = ray.remote(StageActor).options(**options).remote()
            there = replace(here, stage=stage)
            self._actors.append(actor)
            self._runs.append(actor.run.remote(self._model, self._config.model_dump(mode="json"), there))
        return here

    async def ended(self) -> str:
        """Wait until a stage has ended; return which and why."""
        futures = {asyncio.wrap_future(run.future()): stage for stage, run in enumerate(self._runs, start=1)}
        done, _ = await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        first = done.pop()
        error = first.exception()  # a task's own error, or the death of its actor or node
        return f"stage {futures[first]} ended: {_last_line(error) if error is not None else first.result()}"

    def stop(self) -> None:
        """Kill the actors; their ranks notice that their parent is gone and end."""
        import ray

        for actor in self._actors:
            ray.kill(actor)
        self._actors.clear()


def own_host(configured: str | None) -> str:
    """Return the address of this node that the other nodes reach."""
    import ray

    address: str = configured or ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return address


def _actor_resources(config: VariantConfig) -> dict[str, Any]:
    from deployments.llm.placement import placement_of

    options: dict[str, Any] = placement_of(config).options()["ray_actor_options"]
    return options


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _last_line(err: BaseException) -> str:
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    return lines[-1] if lines else type(err).__name__
