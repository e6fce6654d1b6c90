from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from loadtests.scenario import Scenario
from serve_app.commands.loadtest_waiting import wait_until_ready
from serve_app.errors import CommandError
from tests.unit.serve_app.fakes import FakeClock

SCENARIO = Scenario.model_validate(
    {
        "name": "smoke",
        "load": {"mode": "open", "shape": {"kind": "constant", "level": 2}},
        "mix": [{"kind": "chat", "model": "chat"}, {"kind": "embedding", "model": "minilm"}, {"kind": "ingest"}],
        "duration": 10,
    }
)


def platform(**changes: Any) -> Callable[[httpx.Request], httpx.Response]:
    """Return a platform on which all is ready, but for the answers that a test gives by path."""
    answers = {
        "/v1/models": httpx.Response(200, json={"data": [{"id": "chat"}, {"id": "minilm"}]}),
        "/readyz?model=chat": httpx.Response(200, json={}),
        "/readyz?model=minilm": httpx.Response(404, json={}),
        "/admin/rollouts": httpx.Response(200, json={"splits": [{"name": "chat", "phase": "running"}]}),
        **changes.get("answers", {}),
    }
    return lambda request: answers[request.url.raw_path.decode()]


def wait(*handlers: Callable[[httpx.Request], httpx.Response], longest_s: float = 6.0) -> float:
    """Return how long was waited for a platform that is as the handlers say, one after the other, for 2 s each."""
    clock = FakeClock()
    begun_s = clock.now_s

    def handler(request: httpx.Request) -> httpx.Response:
        return handlers[min(int((clock.now_s - begun_s) // 2), len(handlers) - 1)](request)

    def sleep(seconds: float) -> None:
        clock.now_s += seconds

    http = httpx.Client(base_url="http://manta", transport=httpx.MockTransport(handler))
    wait_until_ready(http, SCENARIO, longest_s=longest_s, clock=clock, sleep=sleep)
    return clock.now_s - begun_s


def down(_: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("Connection refused")


NO_MODELS = platform(answers={"/v1/models": httpx.Response(200, json={"data": []})})
STARTING = platform(answers={"/readyz?model=chat": httpx.Response(503)})
NOT_BEGUN = platform(answers={"/admin/rollouts": httpx.Response(200, json={"splits": [{"name": "chat", "phase": "waiting"}]})})


def test_a_platform_that_is_ready_is_not_waited_for() -> None:
    assert wait(platform()) == 0.0


def test_it_waits_for_the_models_their_replicas_and_the_first_step_of_their_rollouts() -> None:
    assert wait(down, NO_MODELS, STARTING, NOT_BEGUN, platform(), longest_s=60.0) == 8.0


def test_a_rollout_of_another_model_is_not_waited_for() -> None:
    other = {"splits": [{"name": "other", "phase": "waiting"}]}
    assert wait(platform(answers={"/admin/rollouts": httpx.Response(200, json=other)})) == 0.0


@pytest.mark.parametrize("status", [403, 404], ids=["refused", "another-server"])
def test_where_no_rollouts_can_be_seen_none_is_waited_for(status: int) -> None:
    assert wait(platform(answers={"/admin/rollouts": httpx.Response(status)})) == 0.0


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        pytest.param(down, "http://manta does not answer as it should: connection refused", id="down"),
        pytest.param(NO_MODELS, "chat, minilm not served yet", id="not-served"),
        pytest.param(STARTING, "chat is not ready: /readyz answers 503", id="starting"),
        pytest.param(NOT_BEGUN, "the rollout of chat waits for its variant", id="not-begun"),
        pytest.param(platform(answers={"/v1/models": httpx.Response(500)}), "/v1/models answers 500", id="broken"),
        pytest.param(platform(answers={"/v1/models": httpx.Response(200, text="x")}), "does not answer as it should", id="odd"),
        pytest.param(
            platform(answers={"/admin/rollouts": httpx.Response(503)}), "/admin/rollouts answers 503", id="no-rollouts"
        ),
    ],
)
def test_when_the_time_is_over_it_says_what_was_missing(handler: Any, said: str) -> None:
    with pytest.raises(CommandError, match="--wait: not ready within 6 s: ") as caught:
        wait(handler)
    assert said in str(caught.value)


def test_a_key_that_is_refused_is_not_waited_for() -> None:
    with pytest.raises(CommandError, match="answers 401: set MANTA_API_KEY"):
        wait(platform(answers={"/v1/models": httpx.Response(401)}), longest_s=1e9)
