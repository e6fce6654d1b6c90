from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from serve_app.config import LimitsConfig
from serve_app.errors import DeadlineExceeded
from tests.unit.serve_app.fakes import FakeResponse, FakeRetriever, upstream_of
from tests.unit.serve_app.rag.asking import pipeline, whole_answer
from tests.unit.serve_app.rest.front import ASK, CHAT, error_of, ready, request
from tests.unit.serve_app.virtual_time import run_virtually

HEADER = "x-request-timeout-s"


@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings", "/v1/messages"])
async def test_a_timeout_that_cannot_be_read_is_refused(path: str) -> None:
    response = await request(ready(), "POST", path, json=ASK, headers={HEADER: "soon"})
    assert (response.status_code, HEADER in response.text) == (400, True)


async def test_an_open_route_has_no_deadline_to_misread() -> None:
    assert (await request(ready(), "GET", "/healthz", headers={HEADER: "soon"})).status_code == 200


@pytest.mark.parametrize(
    ("own_s", "header", "least_s", "most_s"),
    [(None, {}, None, None), (60.0, {}, 50.0, 60.0), (60.0, {HEADER: "9"}, 1.0, 9.0), (9.0, {HEADER: "60"}, 1.0, 9.0)],
    ids=["none", "configured", "shorter", "never-longer"],
)
async def test_the_replica_is_told_what_is_left(
    own_s: float | None, header: dict[str, str], least_s: float | None, most_s: float | None
) -> None:
    made = ready(limits=LimitsConfig(deadline_s=own_s))
    assert (await request(made, "POST", CHAT, json=ASK, headers=header)).status_code == 200
    [sent] = upstream_of(made).requests
    if most_s is None or least_s is None:
        assert sent.timeout_s is None
    else:
        assert sent.timeout_s is not None
        assert least_s < sent.timeout_s <= most_s


def hangs() -> Callable[[], Awaitable[FakeResponse]]:
    async def open_() -> FakeResponse:
        await asyncio.Event().wait()
        return FakeResponse()

    return open_


@pytest.mark.parametrize(("body", "stage"), [({}, "answer"), ({"stream": True}, "first_token")], ids=["whole", "stream"])
def test_a_late_answer_is_504_and_names_the_stage(body: dict[str, Any], stage: str) -> None:
    # Real deadlines are kept by the loop; the record's clock stands on real time, so what is left stays whole.
    response = run_virtually(request(ready(hangs()), "POST", CHAT, json={**ASK, **body}, headers={HEADER: "3"}))
    assert error_of(response)[:2] == (504, "deadline_exceeded")
    assert f"within its 3 s; stage '{stage}' was running" in response.text


async def test_an_answer_without_its_passages_says_so_in_a_header() -> None:
    retriever = FakeRetriever(error=DeadlineExceeded("late"))
    made = ready(whole_answer(CHAT), retriever=retriever, pipelines=(pipeline(on_late_retrieval="skip"),))
    response = await request(made, "POST", CHAT, json={**ASK, "model": "docs"})
    assert (response.headers["x-manta-skipped"], response.json()["retrieval"]["skipped"]) == ("retrieval", "late")
