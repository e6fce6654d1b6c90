"""HttpClient: requests of one worker process, over connections that are kept."""

from __future__ import annotations

import json
import ssl
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gevent
from gevent.lock import BoundedSemaphore

from loadtests.outcomes import Outcome, RequestFailed, of_status
from loadtests.scenario import Target
from loadtests.streaming import EventReader
from loadtests.wire.address import address_of
from loadtests.wire.answer import AnswerBroken, HttpAnswer, retry_after_s
from loadtests.wire.transport import Transport, connect

MOST_QUOTED = 200


@dataclass(slots=True)
class Call:
    """One request, and what becomes of it; filled in as it goes, so that a failure leaves what was known.

    Attributes:
        sent_s: when its bytes were sent; None: they were not.
        reader: reads the events of a stream.
        answer: what came; None: nothing.
    """

    path: str
    body: bytes = b""
    method: str = "POST"
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    reader: EventReader | None = None
    sent_s: float | None = None
    answer: HttpAnswer | None = None

    def json(self) -> dict[str, Any]:
        """Return the answer's JSON. Raises RequestFailed of class BROKEN."""
        try:
            document = json.loads(self.answer.body if self.answer is not None else b"")
        except ValueError as err:
            raise RequestFailed(Outcome.BROKEN, "the answer is not JSON") from err
        if not isinstance(document, dict):
            raise RequestFailed(Outcome.BROKEN, "the answer is not a JSON object")
        return document


class HttpClient:
    """Sends requests; connections go back to a stack, from which the warmest is taken first."""

    def __init__(self, target: Target, api_key: str | None) -> None:
        self._target = target
        self._address = address_of(target.url)
        self._idle: deque[Transport] = deque()
        self._slots = BoundedSemaphore(target.max_open)
        fixed = {"host": self._address.authority, "user-agent": "manta-loadtest", "accept": "*/*"}
        if api_key:
            fixed["authorization"] = f"Bearer {api_key}"
        if not target.reuse_connections:
            fixed["connection"] = "close"
        self._fixed = fixed

    def run(self, call: Call, *, deadline_s: float) -> None:
        """Send a request and read its answer. Raises RequestFailed; ``deadline_s`` is of `time.perf_counter`."""
        with self._slots:
            answer = self._exchange(call, deadline_s)
        outcome = of_status(answer.status)
        if outcome is not Outcome.OK:
            said = _message(answer)
            raise RequestFailed(outcome, said, status=answer.status, retry_after_s=retry_after_s(answer.headers))
        if call.reader is not None:
            _check_stream(call.reader, answer)

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop().close()

    def _exchange(self, call: Call, deadline_s: float) -> HttpAnswer:
        kept = self._kept()
        if kept is not None:
            try:
                return self._over(kept, call, deadline_s)
            except RequestFailed as err:
                # The server may close an idle connection at the very moment that a request is sent on it.
                if err.outcome is not Outcome.BROKEN or (call.answer is not None and call.answer.has_begun):
                    raise
        timeout_s = min(self._target.connect_timeout, max(0.001, deadline_s - time.perf_counter()))
        fresh = connect(self._address, timeout_s=timeout_s, verify_tls=self._target.verify_tls)
        return self._over(fresh, call, deadline_s)

    def _kept(self) -> Transport | None:
        while self._idle:
            transport = self._idle.pop()
            if transport.is_open():
                return transport
            transport.close()
        return None

    def _over(self, transport: Transport, call: Call, deadline_s: float) -> HttpAnswer:
        answer = call.answer = HttpAnswer(call.reader)
        is_kept = False
        try:
            call.sent_s = time.perf_counter()
            transport.send(self._head(call) + call.body, max(0.001, deadline_s - call.sent_s))
            transport.receive(answer.feed, deadline_s - time.perf_counter())
            is_kept = answer.may_reuse and self._target.reuse_connections
        except (gevent.Timeout, TimeoutError) as err:
            raise RequestFailed(Outcome.TIMEOUT, f"no end within {self._target.timeout:g} s") from err
        except (AnswerBroken, ValueError) as err:
            raise RequestFailed(Outcome.BROKEN, str(err), status=answer.status or None) from err
        except (OSError, ssl.SSLError) as err:
            raise RequestFailed(Outcome.BROKEN, f"the connection broke: {err.strerror or err}") from err
        finally:
            if is_kept:
                self._idle.append(transport)
            else:
                transport.close()
        return answer

    def _head(self, call: Call) -> bytes:
        headers = {**self._fixed, **call.headers}
        if call.body:
            headers |= {"content-type": call.content_type}
        if call.body or call.method == "POST":
            headers |= {"content-length": str(len(call.body))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"{call.method} {call.path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")


def _check_stream(reader: EventReader, answer: HttpAnswer) -> None:
    if reader.error is not None:
        raise RequestFailed(Outcome.ERROR_EVENT, reader.error[:MOST_QUOTED], status=answer.status)
    if not reader.is_done:
        kind = answer.headers.get("content-type", "nothing")
        is_stream = kind.startswith("text/event-stream")
        why = "the stream ended without [DONE]" if is_stream else f"expected a stream of events, got {kind}"
        raise RequestFailed(Outcome.BROKEN, why, status=answer.status)


def _message(answer: HttpAnswer) -> str:
    """Return what an error object says, else the status."""
    try:
        return str(json.loads(answer.body)["error"]["message"])[:MOST_QUOTED]
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status}"
