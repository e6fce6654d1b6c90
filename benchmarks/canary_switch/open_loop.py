"""Open-loop chats against a platform: each is sent when it is due, however long the others take."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from serve_app.affinity import affinity_key
from serve_app.rollout.table import bucket_of

TIMEOUT_S = 120.0


@dataclass(slots=True)
class Answered:
    """One chat as its client saw it. Times are of ``time.monotonic``."""

    sent_s: float
    session: str
    status: int = 0
    variant: str = ""
    tokens: int = 0
    first_s: float | None = None
    ended_s: float | None = None
    error: str = ""

    @property
    def bucket(self) -> int:
        """The bucket of its conversation, where no keys are configured."""
        return bucket_of(affinity_key("anonymous", {}, session_id=self.session))

    @property
    def is_failed(self) -> bool:
        """Whether the client got anything but a whole answer."""
        return bool(self.error) or self.status != 200 or self.ended_s is None


@dataclass
class Load:
    """Chats of one token budget at a fixed rate, each a conversation of its own."""

    url: str
    rate: float  # chats per second
    tokens: int = 4
    is_stream: bool = True
    timeout_s: float = TIMEOUT_S
    answers: list[Answered] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _count: int = 0

    async def run(self, until: Callable[[], bool]) -> None:
        """Send until told to stop; chats that are open then go on."""
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=self.timeout_s)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as client:
            due_s = time.monotonic()
            while not until():
                task = asyncio.create_task(self._chat(client, f"s{self._count}"))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                self._count += 1
                due_s += 1 / self.rate
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            while self._tasks:
                await asyncio.wait(self._tasks)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send while the block runs, and wait for what is open at its end."""
        stop = asyncio.Event()
        task = asyncio.create_task(self.run(stop.is_set))
        try:
            yield
        finally:
            stop.set()
            await task

    def failed(self) -> list[Answered]:
        """Return the chats that failed."""
        return [answer for answer in self.answers if answer.is_failed]

    async def _chat(self, client: aiohttp.ClientSession, session: str) -> None:
        body = {"model": "chat", "stream": self.is_stream, "max_tokens": self.tokens}
        body |= {"messages": [{"role": "user", "content": f"hello {session}"}]}
        answer = Answered(time.monotonic(), session)
        self.answers.append(answer)
        try:
            async with client.post(f"{self.url}/v1/chat/completions", json=body, headers={"x-session-id": session}) as response:
                answer.status = response.status
                answer.variant = response.headers.get("x-manta-variant", "")
                async for line in response.content:
                    self._take(line.strip(), answer)
        except (aiohttp.ClientError, TimeoutError, OSError) as err:
            answer.error = repr(err)

    def _take(self, line: bytes, answer: Answered) -> None:
        if answer.first_s is None and line and not line.startswith(b":"):
            answer.first_s = time.monotonic()
        if line.startswith(b": x-manta-variant: "):
            answer.variant = line[len(b": x-manta-variant: ") :].decode()
        elif b'"error"' in line:
            answer.error = line.decode(errors="replace")[:200]
        elif line == b"data: [DONE]" or (not self.is_stream and json.loads(line or b"{}").get("choices")):
            answer.ended_s = time.monotonic()
        elif line.startswith(b"data: "):
            answer.tokens += b'"content"' in line
