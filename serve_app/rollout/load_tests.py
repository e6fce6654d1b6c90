"""LoadTestResult: what a load test tells rollouts of its run, and the last one of each scenario."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from serve_app.config_fields import Config, Name, PublicName
from serve_app.errors import RolloutConflict

MOST_SCENARIOS = 50  # whose last result is kept
MOST_GATES = 200
MOST_VARIANTS = 500
MOST_REASON = 1000
Moment = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]  # seconds since the epoch
Reason = Annotated[str, StringConstraints(max_length=MOST_REASON)]


class SeenVariant(Config):
    """A variant (of a pipeline or an adapter: a version) as the platform had it."""

    model: PublicName = Field(description="The model, adapter or pipeline.")
    variant: Name = Field(description="The variant or version.")
    weight: int = Field(ge=0, le=100, description="Percent of conversations in force.")
    revision: str = Field(max_length=64, description="Digest of what it is made of.")


class Traffic(Config):
    """What the platform said of its traffic at one moment (`GET /admin/status`)."""

    version: int = Field(ge=0, description="Version of the traffic table.")
    digest: str = Field(max_length=64, description="Digest of the traffic table.")
    variants: tuple[SeenVariant, ...] = Field(max_length=MOST_VARIANTS, description="What the traffic was split over.")

    def of(self, model: str, variant: str) -> SeenVariant | None:
        """Return what was said of a variant, or None."""
        return next((seen for seen in self.variants if (seen.model, seen.variant) == (model, variant)), None)


class Answered(Config):
    """What a variant did in the run."""

    model: PublicName = Field(description="The model, adapter or pipeline.")
    variant: Name = Field(description="The variant or version.")
    requests: int = Field(ge=0, description="Requests that it answered or failed.")
    failures: int = Field(ge=0, description="Those of them that it failed.")


class GateResult(Config):
    """What one gate of the run found."""

    name: str = Field(min_length=1, max_length=200, description="Its field in the gates' file.")
    state: Literal["passed", "failed", "undecided"] = Field(description="What it found.")
    reason: Reason = Field("", description="Its figures, in words.")


class LoadTestResult(Config):
    """A run of a scenario, as `manta loadtest --publish` sends it. Times are of the load generator's clock."""

    format: Literal[1] = Field(1, description="Changes when a field does.")
    scenario: Name = Field(description="Name of the scenario.")
    verdict: Literal["passed", "failed"] = Field(description="What all gates say together.")
    begun_s: Moment = Field(description="When the measured run began, in seconds since the epoch.")
    ended_s: Moment = Field(description="When it ended.")
    gates: tuple[GateResult, ...] = Field(min_length=1, max_length=MOST_GATES, description="What each gate found.")
    begin: Traffic = Field(description="How traffic was split before the run.")
    end: Traffic = Field(description="How it was split after the run.")
    answered: tuple[Answered, ...] = Field((), max_length=MOST_VARIANTS, description="What each variant did.")

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if self.ended_s < self.begun_s:
            raise ValueError(f"ended_s: the run ended at {self.ended_s}, before it began at {self.begun_s}")
        if (self.verdict == "failed") != bool(self.failed):
            raise ValueError(f"verdict: {self.verdict!r}, but {len(self.failed)} of the gates have failed")
        return self

    @property
    def failed(self) -> tuple[GateResult, ...]:
        """The gates that failed."""
        return tuple(gate for gate in self.gates if gate.state == "failed")

    def of(self, model: str, variant: str) -> Answered:
        """Return what a variant did."""
        found = (each for each in self.answered if (each.model, each.variant) == (model, variant))
        return next(found, Answered(model=model, variant=variant, requests=0, failures=0))


class KeptResult(Config):
    """A result, and how it came."""

    received_s: Moment = Field(description="When it came, by the platform's clock.")
    by: str = Field(description="Name of the key that it came with.")
    result: LoadTestResult = Field(description="The run.")


class KeptResults(Config):
    """The last result of each scenario, the newest first."""

    results: tuple[KeptResult, ...] = Field((), description="One of each scenario.")

    def with_one(self, new: KeptResult) -> KeptResults:
        """Return these with another one in place of its scenario's last; the oldest goes where there are too many.

        Raises:
            RolloutConflict: the one that is kept is of a later run.
        """
        scenario = new.result.scenario
        had = self.by_scenario().get(scenario)
        if had is not None and had.ended_s > new.result.ended_s:
            raise RolloutConflict(f"a later run of load test {scenario!r} has been published already; this one changes nothing")
        others = (kept for kept in self.results if kept.result.scenario != scenario)
        return KeptResults(results=tuple(_newest((new, *others))))

    def by_scenario(self) -> Mapping[str, LoadTestResult]:
        """Return the results by their scenarios."""
        return {kept.result.scenario: kept.result for kept in self.results}


def _newest(results: Iterable[KeptResult]) -> Iterator[KeptResult]:
    yield from sorted(results, key=lambda kept: -kept.received_s)[:MOST_SCENARIOS]
