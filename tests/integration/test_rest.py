"""The REST surface through Serve's proxy."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.integration.platform import Platform

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

CHAT = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        pytest.param(json.dumps({**CHAT, "model": "nobody"}), 404, "model_not_found", id="unknown-model"),
        pytest.param('{"model": "chat",', 400, "invalid_request", id="malformed-json"),
        pytest.param(json.dumps({**CHAT, "max_tokens": -1}), 400, "invalid_request", id="negative-max-tokens"),
        pytest.param(json.dumps({**CHAT, "pad": "x" * 20_000_000}), 413, "request_too_large", id="20-mb-body"),
    ],
)
def test_a_bad_request_gets_openais_error(platform: Platform, content: str, status: int, code: str) -> None:
    answer = httpx.post(f"{platform.url}/v1/chat/completions", content=content, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_models_say_that_an_engine_is_simulated(platform: Platform) -> None:
    [card] = httpx.get(f"{platform.url}/v1/models", timeout=30).json()["data"]
    assert (card["id"], card["kind"], card["engine"]) == ("chat", "model", "simulated")


def test_health_and_readiness(platform: Platform) -> None:
    codes = {p: httpx.get(f"{platform.url}{p}", timeout=30).status_code for p in ("/healthz", "/readyz", "/v1/nothing")}
    assert codes == {"/healthz": 200, "/readyz": 200, "/v1/nothing": 404}


def test_the_answer_names_the_request_once(platform: Platform) -> None:
    answer = httpx.post(
        f"{platform.url}/v1/chat/completions", json={**CHAT, "max_tokens": 1}, headers={"x-request-id": "mine-1"}
    )
    assert [v for k, v in answer.headers.multi_items() if k == "x-request-id"] == ["mine-1"]
