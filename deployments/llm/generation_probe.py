"""GenerationProbe: a request of one token that a replica sends to its engine's own app, past its port."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from deployments.llm.engine import PROBE_SCOPE, AsgiApp, Message, Scope

PROMPT = "ok"
_LONGEST_ANSWER = 65_536  # bytes of an answer that are kept; an embedding is a few thousand numbers
_DETAIL = 300


class ProbeOutcome(StrEnum):
    """What became of a probe."""

    ANSWERED = "answered"
    REFUSED = "refused"  # with a 4xx: the app lives, but generates nothing for such requests
    FAILED = "failed"
    LATE = "late"


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The outcome of a probe, and what to say of it."""

    outcome: ProbeOutcome
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Question:
    path: str
    body: dict[str, Any]
    answers_in: str  # the field of an answer that holds what was generated


class GenerationProbe:
    """Asks for a completion, or for an embedding where the engine completes nothing.

    Its requests are no clients': they pass neither the replica's port, so they count as no load and no arrivals, nor its
    adapters.
    """

    def __init__(self, app: AsgiApp, model: str) -> None:
        """``model``: the name that the app serves its model under."""
        self._app = app
        completion = {"model": model, "prompt": PROMPT, "max_tokens": 1, "temperature": 0}
        self._questions = [
            _Question("/v1/completions", completion, "choices"),
            _Question("/v1/embeddings", {"model": model, "input": PROMPT}, "data"),
        ]
        self.is_open = False  # whether a probe is in the engine right now
        self._left: set[asyncio.Future[None]] = set()

    async def ask(self, timeout_s: float) -> ProbeResult:
        """Return what became of a probe; never raises, and never takes longer than ``timeout_s``."""
        self.is_open = True
        try:
            async with asyncio.timeout(timeout_s):
                return await self._first_answer()
        except TimeoutError:
            return ProbeResult(ProbeOutcome.LATE, f"no answer within {timeout_s:g} s")
        finally:
            self.is_open = False

    async def _first_answer(self) -> ProbeResult:
        refusals = []
        for question in list(self._questions):
            result = await self._put(question)
            if result.outcome is not ProbeOutcome.REFUSED:
                if result.outcome is ProbeOutcome.ANSWERED:
                    self._questions = [question]  # the one that this engine understands
                return result
            refusals.append(result.detail)
        return ProbeResult(ProbeOutcome.REFUSED, "; ".join(refusals))

    async def _put(self, question: _Question) -> ProbeResult:
        answer = _Answer()
        body = json.dumps(question.body).encode()
        asking = asyncio.ensure_future(self._app(_scope(question.path, len(body)), _Receive(body), answer.take))
        try:
            # An app that does not end when it is cancelled must not hold the replica: it is left behind.
            await asyncio.wait({asking})
        finally:
            if not asking.done():
                asking.cancel()
                self._left.add(asking)
                asking.add_done_callback(self._forget)
        if asking.cancelled():
            return ProbeResult(ProbeOutcome.FAILED, f"{question.path} was given up by the engine's app")
        if (error := asking.exception()) is not None:
            return ProbeResult(ProbeOutcome.FAILED, f"{question.path} raised {type(error).__name__}: {error}"[:_DETAIL])
        return answer.judged(question)

    def _forget(self, task: asyncio.Future[None]) -> None:
        self._left.discard(task)
        if not task.cancelled():
            task.exception()  # asked for, so that asyncio reports no error that nobody saw


class _Receive:
    """A client that sends its body and stays."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body

    async def __call__(self) -> Message:
        if self._body is None:
            await asyncio.Event().wait()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


class _Answer:
    """Keeps the beginning of an answer."""

    def __init__(self) -> None:
        self._status = 0
        self._body = b""

    async def take(self, message: Message) -> None:
        """Take a message of the app."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
        elif len(self._body) < _LONGEST_ANSWER:
            self._body += message.get("body", b"")

    def judged(self, question: _Question) -> ProbeResult:
        """Return what the answer says of the engine."""
        said = f"{question.path} answered {self._status}: {self._body.decode(errors='replace')}"[:_DETAIL]
        if 400 <= self._status < 500:
            return ProbeResult(ProbeOutcome.REFUSED, said)
        if not 200 <= self._status < 300 or not self._has(question.answers_in):
            return ProbeResult(ProbeOutcome.FAILED, said)
        return ProbeResult(ProbeOutcome.ANSWERED)

    def _has(self, field: str) -> bool:
        if len(self._body) >= _LONGEST_ANSWER:
            return True  # cut, so it cannot be read
        try:
            document = json.loads(self._body)
        except ValueError:
            return False
        return isinstance(document, dict) and bool(document.get(field))


def _scope(path: str, size: int) -> Scope:
    headers = [(b"host", b"probe"), (b"content-type", b"application/json"), (b"content-length", str(size).encode())]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": None,
        "server": None,
        PROBE_SCOPE: True,
    }
