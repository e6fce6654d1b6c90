"""Placement: what one replica reserves, and where it may lie.

A replica is made of stages, one for each pipeline rank. A stage holds all its tensor-parallel ranks, so they are on one node,
where they exchange every layer's activations; between stages only one tensor per token passes, which a network can carry. A
stage is therefore one bundle of Ray's placement group: bundles are never split across nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serve_app.config import ANY_ACCELERATOR

if TYPE_CHECKING:
    from serve_app.config import VariantConfig

Resources = Mapping[str, float]  # Ray's names: CPU, GPU, accelerator_type:<type>, ...

_TYPE_SHARE = 0.001  # what Ray itself asks of "accelerator_type:<type>" to say "a node of this type"


@dataclass(frozen=True, slots=True)
class Placement:
    """What one replica reserves: ``stages`` times the same, each on one node."""

    stages: int
    cpus: float  # of a stage
    accelerators: int  # of a stage; 0: it runs on CPU
    accelerator: str | None = None  # Ray's accelerator type; None: whatever a node has

    @property
    def bundle(self) -> dict[str, float]:
        """Resources of one stage."""
        bundle = {"CPU": self.cpus}
        if self.accelerators:
            bundle["GPU"] = float(self.accelerators)
        if self.accelerator is not None:
            bundle[f"accelerator_type:{self.accelerator}"] = _TYPE_SHARE
        return bundle

    def options(self) -> dict[str, Any]:
        """Return the deployment's options: the replica itself is its first stage."""
        actor: dict[str, Any] = {"num_cpus": self.cpus}
        if self.accelerators:
            actor["num_gpus"] = self.accelerators
        if self.accelerator is not None:
            actor["accelerator_type"] = self.accelerator
        if self.stages == 1:
            return {"ray_actor_options": actor}
        return {
            "ray_actor_options": actor,
            "placement_group_bundles": [self.bundle] * self.stages,
            # Stages that find room together lie together; Ray takes more nodes only where it must.
            "placement_group_strategy": "PACK",
        }

    def unfit(self, nodes: Iterable[Resources]) -> str | None:
        """Return why nodes of these total resources can never hold one replica, or None when they can."""
        held = [_times(self.bundle, node) for node in nodes]
        if sum(held) >= self.stages:
            return None
        if self.stages == 1:
            return f"it needs a node with {self}, and there is none"
        return f"it needs room for {self.stages} stages, each {self} on one node; there is room for {sum(held)}"

    def __str__(self) -> str:
        accelerators = f"{self.accelerators} {self.accelerator or 'accelerators'} and " if self.accelerators else ""
        return f"{accelerators}{self.cpus:g} CPU"


def placement_of(variant: VariantConfig) -> Placement:
    """Return what a replica of a variant reserves."""
    accelerator = variant.accelerator
    ranks = variant.engine.tensor_parallel_size
    return Placement(
        stages=variant.engine.pipeline_parallel_size,
        cpus=variant.cpus * ranks,
        accelerators=0 if accelerator is None else ranks,
        accelerator=None if accelerator == ANY_ACCELERATOR else accelerator,
    )


def actor_options(*, cpus: float, accelerator: str | None) -> dict[str, Any]:
    """Return Ray's actor options of a replica that is one process, on an accelerator or on CPU."""
    has_type = accelerator not in (None, ANY_ACCELERATOR)
    placement = Placement(1, cpus, int(accelerator is not None), accelerator if has_type else None)
    options: dict[str, Any] = placement.options()["ray_actor_options"]
    return options


def _times(bundle: Resources, node: Resources) -> int:
    """Return how many bundles a node can hold."""
    return min(int(node.get(name, 0.0) / amount + 1e-9) for name, amount in bundle.items() if amount)
