"""Results of load tests, for tests: of a canary at 10 %, whole or with something that does not fit."""

from __future__ import annotations

from typing import Any

from serve_app.rollout.load_tests import LoadTestResult

FAILED = [
    {"name": "error_rate", "state": "failed", "reason": "30 of 100 requests failed"},
    {"name": "ttft_p95", "state": "failed", "reason": "TTFT p95 is 3 s (most 1.5 s)"},
]


def traffic(*, canary: int = 10, revision: str = "c1", version: int = 2) -> dict[str, Any]:
    """Return what the platform said of model chat."""
    variants = [
        {"model": "chat", "variant": "stable", "weight": 100 - canary, "revision": "s1"},
        {"model": "chat", "variant": "canary", "weight": canary, "revision": revision},
    ]
    return {"version": version, "digest": "d", "variants": variants}


def document(**changes: Any) -> dict[str, Any]:
    """Return a run's result as it is published."""
    found: dict[str, Any] = {
        "scenario": "smoke",
        "verdict": "passed",
        "begun_s": 1010.0,
        "ended_s": 1020.0,
        "gates": [{"name": "error_rate", "state": "passed", "reason": "0 of 100 requests failed"}],
        "begin": traffic(),
        "end": traffic(),
        "answered": [
            {"model": "chat", "variant": "stable", "requests": 90, "failures": 0},
            {"model": "chat", "variant": "canary", "requests": 10, "failures": 0},
        ],
    }
    return {**found, **changes}


def result(**changes: Any) -> LoadTestResult:
    """Return it as rollouts keep it."""
    return LoadTestResult.model_validate(document(**changes))


def failed(**changes: Any) -> dict[str, Any]:
    """Return the result of a run that two gates failed."""
    return document(verdict="failed", gates=FAILED, **changes)
