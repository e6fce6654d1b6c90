"""Preflight: whether a target can be loaded at all, asked once before the run."""

from __future__ import annotations

import grpc
import httpx

from loadtests.scenario import Kind, Scenario
from serve_app.errors import CommandError

TIMEOUT_S = 10.0
NEEDS_KEY = {401, 403}
_OVER_GRPC = {Kind.GRPC_CHAT, Kind.GRPC_ASK}


def check(scenario: Scenario, api_key: str | None) -> None:
    """Raise CommandError when the target does not answer, refuses the key, or does not serve what the mix names."""
    if any(entry.kind not in _OVER_GRPC for entry in scenario.mix):
        _check_models(scenario, _served(scenario, api_key))
    if scenario.uses_grpc:
        _check_grpc(scenario.target.grpc)


def _served(scenario: Scenario, api_key: str | None) -> set[str]:
    """Return what is served; nothing where the target has no such list."""
    url = scenario.target.url.rstrip("/")
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        answer = httpx.get(f"{url}/v1/models", headers=headers, timeout=TIMEOUT_S, verify=scenario.target.verify_tls)
    except httpx.TimeoutException as err:
        raise CommandError(f"{url} does not answer within {TIMEOUT_S:g} s") from err
    except httpx.HTTPError as err:
        raise CommandError(f"{url} cannot be reached: {str(err).lower()}; --url names another target") from err
    if answer.status_code in NEEDS_KEY:
        raise CommandError(f"{url} answers {answer.status_code}: set MANTA_API_KEY to a key that may use these models")
    try:
        return {str(card["id"]) for card in answer.json()["data"]} if answer.status_code == 200 else set()
    except (ValueError, KeyError, TypeError):
        return set()


def _check_models(scenario: Scenario, served: set[str]) -> None:
    wanted = {entry.model for entry in scenario.mix if entry.model is not None and entry.kind not in _OVER_GRPC}
    if served and (missing := sorted(wanted - served)):
        have = ", ".join(sorted(served))
        raise CommandError(
            f"{scenario.target.url} does not serve {', '.join(missing)}; it serves {have}: change `mix` in the scenario"
        )


def _check_grpc(target: str) -> None:
    with grpc.insecure_channel(target) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=TIMEOUT_S)
        except grpc.FutureTimeoutError as err:
            raise CommandError(f"gRPC at {target} cannot be reached; --grpc names another target") from err
