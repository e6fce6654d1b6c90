"""The configuration's part on rollouts: how a canary's share grows, what it must hold, and shadow traffic."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from serve_app.config_fields import Config, Name
from serve_app.config_rules import Part, PlacedError, Problems, near_miss

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def _seconds(value: object) -> object:
    if not isinstance(value, str):
        return value
    if not _DURATION.fullmatch(value):
        raise ValueError(f"{value!r} is no duration; write 30s, 10m, 1h30m, or a number of seconds")
    return sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(value))


_DURATION_SCHEMA = {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": f"^{_DURATION.pattern}$"}]}
Duration = Annotated[float, BeforeValidator(_seconds), Field(ge=0, le=366 * 86400), WithJsonSchema(_DURATION_SCHEMA)]
Ratio = Annotated[float, Field(ge=1.05, le=100)]  # below, a histogram's buckets are too wide to tell


class RolloutStepConfig(Config):
    """One share of the canary's, and how long it is watched there."""

    weight: int = Field(ge=1, le=100, description="Percent of conversations that the variant gets in this step.")
    pause: Duration = Field(0.0, description="Shortest time in this step, such as 10m; it lasts until the gates have passed.")


class LoadTestGateConfig(Config):
    """A load test whose last result (`manta loadtest --publish`) decides whether a step may be left."""

    scenario: Name = Field(description="Name of the scenario.")
    max_age: Annotated[Duration, Field(gt=0)] = Field(
        3600.0, description="Longest time since the end of its run; an older result counts for nothing."
    )


class GatesConfig(Config):
    """What a canary must hold, always compared with the baseline over the same time. Absent gates are not looked at."""

    error_rate: float | None = Field(
        0.01,
        ge=0.0005,
        lt=1,
        description="Most by which the share of failed requests may exceed the baseline's (0.01: 1 point).",
    )
    ttft_p50_ratio: Ratio | None = Field(None, description="Most times the baseline's median time to the first token.")
    ttft_p95_ratio: Ratio | None = Field(None, description="Most times the baseline's 95th percentile of it.")
    itl_p50_ratio: Ratio | None = Field(None, description="Most times the baseline's median inter-token latency.")
    itl_p95_ratio: Ratio | None = Field(None, description="Most times the baseline's 95th percentile of it.")
    e2e_p95_ratio: Ratio | None = Field(None, description="Most times the baseline's 95th percentile of a whole answer's time.")
    load_test: LoadTestGateConfig | None = Field(
        None, description="A load test that must have passed in each step; one that failed in it is a failed gate."
    )
    min_requests: int = Field(50, ge=10, description="Requests of the canary without which a step is never passed.")
    alpha: float = Field(
        0.01, ge=1e-6, le=0.2, description="Most probability that a whole rollout of a good canary is ever rolled back."
    )
    power: float = Field(
        0.9, ge=0.5, le=0.9999, description="Least probability that a step is not passed by a canary that is bad."
    )


class RolloutConfig(Config):
    """A canary whose share grows step by step, while it holds its gates."""

    variant: Name = Field("canary", description="Variant (of a pipeline: version) whose share grows.")
    baseline: Name = Field("stable", description="Variant it is compared with, which gives up the share, and gets it back.")
    steps: tuple[RolloutStepConfig, ...] = Field(min_length=1, max_length=50, description="Growing shares, in order.")
    gates: GatesConfig = Field(default=GatesConfig(), description="What the variant must hold.")
    on_failure: Literal["rollback", "hold"] = Field(
        "rollback", description="A failed gate sends all conversations to the baseline, or stops the rollout where it is."
    )
    ready_timeout: Duration = Field(1800.0, description="Longest time until the variant's first replica is ready.")
    unready_timeout: Duration = Field(30.0, description="Longest time without any ready replica after that.")
    max_crashes: int = Field(2, ge=0, description="Replicas of the variant that may die, or fail to start, in one rollout.")

    @model_validator(mode="after")
    def _shares_grow(self) -> Self:
        weights = [step.weight for step in self.steps]
        for i, (before, after) in enumerate(pairwise(weights), start=1):
            if after <= before:
                raise PlacedError([(("steps", i, "weight"), f"steps must grow, {after} comes after {before}")])
        return self


class ShadowConfig(Config):
    """Copies of requests for a variant that does not answer them."""

    variant: Name = Field(description="Variant that gets the copies.")
    percent: float = Field(gt=0, le=100, description="Percent of the requests that other variants answer.")
    compare: Literal["exact", "embedding", "none"] = Field(
        "none", description="Compare answers by their text, by an embedding's cosine, or not at all."
    )
    embedder: Name | None = Field(None, description="Embedder for `compare: embedding`.")
    min_similarity: float = Field(0.9, ge=-1, le=1, description="Least cosine at which two answers agree.")
    max_concurrent: int = Field(8, ge=1, description="Copies one Router may have open at a time.")
    timeout: Duration = Field(120.0, description="Longest time that a copy may take.")

    @model_validator(mode="after")
    def _embedding_has_an_embedder(self) -> Self:
        if self.compare == "embedding" and self.embedder is None:
            raise PlacedError([(("embedder",), "`compare: embedding` needs an embedder; name one of `embedders`")])
        return self


def rollout_problems(field: str, parts: Sequence[Part], rollout: RolloutConfig | None) -> Problems:
    """Check a rollout against the parts that share the traffic: ``field`` is what they are called."""
    if rollout is None:
        return
    weights = {part.name: part.weight for part in parts}
    what = field.removesuffix("s")
    for key, name in (("variant", rollout.variant), ("baseline", rollout.baseline)):
        if name not in weights:
            yield ("rollout", key), f"{what} {name!r} is not declared, {near_miss(name, weights, listed_as='declared')}"
    if rollout.variant not in weights or rollout.baseline not in weights:
        return
    yield from _share_problems(parts, rollout, weights)


def _share_problems(parts: Sequence[Part], rollout: RolloutConfig, weights: dict[str, int]) -> Problems:
    if rollout.variant == rollout.baseline:
        yield ("rollout", "baseline"), f"{rollout.baseline!r} cannot be compared with itself; name another one"
        return
    if len(parts) > 2 and parts[0].name != rollout.baseline:
        yield ("rollout", "baseline"), "of three or more the baseline must be declared first: its neighbours' shares stay then"
    if weights[rollout.baseline] == 0:
        yield ("rollout", "baseline"), f"baseline {rollout.baseline!r} has weight 0, so there is nothing to compare with"
    have = weights[rollout.variant] + weights[rollout.baseline]
    for i, step in enumerate(rollout.steps):
        if step.weight > have:
            message = f"{step.weight} is over the {have} that {rollout.variant!r} and {rollout.baseline!r} have together"
            yield ("rollout", "steps", i, "weight"), message


def shadow_problems(variants: Sequence[Part], shadow: ShadowConfig | None) -> Problems:
    """Check that the variant that gets the copies exists."""
    names = [variant.name for variant in variants]
    if shadow is not None and shadow.variant not in names:
        hint = near_miss(shadow.variant, names, listed_as="declared")
        yield ("shadow", "variant"), f"variant {shadow.variant!r} is not declared, {hint}"
