from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from typing import Any

from loadtests.outcomes import Outcome
from loadtests.tally import Tally
from loadtests.users.kinds import perform
from loadtests.users.session import Task
from tests.unit.loadtests.fakes import scenario, session_of
from tests.unit.loadtests.servers import answered, leave, serving


def platform(states: list[str]) -> tuple[Callable[[Any, bytes], None], list[str]]:
    """Return a script that takes uploads, and what was asked of it."""
    asked: list[str] = []

    def script(sock: Any, request: bytes) -> None:
        line = request.split(b"\r\n")[0].decode().removesuffix(" HTTP/1.1")
        asked.append(line)
        if line.startswith("DELETE"):
            document: dict[str, Any] = {"deleted": True}
        elif line == "POST /v1/files":
            document = {"id": "file-1"} if b'filename="loadtest-' in request else {}
        elif line == "POST /v1/vector_stores":
            document = {"id": "vs-1"}
        else:
            document = {"status": states.pop(0), "last_error": {"message": "not readable"}}
        sock.sendall(answered(json.dumps(document).encode()))

    return script, asked


def ingested(states: list[str]) -> tuple[Tally, list[str]]:
    script, asked_for = platform(states)
    with serving(script) as url:
        asked = scenario(target={"url": url}, mix=[{"kind": "ingest", "lengths": {"prompt": {"tokens": 5}}}])
        session = session_of(asked)
        for _ in range(2):
            perform(session, asked.mix[0], Task(time.perf_counter(), random.Random(1)))
        session.drain(1.0)
    return session.recorder.take(), asked_for


def test_an_upload_takes_until_it_can_be_searched_and_leaves_nothing() -> None:
    made, asked = ingested(["in_progress", "completed", "completed"])
    assert dict(made.entries["ingest"].outcomes) == {"ok": 2}
    attach = ["POST /v1/files", "POST /v1/vector_stores/vs-1/files"]
    assert asked == [
        "POST /v1/vector_stores",
        *attach,
        "GET /v1/vector_stores/vs-1/files/file-1",
        *attach,
        "DELETE /v1/vector_stores/vs-1",
        "DELETE /v1/files/file-1",
        "DELETE /v1/files/file-1",
    ]


def test_a_document_that_is_not_ingested_is_a_failure() -> None:
    made, _ = ingested(["failed", "completed"])
    assert dict(made.entries["ingest"].outcomes) == {"server_error": 1, "ok": 1}
    assert "not readable" in next(iter(made.entries["ingest"].messages))


def test_a_platform_that_has_gone_needs_no_cleaning_up() -> None:
    script, _ = platform(["completed", "completed"])

    def until_the_end(sock: Any, request: bytes) -> None:
        if request.startswith(b"DELETE"):
            leave()
        script(sock, request)

    with serving(until_the_end) as url:
        asked = scenario(target={"url": url}, mix=[{"kind": "ingest"}])
        session = session_of(asked)
        perform(session, asked.mix[0], Task(time.perf_counter(), random.Random(1)))
        assert session.drain(1.0) == 0
    assert session.recorder.take().entries["ingest"].outcomes == {Outcome.OK: 1}
