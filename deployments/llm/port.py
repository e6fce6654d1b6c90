"""ReplicaPort: the guarded HTTP port of an LLM replica.

It answers 401 without the cluster's internal token, refuses new requests while draining (marked, so that Routers
try another replica), and counts: what is open, so that a drain knows when it is done; what has arrived and how much of
it has no answer yet, for scaling; and what was answered and what failed, for the watch over the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import socket
from collections.abc import Callable, Iterator

import uvicorn

from deployments.llm.engine import AsgiApp, Receive, Scope, Send
from deployments.llm.held_answer import HeldAnswer
from serve_app.contracts import DRAINING_HEADER

BYTES_PER_TOKEN = 4  # of a request's body; about what English text has
_LONGEST_SIZE = 15  # digits; a header with more is no size


class Guard:
    """ASGI wrapper: checks the token, refuses while draining, counts requests."""

    def __init__(self, app: AsgiApp, *, token: str, is_dead: Callable[[], bool] = lambda: False) -> None:
        """``is_dead``: whether the app's engine has died."""
        self._app = app
        self._is_dead = is_dead
        self._expected = f"Bearer {token}".encode()
        self.open_requests = 0
        self.arrived = 0  # POST requests let through since the port opened
        self.answered = 0  # of those, the ones with a whole answer
        self.failed_in_row = 0  # of those, the ones that have failed since
        self._queued_bytes = 0
        self.is_draining = False
        self.is_idle = asyncio.Event()
        self.is_idle.set()

    @property
    def prefill_tokens_queued(self) -> int:
        """Tokens of the prompts whose answers have no first byte yet: an estimate, never negative.

        It is the size of those requests' bodies over ``BYTES_PER_TOKEN``. So JSON around a prompt counts, an image counts as
        text, a body of unknown size (chunked) does not count, and neither does what the engine finds in its cache. An
        answer that is no stream has its first byte when it is done, so its prompt counts while it is decoded, too.
        """
        return self._queued_bytes // BYTES_PER_TOKEN

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        offered = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if not hmac.compare_digest(offered, self._expected):
            await _refuse(send, 401, "missing or wrong internal token", code="invalid_api_key")
        elif self.is_draining:
            await _refuse(send, 503, "this replica is draining", code="draining")
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.open_requests += 1
        self.is_idle.clear()
        try:
            if scope["method"] == "POST":
                await self._work(scope, receive, send)
            else:  # health, metrics and the like
                await self._app(scope, receive, send)
        finally:
            self.open_requests -= 1
            if not self.open_requests:
                self.is_idle.set()

    async def _work(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.arrived += 1
        queued_bytes = _body_bytes(scope)
        self._queued_bytes += queued_bytes

        def leave_queue() -> None:
            nonlocal queued_bytes
            self._queued_bytes -= queued_bytes
            queued_bytes = 0

        answer = HeldAnswer(send, is_dead=self._is_dead, on_bytes=leave_queue)
        try:
            await self._app(scope, receive, answer)
        except Exception:
            self._note(is_good=False)
            raise
        finally:
            leave_queue()
        self._note(is_good=answer.is_good)

    def _note(self, *, is_good: bool | None) -> None:
        if is_good:
            self.answered += 1
            self.failed_in_row = 0
        elif is_good is not None:
            self.failed_in_row += 1


def _body_bytes(scope: Scope) -> int:
    """Return the size that a request gives of its body, 0 when it gives none."""
    size: bytes = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    return int(size) if size.isdigit() and len(size) <= _LONGEST_SIZE else 0


async def _refuse(send: Send, status: int, message: str, *, code: str) -> None:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    headers = [(b"content-type", b"application/json")]
    if code == "draining":
        headers.append((DRAINING_HEADER.encode(), b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error": error}).encode()})


class _Server(uvicorn.Server):
    """Uvicorn inside somebody else's process: no signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to Ray."""
        yield


class ReplicaPort:
    """Serves a guarded ASGI app on a free port of this node."""

    def __init__(self, app: AsgiApp, *, token: str, host: str, is_dead: Callable[[], bool] = lambda: False) -> None:
        self.guard = Guard(app, token=token, is_dead=is_dead)
        self._host = host
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._server = _Server(
            uvicorn.Config(
                self.guard,
                log_level="warning",
                access_log=False,
                timeout_keep_alive=75,
                h11_max_incomplete_event_size=4 * 1024 * 1024,
            )
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Listen, and return the URL other nodes reach this replica at. Raises OSError when no port is free."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((self._host, 0))
        except OSError:
            self._socket.close()
            raise
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started:
            if self._task.done():
                self._task.result()
                raise OSError("the replica's HTTP server stopped while starting")
            await asyncio.sleep(0.01)
        return f"http://{self._host}:{self._socket.getsockname()[1]}"

    async def drain(self, timeout_s: float) -> bool:
        """Refuse new requests and wait for the open ones; return whether all of them ended in time."""
        self.guard.is_draining = True
        try:
            await asyncio.wait_for(self.guard.is_idle.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """Close the port; requests still open are cut."""
        self._server.should_exit = True
        # Forced, uvicorn waits for nobody, but does not tell the app either that it ends.
        self._server.force_exit = bool(self.guard.open_requests)
        if self._task is not None:
            await asyncio.wait([self._task], timeout=5)
        self._socket.close()
