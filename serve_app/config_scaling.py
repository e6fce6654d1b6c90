"""Scaling: how many replicas a deployment may have, and by what its number goes."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from serve_app.config_fields import Config
from serve_app.config_rules import PlacedError

# Serve's own name and range. Without it, Serve spreads replicas over nodes with room when it places them, and never moves them.
ReplicasPerNode = Annotated[
    int | None,
    Field(
        ge=1,
        le=100,
        description="Most replicas on one node of Ray (in Kubernetes: a pod): with 1, a pod that is lost takes one along. What "
        "finds no such node waits for one. Absent: any number.",
    ),
]


class StageScalingConfig(Config):
    """Scaling of one deployment by queue depth."""

    min_replicas: int = Field(1, ge=1, description="Fewest replicas.")
    max_replicas: int = Field(1, ge=1, description="Most replicas.")
    target_queue_depth: float = Field(
        4.0, gt=0, description="Requests that may wait per replica, in its queue or for it in Routers; more add replicas."
    )
    target_utilization: float = Field(
        0.85, gt=0, le=1, description="Share of the replicas' slots that steady load may take; more adds replicas."
    )
    headroom: float = Field(
        2.0,
        ge=0,
        description="Slots kept free for the ups and downs of random arrivals, in standard deviations of the load: many "
        "replicas need a smaller share of them than few.",
    )
    upscale_delay_s: float = Field(3.0, ge=0, description="Seconds the need must last before replicas are added.")
    downscale_delay_s: float = Field(300.0, ge=0, description="Seconds the surplus must last before replicas are removed.")
    settle_s: float = Field(
        600.0,
        ge=0,
        description="Seconds after replicas were added in which none are removed, unless the load has fallen by a third: what "
        "was added for a queue is not taken back as soon as the queue is gone.",
    )
    queue_drain_s: float = Field(
        60.0, gt=0, description="Seconds within which replicas are to work off a queue that is over its target: less adds more."
    )
    max_upscale_factor: float = Field(
        10.0, gt=1, description="Times the present number of replicas that one decision may at most ask for (at least 4 more)."
    )

    @model_validator(mode="after")
    def _min_not_over_max(self) -> Self:
        if self.min_replicas > self.max_replicas:
            message = f"min_replicas {self.min_replicas} is over max_replicas {self.max_replicas}"
            raise PlacedError([(("min_replicas",), message)])
        return self


class AutoscalingConfig(StageScalingConfig):
    """Scaling of one variant of a model by queue depth."""

    min_replicas: int = Field(1, ge=0, description="Fewest replicas; 0 lets the variant sleep.")
    downscale_to_zero_delay_s: float | None = Field(
        None, ge=0, description="Seconds without a request before the last replica goes. Absent: `downscale_delay_s`."
    )
    slots: int | None = Field(
        None,
        ge=1,
        description="Requests that one replica decodes at a time as fast as users expect (`manta tune` proposes it). "
        "Absent: what its engine takes at most.",
    )
    startup_s: float | None = Field(
        None, ge=0, description="Seconds a replica takes to start, for looking ahead. Absent: measured, 60 before the first."
    )


class ScalingConfig(Config):
    """What all deployments share."""

    max_accelerators: int | None = Field(
        None,
        ge=1,
        description="Most accelerators that replicas may hold together, draining ones included. Absent: no limit. Where it is "
        "reached, models of a higher `priority` come first.",
    )
