"""Lines of requests and of the audit log, found in the files where docs/logs.md says."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from serve_app.rpc.client import MantaClient, Message
from tests.integration.canaries import with_rollout
from tests.integration.conftest import CONFIG
from tests.integration.platform import Platform

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

WAIT_S = 30.0
SECRET = "sk-A1b2C3d4E5f6G7h8I9j0"
CHAT = {"model": "chat", "messages": [{"role": "user", "content": f"Zebra {SECRET}"}], "max_tokens": 2}


def lines(platform: Platform, kind: str) -> list[dict[str, Any]]:
    """Return every whole line of a kind that was written since the cluster began."""
    folder = platform.cluster.folder / "ray" / "session_latest" / "logs" / "serve"
    texts = [path.read_text("ascii") for path in folder.glob(f"manta-{kind}-*.jsonl")]
    return [json.loads(line) for text in texts for line in text.rpartition("\n")[0].splitlines()]


def line(platform: Platform, kind: str, is_it: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return the only line like this, once it is written."""
    deadline_s = time.monotonic() + WAIT_S
    while not (found := [each for each in lines(platform, kind) if is_it(each)]):
        assert time.monotonic() < deadline_s, f"no such line among {lines(platform, kind)[-5:]}"
        time.sleep(0.2)
    [it] = found
    return it


def request_line(platform: Platform, request_id: str) -> dict[str, Any]:
    return line(platform, "requests", lambda each: each["request_id"] == request_id)


def post(platform: Platform, request_id: str, **changes: Any) -> int:
    url, headers = f"{platform.url}/v1/chat/completions", {"x-request-id": request_id}
    return httpx.post(url, json={**CHAT, **changes}, headers=headers, timeout=60).status_code


async def test_a_request_through_each_front_has_its_line(platform: Platform) -> None:
    assert await asyncio.to_thread(post, platform, "logs-rest") == 200
    async with MantaClient(platform.grpc_target, timeout_s=60) as client:
        called = client.chat("chat", [Message("user", "Zebra")])
        grpc_id = next(chunk.origin.request_id for chunk in [chunk async for chunk in called] if chunk.origin is not None)
    rest, rpc = [await asyncio.to_thread(request_line, platform, each) for each in ("logs-rest", grpc_id)]
    assert list(rest) == list(rpc)
    assert [(each["front"], each["endpoint"], each["status"]) for each in (rest, rpc)] == [
        ("rest", "/v1/chat/completions", "200"),
        ("grpc", "Chat", "OK"),
    ]
    for each in (rest, rpc):
        assert (each["model"], each["variant"], each["outcome"], each["key"]) == ("chat", "stable", "ok", "anonymous")
        assert each["completion_tokens"] > 0
        assert "Zebra" not in json.dumps(each)


def test_a_request_that_is_refused_has_one_too(platform: Platform) -> None:
    assert post(platform, "logs-unknown", model="nobody") == 404
    found = request_line(platform, "logs-unknown")
    assert (found["outcome"], found["status"], found["error"], found["model"]) == (
        "client_error", "404", "model_not_found", None,
    )  # fmt: skip


def test_prompts_are_written_where_the_configuration_says_so_and_without_a_restart(platform: Platform) -> None:
    platform.deploy({**CONFIG, "logs": {"prompts": True, "mask": ["Zebra"]}})
    deadline_s = time.monotonic() + WAIT_S
    for i in range(1000):  # Routers follow within two seconds
        post(platform, f"logs-prompt-{i}")
        found = request_line(platform, f"logs-prompt-{i}")
        if "prompt" in found:
            break
        assert time.monotonic() < deadline_s
    assert found["prompt"] == [{"role": "user", "text": "[masked] [masked]"}]


def test_a_command_and_a_configuration_are_in_the_audit_log(platform: Platform) -> None:
    platform.deploy(with_rollout({}, steps=[{"weight": 10, "pause": "1h"}]))
    url, headers = f"{platform.url}/admin/rollouts/chat/abort", {"x-request-id": "logs-abort"}
    assert httpx.post(url, headers=headers, timeout=30).status_code == 200
    found = line(platform, "audit", lambda each: each["request_id"] == "logs-abort")
    assert (found["event"], found["actor"], found["subject"], found["verb"]) == (
        "rollout.commanded", "anonymous", "chat", "abort",
    )  # fmt: skip
    assert found["after"] == {"weights": {"stable": 100, "canary": 0}}
    assert [each for each in lines(platform, "audit") if each["event"] == "config.taken"]
