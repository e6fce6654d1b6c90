from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from serve_app import rag
from serve_app.contracts import Hit, SearchQuery
from serve_app.deadline import Deadline
from serve_app.errors import DeadlineExceeded, PlatformError, Unavailable
from serve_app.observing.record import RequestRecord
from serve_app.rag.overrides import SearchPlan
from serve_app.rag.retrieval import Retrieved, retrieval_budget_s, retrieve
from tests.unit.serve_app.fakes import FakeClock, FakeRetriever, upstream_of
from tests.unit.serve_app.rag.asking import RETRIEVAL, asking, pipeline, ready, whole
from tests.unit.serve_app.virtual_time import run_virtually

LATE, AWAY = DeadlineExceeded("late"), Unavailable("away")


@pytest.mark.parametrize(
    ("version", "left_s", "budget_s"),
    [
        ({}, None, 30.0),
        ({"retrieve_timeout": "2s"}, None, 2.0),
        ({"retrieve_timeout": "2s"}, 1.0, 1.0),
        ({"retrieve_share": 0.5}, 10.0, 5.0),
        ({"retrieve_share": 0.5, "retrieve_timeout": "2s"}, 10.0, 2.0),
    ],
    ids=["default", "own", "deadline", "share", "shortest"],
)
def test_passages_get_the_shortest_of_their_limits(version: dict[str, Any], left_s: float | None, budget_s: float) -> None:
    clock = FakeClock()
    deadline = Deadline() if left_s is None else Deadline(clock.now_s + left_s, left_s, clock)
    call = replace(asking(), deadline=deadline)
    assert retrieval_budget_s(call, pipeline(**version).versions[0]) == budget_s


@pytest.mark.parametrize(("error", "why"), [(LATE, "late"), (AWAY, "unavailable")], ids=["late", "unavailable"])
@pytest.mark.parametrize("no_passages", ["answer", "refuse", "error"])
async def test_a_model_answers_without_passages_and_says_so(error: PlatformError, why: str, no_passages: str) -> None:
    retriever = FakeRetriever(error=error)
    made = ready(retriever=retriever, on_late_retrieval="skip", no_passages=no_passages)
    record = RequestRecord()
    reply = await rag.ask(made, replace(asking(), record=record), made.view.pipelines["docs"])
    answer = await whole(reply)
    assert (answer["retrieval"], answer["citations"]) == ({**RETRIEVAL, "skipped": why}, [])
    assert (reply.skipped, record.skipped, record.passages) == (("retrieval",), {"retrieve": why}, None)
    assert b'"content": "Q: Why?"' in upstream_of(made).requests[0].body


@pytest.mark.parametrize("error", [LATE, AWAY], ids=["late", "unavailable"])
async def test_without_leave_to_skip_the_request_fails(error: PlatformError) -> None:
    made = ready(retriever=FakeRetriever(error=error))
    with pytest.raises(type(error)):
        await rag.ask(made, asking(), made.view.pipelines["docs"])


def test_a_retriever_that_hangs_is_late() -> None:
    class Hangs(FakeRetriever):
        async def search(self, query: SearchQuery) -> list[Hit]:
            await asyncio.Event().wait()
            return await super().search(query)

    async def main() -> tuple[Retrieved, float]:
        made = ready(retriever=Hangs(), on_late_retrieval="skip", retrieve_share=0.25)
        call = replace(asking(), deadline=Deadline(8.0, 8.0, asyncio.get_running_loop().time))
        version = made.view.pipelines["docs"].versions[0]
        found = await retrieve(made, call, version, query="Why?", plan=SearchPlan("books", 5))
        return found, asyncio.get_running_loop().time()

    assert run_virtually(main()) == (Retrieved((), "late"), 2.0)
