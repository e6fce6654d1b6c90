"""Result: a run as one JSON document, for reports, comparisons, and whoever decides on a release by it."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from loadtests.figures import Figures
from loadtests.gates import Finding, has_failed
from loadtests.scenario import Mode, Scenario
from serve_app.rollout.load_tests import LoadTestResult

FORMAT = 1


class ResultError(ValueError):
    """A file is no result that can be compared with."""


@dataclass(frozen=True, slots=True)
class Result:
    """All that is known of a run.

    Attributes:
        facts: what a reader should know of it, by name, in words.
        found: what the gates found; empty without gates.
        warnings: what to know before the figures are believed.
        summary: what rollouts are told of it; None: it was not to be published.
    """

    scenario: Scenario
    figures: Figures
    facts: Mapping[str, str]
    found: tuple[Finding, ...]
    warnings: tuple[str, ...]
    summary: LoadTestResult | None = None

    @property
    def verdict(self) -> str:
        """Return `passed` or `failed`, or `none` without gates."""
        if not self.found:
            return "none"
        return "failed" if has_failed(self.found) else "passed"

    @property
    def exit_code(self) -> int:
        """Return 1 when a gate failed, 2 when there are no gates and nothing was answered, else 0."""
        if self.found:
            return int(has_failed(self.found))
        return 0 if self.figures.total.ok else 2

    def to_json(self) -> dict[str, Any]:
        """Return the document. Numbers that are infinite or missing are null; `endless` says how many requests never ended."""
        named = {field.name for field in dataclasses.fields(Figures)} - {"tally"}
        seen = {name: _plain(getattr(self.figures, name)) for name in sorted(named)}
        return {
            "format": FORMAT,
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "facts": dict(self.facts),
            "scenario": self.scenario.model_dump(mode="json", exclude_unset=True),
            "gates": [_plain(finding) for finding in self.found],
            "warnings": list(self.warnings),
            "summary": None if self.summary is None else self.summary.model_dump(mode="json"),
            "figures": seen,
            "cdf": {kind: _cdf(self.figures, kind) for kind in ("ttft", "itl", "gap", "e2e")},
        }


def facts_of(scenario: Scenario, run: Mapping[str, Any]) -> dict[str, str]:
    """Return what a reader should know of a run."""
    load, mode = scenario.load, scenario.load.mode
    unit = "requests/s" if mode is Mode.OPEN else "users"
    said = load.shape.model_dump(mode="json", exclude_unset=True).items()
    shape = ", ".join(f"{name} {_shown(value)}" for name, value in said)
    begun = datetime.fromtimestamp(run["begin_unix_s"], UTC)
    return {
        "scenario": f"{scenario.name}: {scenario.description}" if scenario.description else scenario.name,
        "target": scenario.target.url,
        "load": f"{mode} loop, {shape} ({unit})",
        "measured": f"{run['measured_s']:.4g} s from {begun:%Y-%m-%d %H:%M:%S} UTC, after {scenario.warmup:g} s of warm-up",
        "times": "from the intended start" if mode is Mode.OPEN else "from the moment a user sends",
        "load generator": _generator(run),
        "seed": str(scenario.seed),
        "Manta": _version(),
    }


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "/".join(_shown(each) for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _generator(run: Mapping[str, Any]) -> str:
    workers = int(run["workers"])
    busiest = max((busy_s / max(1e-9, run["measured_s"]) for busy_s in run["busy_s"].values()), default=0.0)
    what = "one worker process" if workers == 1 else f"{workers} worker processes"
    return f"{what}, the busiest on {100 * busiest:.0f} % of a CPU; {os.cpu_count()} CPUs, {platform.machine()}"


def read_result(path: Path) -> dict[str, Any]:
    """Return an earlier run's document. Raises ResultError."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise ResultError(f"{path}: {(err.strerror or str(err)).lower()}") from err
    except ValueError as err:
        raise ResultError(f"{path}: not JSON; give a file that `manta loadtest --json` wrote") from err
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ResultError(
            f"{path}: not a load test's result of format {FORMAT}; give a file that `manta loadtest --json` wrote"
        )
    return document


def _cdf(seen: Figures, kind: str) -> dict[str, list[list[float]]]:
    return {
        label: [[round(x, 6), round(y, 5)] for x, y in cell.times[kind].cumulated()]
        for label, cell in seen.tally.entries.items()
    }


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _version() -> str:
    try:
        return version("manta-serve")
    except PackageNotFoundError:
        return "unknown (not installed)"
