"""Publishing: what rollouts are told of a run, and what its traffic was when it began and ended."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from loadtests.result import Result
from loadtests.scenario import Scenario, Target
from serve_app.errors import CommandError
from serve_app.rollout.load_tests import (
    MOST_GATES,
    MOST_REASON,
    MOST_VARIANTS,
    Answered,
    GateResult,
    LoadTestResult,
    SeenVariant,
    Traffic,
)

TIMEOUT_S = 10.0
ATTEMPTS = 5
PAUSE_S = 2.0
STATUS, RESULTS = "/admin/status", "/admin/load-tests"
NEEDS_ADMIN = {401, 403}
PASSING = {429, 500, 502, 503, 504}  # statuses that may be another one soon


class PublishError(CommandError):
    """A result could not be published."""


@dataclass(frozen=True, slots=True)
class Looks:
    """How traffic was split before a run, and after it."""

    begin: Traffic
    end: Traffic


def connect(target: Target, api_key: str | None) -> httpx.Client:
    """Return a client of a scenario's target."""
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    return httpx.Client(base_url=target.url.rstrip("/"), headers=headers, timeout=TIMEOUT_S, verify=target.verify_tls)


def look(http: httpx.Client, scenario: Scenario) -> Traffic:
    """Return how the traffic of what a scenario asks for is split right now. Raises PublishError."""
    try:
        answer = http.get(STATUS)
        document = answer.json() if answer.status_code == httpx.codes.OK else None
    except (httpx.HTTPError, ValueError) as err:
        raise PublishError(f"--publish: {STATUS} could not be read: {str(err).lower()}") from err
    if document is None:
        hint = "; set MANTA_API_KEY to a key with `admin: true`" if answer.status_code in NEEDS_ADMIN else ""
        raise PublishError(f"--publish: {STATUS} answers {answer.status_code}{hint}")
    try:
        return traffic_of(document, scenario)
    except (KeyError, TypeError, AttributeError, ValueError) as err:
        raise PublishError("--publish: the target does not say what its variants are made of; only Manta does") from err


def traffic_of(status: Mapping[str, Any], scenario: Scenario) -> Traffic:
    """Return what a status document says of what a scenario asks for. Raises KeyError, TypeError or ValueError."""
    asked = {entry.model for entry in scenario.mix}
    seen = [
        SeenVariant(model=name, variant=each["name"], weight=each["weight"], revision=each["revision"])
        for name, split in _splits(status)
        for each in split
        if name in asked
    ]
    return Traffic(**status["traffic"], variants=tuple(seen[:MOST_VARIANTS]))


def _splits(status: Mapping[str, Any]) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    for model in status["models"]:
        yield model["name"], model["variants"]
        yield from ((adapter["name"], adapter["versions"]) for adapter in model["adapters"])
    yield from ((pipeline["name"], pipeline["versions"]) for pipeline in status["pipelines"])


def summary(result: Result, looks: Looks, *, begun_s: float) -> LoadTestResult:
    """Return what is published of a run with gates that began at a time since the epoch. Raises PublishError."""
    asked = {entry.model for entry in result.scenario.mix}
    shares = [share for share in result.figures.shares if share.model in asked][:MOST_VARIANTS]
    # The failed ones first: of too many, they are what is kept.
    found = sorted(result.found, key=lambda finding: finding.state.value != "failed")[:MOST_GATES]
    try:
        return LoadTestResult.model_validate(
            {
                "scenario": result.scenario.name,
                "verdict": result.verdict,
                "begun_s": begun_s,
                "ended_s": begun_s + result.figures.measured_s,
                "gates": [
                    GateResult(name=each.name, state=each.state.value, reason=each.reason[:MOST_REASON]) for each in found
                ],
                "begin": looks.begin,
                "end": looks.end,
                "answered": [
                    Answered(model=each.model, variant=each.variant, requests=each.judged, failures=each.failures)
                    for each in shares
                ],
            }
        )
    except ValidationError as err:
        raise PublishError(f"--publish: the result cannot be told: {err.errors(include_url=False)[0]['msg']}") from err


def publish(http: httpx.Client, told: LoadTestResult, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Send a result; what may pass is tried ``ATTEMPTS`` times. Raises PublishError, which says why it was not kept."""
    path = f"{RESULTS}/{quote(told.scenario, safe='')}"
    why = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            sleep(PAUSE_S)
        try:
            answer = http.post(path, json=told.model_dump(mode="json"))
        except httpx.HTTPError as err:
            why = f"{http.base_url} cannot be reached: {str(err).lower()}"
            continue
        if answer.status_code == httpx.codes.OK:
            return
        why = _said(answer)
        if answer.status_code not in PASSING:
            break
    raise PublishError(f"--publish: the result was not taken: {why}")


def _said(answer: httpx.Response) -> str:
    try:
        return str(json.loads(answer.content)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code}"
