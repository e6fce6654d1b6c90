"""How `manta loadtest --wait` waits for a platform that is being installed or upgraded."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from loadtests.scenario import Scenario
from serve_app.errors import CommandError
from serve_app.rollout.plan import Phase

POLL_S = 2.0
REFUSED = {401, 403}
NO_ROLLOUTS = REFUSED | {404}  # whoever may not see them, and servers other than Manta


def wait_until_ready(
    http: httpx.Client,
    scenario: Scenario,
    *,
    longest_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return when all that a scenario asks for takes work, and no rollout of it waits for its variant.

    Raises:
        CommandError: the time is over, or the key is refused; the message says what was missing last.
    """
    asked = sorted({entry.model for entry in scenario.mix if entry.model is not None})
    deadline_s = clock() + longest_s
    while why := _missing(http, asked):
        if clock() + POLL_S > deadline_s:
            raise CommandError(f"--wait: not ready within {longest_s:g} s: {why}")
        sleep(POLL_S)


def _missing(http: httpx.Client, asked: list[str]) -> str:
    """Return what is not as it must be yet; empty: nothing. Raises CommandError."""
    try:
        return _not_served(http, asked) or _not_begun(http, asked)
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as err:
        return f"{http.base_url} does not answer as it should: {str(err).lower() or type(err).__name__}"


def _not_served(http: httpx.Client, asked: list[str]) -> str:
    answer = http.get("/v1/models")
    if answer.status_code in REFUSED:
        raise CommandError(f"--wait: {http.base_url} answers {answer.status_code}: set MANTA_API_KEY to a key that may ask")
    if answer.status_code != httpx.codes.OK:
        return f"/v1/models answers {answer.status_code}"
    served = {card["id"] for card in answer.json()["data"]}
    if missing := [name for name in asked if name not in served]:
        return f"{', '.join(missing)} not served yet"
    for name in asked:
        status = http.get("/readyz", params={"model": name}).status_code
        if status not in (httpx.codes.OK, httpx.codes.NOT_FOUND):  # embedders are served, but none of its models
            return f"{name} is not ready: /readyz answers {status}"
    return ""


def _not_begun(http: httpx.Client, asked: list[str]) -> str:
    """Return which rollout waits for its variant: a run that began before a step says nothing of it."""
    answer = http.get("/admin/rollouts")
    if answer.status_code != httpx.codes.OK:
        return "" if answer.status_code in NO_ROLLOUTS else f"/admin/rollouts answers {answer.status_code}"
    splits: list[Mapping[str, Any]] = answer.json()["splits"]
    waiting = [split["name"] for split in splits if split["name"] in asked and split["phase"] == Phase.WAITING]
    return f"the rollout of {', '.join(waiting)} waits for its variant" if waiting else ""
