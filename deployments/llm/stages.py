"""Stages: the other pipeline ranks of a replica, each a Ray actor in a bundle of the replica's placement group.

The replica is stage 0. Every stage runs vLLM's multi-node executor (``--nnodes``, ``--node-rank``) over its own tensor-parallel
ranks, and all of them meet at an address of stage 0. A stage that loses a rank ends as a whole, and the replica with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass, replace
from typing import Any, Protocol

from serve_app.config import VariantConfig


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """Where the stages of one replica meet, and which of them this is."""

    host: str  # of stage 0
    port: int
    stages: int
    stage: int = 0


class Stages(Protocol):
    """The stages of a replica beside the replica itself."""

    async def fetch(self) -> None:
        """Start them, and wait until each has the weights on its node. Raises what one of them raises."""
        ...

    def start(self) -> Rendezvous:
        """Have them load; they wait at the rendezvous for each other. Does not block."""
        ...

    async def ended(self) -> str:
        """Wait until one of them has ended, which none does by itself; return which and why."""
        ...

    def stop(self) -> None:
        """End them with all their processes."""
        ...


class StageActor:
    """One stage; its process is the parent of the stage's ranks."""

    def __init__(self, model: str, config: dict[str, Any]) -> None:
        self._model = model
        self._config = VariantConfig.model_validate(config)
        self._weights: Any = None

    def fetch(self) -> None:
        """Fetch the weights to this node. Raises MissingWeights."""
        from deployments.llm.vllm import fetch_weights

        self._weights = fetch_weights(self._config)

    def run(self, rendezvous: Rendezvous) -> str:
        """Serve as this stage until one of its ranks ends; return why. Raises what the engine raises while it starts."""
        from deployments.llm.follower import follow
        from serve_app.settings import read_settings

        host = own_host(read_settings().replica_host)
        return follow(self._model, self._config, rendezvous, folder=self._weights.path, host=host)


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

    async def fetch(self) -> None:
        """Start the actors and wait for their downloads.

        Raises:
            RuntimeError: this process is in no placement group, so nothing is reserved for them.
        """
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        group = ray.util.get_current_placement_group()
        if group is None:
            raise RuntimeError("a replica of several stages needs Serve's placement group; deploy it by `manta render`")
        for stage in range(1, self._config.engine.pipeline_parallel_size):
            options = {
                **_actor_resources(self._config),
                "name": f"{self._name}.stage{stage}",
                "scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=stage),
            }
            actor: Any = ray.remote(StageActor)
            self._actors.append(actor.options(**options).remote(self._model, self._config.model_dump(mode="json")))
        await asyncio.gather(*(asyncio.wrap_future(actor.fetch.remote().future()) for actor in self._actors))

    def start(self) -> Rendezvous:
        """Have the actors load."""
        # Chosen as late as can be: it is free now, and vLLM takes it when it has been imported.
        here = Rendezvous(self._host, _free_port(self._host), len(self._actors) + 1)
        self._runs = [actor.run.remote(replace(here, stage=stage)) for stage, actor in enumerate(self._actors, start=1)]
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

        with contextlib.ExitStack() as ends:  # each of them, whatever the others raise
            for actor in self._actors:
                ends.callback(ray.kill, actor)
        self._actors = []


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
