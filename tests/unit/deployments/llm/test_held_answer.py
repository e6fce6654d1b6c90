from __future__ import annotations

import json
from typing import Any

import pytest

from deployments.llm.held_answer import HeldAnswer
from serve_app.contracts import LOST_HEADER

ERROR = b'data: {"error": {"message": "EngineCore encountered an issue", "type": "InternalServerError", "code": 500}}\n\n'
TOKEN = b'data: {"choices": [{"delta": {"content": "Hello"}}]}\n\n'


async def answered(*bodies: bytes, status: int = 200, dies_after: int | None = None) -> list[Any]:
    """Return what is sent of an answer whose engine dies after so many of its pieces."""
    sent: list[Any] = []
    is_dead = dies_after == 0

    async def send(message: Any) -> None:
        sent.append(message)

    held = HeldAnswer(send, is_dead=lambda: is_dead, on_bytes=lambda: sent.append("bytes"))
    await held({"type": "http.response.start", "status": status, "headers": []})
    for count, body in enumerate(bodies, start=1):
        await held({"type": "http.response.body", "body": body, "more_body": True})
        is_dead = is_dead or dies_after == count
    await held({"type": "http.response.body", "body": b""})
    return sent


def statuses(sent: list[Any]) -> list[int]:
    return [each["status"] for each in sent if each != "bytes" and each["type"] == "http.response.start"]


def body(sent: list[Any]) -> bytes:
    return b"".join(each.get("body", b"") for each in sent if each != "bytes")


async def test_an_answer_comes_whole_and_its_first_bytes_are_told_once() -> None:
    sent = await answered(TOKEN, TOKEN)
    assert (statuses(sent), body(sent), sent.count("bytes"), sent[0]) == ([200], TOKEN * 2, 1, "bytes")


async def test_an_answer_without_a_body_comes_too() -> None:
    sent = await answered(status=204)
    assert (statuses(sent), body(sent), sent.count("bytes")) == ([204], b"", 0)


@pytest.mark.parametrize(
    ("bodies", "status"),
    [
        pytest.param((ERROR, b"data: [DONE]\n\n"), 200, id="stream-that-begins-with-an-error"),
        pytest.param((b'{"error": {"message": "EngineCore encountered an issue"}}',), 500, id="status-500"),
        pytest.param((), 500, id="status-500-without-a-body"),
    ],
)
async def test_what_a_dead_engine_says_before_any_answer_is_taken_back(bodies: tuple[bytes, ...], status: int) -> None:
    sent = await answered(*bodies, status=status, dies_after=0)
    start = next(each for each in sent if each != "bytes")
    assert (statuses(sent), dict(start["headers"])[LOST_HEADER.encode()]) == ([503], b"1")
    assert json.loads(body(sent))["error"]["code"] == "lost"


@pytest.mark.parametrize(
    ("bodies", "status", "dies_after"),
    [
        pytest.param((TOKEN, ERROR), 200, 1, id="after-the-first-token"),
        pytest.param((ERROR,), 200, None, id="error-of-an-engine-that-lives"),
        pytest.param((b'{"error": {"message": "oops"}}',), 500, None, id="status-500-of-an-engine-that-lives"),
        pytest.param((b'{"choices": []}',), 200, 0, id="answer-that-was-ready-when-it-died"),
    ],
)
async def test_anything_else_is_passed_on(bodies: tuple[bytes, ...], status: int, dies_after: int | None) -> None:
    sent = await answered(*bodies, status=status, dies_after=dies_after)
    assert (statuses(sent), body(sent)) == ([status], b"".join(bodies))
