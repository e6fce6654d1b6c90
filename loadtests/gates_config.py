"""Gates: what a run must hold, as one frozen document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from serve_app.config_fields import Config, Name, PublicName
from serve_app.config_rollouts import Duration
from serve_app.config_rollouts import GatesConfig as RolloutGates
from serve_app.config_rules import PlacedError

Limit = Annotated[Duration, Field(gt=0)]
Weight = Annotated[float, Field(ge=0, le=100)]


class Limits(Config):
    """Limits on figures. Absent ones are not looked at."""

    ttft_p50: Limit | None = Field(None, description="Most of the median time to the first token, such as 300ms.")
    ttft_p95: Limit | None = Field(None, description="Most of its 95th percentile.")
    ttft_p99: Limit | None = Field(None, description="Most of its 99th percentile.")
    itl_p50: Limit | None = Field(None, description="Most of the median inter-token latency: each stream's mean gap.")
    itl_p95: Limit | None = Field(None, description="Most of its 95th percentile.")
    gap_p99: Limit | None = Field(None, description="Most of the 99th percentile of all gaps between tokens.")
    e2e_p95: Limit | None = Field(None, description="Most of the 95th percentile of a whole answer's time.")
    error_rate: float | None = Field(
        None, ge=0, le=1, description="Most of the share of requests that failed (0.01: 1 in 100)."
    )


class Split(Config):
    """How closely conversations must be split over a model's variants."""

    deviation: float = Field(
        0.05, gt=0, le=1, description="Most that a variant's share may be off its weight (0.05: 5 points)."
    )
    model: PublicName | None = Field(None, description="Model or pipeline; by default all.")
    weights: Mapping[Name, Weight] = Field(
        default={}, description="Weights in percent; by default those that the platform reports."
    )
    flips: int | None = Field(0, ge=0, description="Most turns that another variant than its conversation's answered.")


class Canary(Config):
    """Gates of a rollout, over the whole run: the canary compared with its baseline by the rollouts' own tests."""

    model: PublicName = Field(description="Model or pipeline.")
    variant: Name = Field("canary", description="Variant that is judged.")
    baseline: Name = Field("stable", description="Variant that it is compared with.")
    gates: RolloutGates = Field(default=RolloutGates(), description="What it must hold, as in a model's `rollout`.")
    undecided: Literal["pass", "fail"] = Field("pass", description="What too few requests to say mean.")

    @model_validator(mode="after")
    def _no_load_test_inside(self) -> Self:
        if self.gates.load_test is not None:
            raise PlacedError([(("gates", "load_test"), "a load test cannot require one; it belongs into a model's `rollout`")])
        return self


class Gates(Limits):
    """What a run must hold: limits on all requests together, on parts of the mix, on the split, and on a canary."""

    min_requests: int = Field(50, ge=1, description="Fewer counted requests decide nothing, and fail the run.")
    throughput: float | None = Field(None, gt=0, description="Least requests per second that were answered well.")
    tokens_per_s: float | None = Field(None, gt=0, description="Least generated tokens per second, all streams together.")
    entries: Mapping[Name, Limits] = Field(default={}, description="Limits on parts of the mix, by their names.")
    split: Split | None = Field(None, description="How closely conversations must be split.")
    canary: Canary | None = Field(None, description="A canary compared with its baseline.")
