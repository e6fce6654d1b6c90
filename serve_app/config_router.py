"""How Routers get along with replicas that fail: when one is left alone, and how many requests are sent once more."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from serve_app.config_fields import Config


class OutlierEjectionConfig(Config):
    """When a Router leaves a replica alone, and for how long."""

    consecutive_failures: int = Field(
        5,
        ge=1,
        le=1000,
        description="Requests in a row that a replica must fail (5xx, late, unreadable or broken off) to be left alone. "
        "One that cannot be reached is left alone at once.",
    )
    base_s: float = Field(
        2.0, gt=0, le=3600, description="Seconds that a replica is left alone the first time; each time in a row doubles them."
    )
    max_s: float = Field(
        60.0,
        gt=0,
        le=86_400,
        description="Seconds that a replica is left alone at most. After as many without a relapse its history is forgotten.",
    )
    max_ejected_ratio: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of a variant's ready replicas, from 0 to 1, that may be left alone at a time because of failed "
        "requests. The last one never is; those that cannot be reached do not count. 0: only those are.",
    )

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.max_s < self.base_s:
            raise ValueError(f"max_s ({self.max_s:g}) must be at least base_s ({self.base_s:g})")
        return self


class RetryBudgetConfig(Config):
    """How many requests one Router may send once more after a failure, by model, over each 10 seconds."""

    ratio: float = Field(
        0.2, ge=0, le=1, description="Retries for each request, from 0 to 1; with 1 every failed request is sent once more."
    )
    min_per_s: float = Field(10.0, ge=0, le=100_000, description="Retries per second that are allowed besides, at any traffic.")
