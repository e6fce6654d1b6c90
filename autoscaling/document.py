"""Documents: what policies are told beside what Serve tells them, by Ray's key-value store.

Not by Serve's policy arguments: Serve counts those into a deployment's version, so a change would restart its replicas.
"""

from __future__ import annotations

from pydantic import Field

from serve_app.config_fields import Config
from serve_app.config_scaling import AutoscalingConfig

# Keys of the store, in the namespace that deployments/state.py names.
SCALING, HELD, DECISIONS = "scaling", "held", "decisions"


class ScaledApp(Config):
    """A Serve application and what its number of replicas goes by."""

    deployment: str = Field(description="Name of its only deployment.")
    settings: AutoscalingConfig = Field(description="Bounds and pace; of a fixed one `min_replicas` is its number.")
    is_fixed: bool = Field(False, description="Whether its number never changes: it only holds accelerators.")
    units: int = Field(0, ge=0, description="Accelerators that one replica holds.")
    priority: int = Field(5, ge=0, le=9, description="Who gets accelerators first where they are short; higher first.")
    price_per_hour: float | None = Field(None, ge=0, description="What one replica costs; shown, and not decided by.")


class ScalingDocument(Config):
    """What is configured: the budget that all share, and every application by its name."""

    max_accelerators: int | None = Field(None, description="Most accelerators that replicas may hold together; absent: any.")
    apps: dict[str, ScaledApp] = Field({}, description="Applications by name.")


class Held(Config):
    """What Rollouts knows and Serve does not, at one moment."""

    stamp: float = Field(description="When this was so: seconds of the wall clock.")
    held: dict[str, int] = Field({}, description="Requests that Routers hold, by the application that they wait for.")
    holding: dict[str, int] = Field(
        {}, description="Replicas by application, whatever their state: draining ones hold their accelerators still."
    )
    draining: dict[str, int] = Field({}, description="Those of them that are on their way out.")
