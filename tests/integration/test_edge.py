"""Headers that Ray would obey, and those that every answer has, through Serve's proxy."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from tests.integration.platform import Platform

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

CHAT = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}
PATH = "/v1/chat/completions"


def test_a_clients_time_limit_does_not_cut_its_stream(platform: Platform) -> None:
    body = {**CHAT, "stream": True, "max_tokens": 40}  # 2 s
    headers = {"x-request-timeout-seconds": "0.5"}
    with httpx.stream("POST", f"{platform.url}{PATH}", json=body, headers=headers, timeout=60) as response:
        events = [line for line in response.iter_lines() if line]
    assert (len(events), events[-1]) == (42, "data: [DONE]")  # 40 tokens, why they ended, and that they did


async def test_a_client_that_leaves_frees_its_place_whatever_it_said(platform: Platform) -> None:
    body = {**CHAT, "stream": True, "max_tokens": 100_000}
    headers = {"x-request-disconnect-disabled": "?1"}
    async with (
        httpx.AsyncClient(timeout=60) as client,
        client.stream("POST", f"{platform.url}{PATH}", json=body, headers=headers) as response,
    ):
        await anext(response.aiter_lines())
    deadline_s = time.monotonic() + 20
    while (load := (await asyncio.to_thread(platform.variant))["running"]) and time.monotonic() < deadline_s:  # noqa: ASYNC110  (another process)
        await asyncio.sleep(0.5)
    assert load == 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", PATH, 200),
        ("POST", "/v1/messages", 404),
        ("GET", "/v1/models", 200),
        ("HEAD", "/v1/models", 200),
        ("GET", "/v1/nothing", 404),
        ("OPTIONS", PATH, 405),
        ("GET", "/docs", 200),
    ],
)
def test_every_answer_names_its_request_once(platform: Platform, method: str, path: str, status: int) -> None:
    body = {**CHAT, "max_tokens": 1} if method == "POST" else None
    response = httpx.request(method, f"{platform.url}{path}", json=body, headers={"x-request-id": "mine-1"}, timeout=60)
    ids = [value for name, value in response.headers.multi_items() if name == "x-request-id"]
    assert (response.status_code, ids) == (status, ["mine-1"])


@pytest.mark.parametrize("name", ["x-request-id", "x-session-id", "x-request-timeout-seconds"])
def test_a_header_that_is_no_text_breaks_nothing(platform: Platform, name: str) -> None:
    headers = [(name.encode(), b"\xff\xfe"), (b"content-type", b"application/json")]
    body = b'{"model": "chat", "max_tokens": 1, "messages": []}'
    response = httpx.post(f"{platform.url}{PATH}", content=body, headers=headers, timeout=60)
    ids = [value for name, value in response.headers.multi_items() if name == "x-request-id"]
    assert (response.status_code, len(ids), ids[0].isascii()) == (200, 1, True)


def test_headers_without_end_are_refused(platform: Platform) -> None:
    many = {f"x-{i}": "y" for i in range(120)}
    assert httpx.get(f"{platform.url}/v1/models", headers=many, timeout=60).status_code in (400, 431)
    long = {"x-long": "y" * 60_000}
    assert httpx.get(f"{platform.url}/v1/models", headers=long, timeout=60).status_code in (400, 431)
