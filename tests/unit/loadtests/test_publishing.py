from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from loadtests.publishing import ATTEMPTS, PAUSE_S, PublishError, look, publish
from loadtests.scenario import Scenario
from serve_app.rollout.load_tests import LoadTestResult, SeenVariant
from tests.unit.serve_app.load_testing import result

Handler = Callable[[httpx.Request], httpx.Response]
SCENARIO = Scenario.model_validate(
    {
        "name": "smoke",
        "load": {"mode": "open", "shape": {"kind": "constant", "level": 2}},
        "mix": [
            {"kind": "chat", "model": "chat"},
            {"kind": "chat", "name": "legal", "model": "chat:legal"},
            {"kind": "rag", "model": "docs"},
        ],
        "duration": 10,
    }
)
STATUS: dict[str, Any] = {
    "traffic": {"version": 4, "digest": "d"},
    "models": [
        {
            "name": "chat",
            "variants": [{"name": "canary", "weight": 10, "revision": "c1", "queue_depth": 0}],
            "adapters": [{"name": "chat:legal", "versions": [{"name": "v2", "weight": 50, "revision": "a2"}]}],
        },
        {"name": "other", "variants": [{"name": "stable", "weight": 100, "revision": "o1"}], "adapters": []},
    ],
    "pipelines": [{"name": "docs", "versions": [{"name": "v1", "weight": 100, "revision": "p1"}]}],
}


def client(handler: Handler) -> httpx.Client:
    return httpx.Client(base_url="http://manta", transport=httpx.MockTransport(handler))


def answering(status: int, body: Any) -> httpx.Client:
    return client(lambda _: httpx.Response(status, json=body))


def test_a_look_has_the_table_and_what_is_asked_for_is_made_of() -> None:
    seen = look(answering(200, STATUS), SCENARIO)
    assert (seen.version, seen.digest) == (4, "d")
    assert [(each.model, each.variant, each.weight, each.revision) for each in seen.variants] == [
        ("chat", "canary", 10, "c1"),
        ("chat:legal", "v2", 50, "a2"),
        ("docs", "v1", 100, "p1"),
    ]
    assert seen.of("chat", "canary") == SeenVariant(model="chat", variant="canary", weight=10, revision="c1")


def refused(_: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("Connection refused")


@pytest.mark.parametrize(
    ("http", "said"),
    [
        pytest.param(answering(403, {}), "answers 403; set MANTA_API_KEY to a key with `admin: true`", id="key"),
        pytest.param(answering(500, {}), "/admin/status answers 500", id="broken"),
        pytest.param(answering(200, {"models": []}), "does not say what its variants are made of", id="not-manta"),
        pytest.param(answering(200, {**STATUS, "traffic": {"version": -1}}), "does not say what its variants", id="odd"),
        pytest.param(client(refused), "could not be read: connection refused", id="down"),
    ],
)
def test_a_platform_that_cannot_be_looked_at_is_told(http: httpx.Client, said: str) -> None:
    with pytest.raises(PublishError) as caught:
        look(http, SCENARIO)
    assert said in str(caught.value)


def test_a_result_is_sent_to_its_scenario() -> None:
    sent: list[tuple[str, LoadTestResult]] = []

    def take(request: httpx.Request) -> httpx.Response:
        sent.append((request.url.path, LoadTestResult.model_validate(json.loads(request.content))))
        return httpx.Response(200, json={})

    publish(client(take), result())
    assert sent == [("/admin/load-tests/smoke", result())]


def test_what_may_pass_is_tried_again() -> None:
    answers = iter([httpx.Response(503), httpx.Response(429), httpx.Response(200, json={})])
    slept: list[float] = []
    publish(client(lambda _: next(answers)), result(), sleep=slept.append)
    assert slept == [PAUSE_S, PAUSE_S]


@pytest.mark.parametrize(
    ("handler", "said", "tries"),
    [
        pytest.param(lambda _: httpx.Response(503, text="<html>"), "not taken: status 503", ATTEMPTS, id="away"),
        pytest.param(refused, "http://manta cannot be reached: connection refused", ATTEMPTS, id="down"),
        pytest.param(lambda _: httpx.Response(409, json={"error": {"message": "a later run"}}), "a later run", 1, id="refused"),
        pytest.param(lambda _: httpx.Response(404), "not taken: status 404", 1, id="no-manta"),
    ],
)
def test_what_is_not_taken_says_why(handler: Handler, said: str, tries: int) -> None:
    tried: list[str] = []

    def counted(request: httpx.Request) -> httpx.Response:
        tried.append(request.url.path)
        return handler(request)

    with pytest.raises(PublishError) as caught:
        publish(client(counted), result(), sleep=lambda _: None)
    assert (said in str(caught.value), len(tried)) == (True, tries), caught.value
