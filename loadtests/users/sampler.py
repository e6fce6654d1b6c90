"""Sampler: what the platform says of itself during a run: queue depth, replicas, weights."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from loadtests.outcomes import RequestFailed
from loadtests.wire.client import Call, HttpClient

STATUS = "/admin/status"
TIMEOUT_S = 5.0
REFUSED = {401, 403, 404}


@dataclass(slots=True)
class Sample:
    """One look: at our own side, and at the platform where its key allows that; counts are by ``model/variant``."""

    at_s: float  # since the measured run began
    open: int
    users: int
    waiting: dict[str, int] = field(default_factory=dict)  # in engines
    held: int | None = None  # in the Router that answered
    running: dict[str, int] = field(default_factory=dict)
    replicas: dict[str, int] = field(default_factory=dict)  # ready
    weights: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)


class Sampler:
    """Asks /admin/status, until it is refused.

    Attributes:
        why_not: why there are no figures of the platform; empty: there are.
    """

    def __init__(self, http: HttpClient) -> None:
        self._http = http
        self._is_refused = False
        self.why_not = "the platform was not asked"

    def look(self, sample: Sample) -> Sample:
        """Add to a sample what the platform says."""
        if self._is_refused:
            return sample
        call = Call(STATUS, method="GET")
        try:
            self._http.run(call, deadline_s=time.perf_counter() + TIMEOUT_S)
            _read(sample, call.json())
            self.why_not = ""
        except RequestFailed as err:
            self._is_refused = err.status in REFUSED
            hint = "; set MANTA_API_KEY to a key with `admin: true`" if err.status in (401, 403) else ""
            self.why_not = self.why_not and f"{STATUS}: {err}{hint}"
        except (KeyError, TypeError, AttributeError, ValueError):
            self._is_refused, self.why_not = True, f"{STATUS}: not what Manta answers"
        return sample


def _read(sample: Sample, status: Mapping[str, Any]) -> None:
    sample.held = int(status["waiting_in_router"])
    for model in status["models"]:
        for variant in model["variants"]:
            key = f"{model['name']}/{variant['name']}"
            sample.waiting[key] = int(variant["queue_depth"])
            sample.running[key] = int(variant["running"])
            sample.replicas[key] = int(variant["replicas"]["ready"])
            sample.weights[key] = int(variant["weight"])
    for pipeline in status["pipelines"]:
        for version in pipeline["versions"]:
            sample.weights[f"{pipeline['name']}/{version['name']}"] = int(version["weight"])
