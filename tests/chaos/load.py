"""Steady load on a platform, by a process of its own: open-loop arrivals, and what became of each request.

    python -m tests.chaos.load --url http://10.0.0.2:8000 --url http://10.0.0.3:8000 --out records.jsonl --chat 90 --question 6

Runs until its standard input closes. Times are of the machine's monotonic clock, so that another process may compare them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TextIO

import aiohttp

# As OpenAI's SDK does by default.
MOST_TRIES = 3
FIRST_PAUSE_S = 0.5
CONNECT_S = 5.0
TIMEOUT_S = 120.0
# As KubeRay probes the proxy of a worker; a pod that is not ready is no endpoint of the Service.
PROBE_PATH, PROBE_EVERY_S, PROBE_TIMEOUT_S = "/-/healthz", 5.0, 2.0
ENDS = {429: "refused", 404: "unrouted"}
OPEN = ".open"  # end of the name of the file that says since when a request is open
KINDS = ("chat", "question", "embed", "whole")


@dataclass
class Record:
    """One request as its client saw it.

    Attributes:
        end: ``ok``; ``refused`` (429); ``failed`` (no byte of an answer); ``unrouted`` (404, by a proxy that does not know its
            routes yet); ``broken`` (an error event after the first byte); ``cut`` (its connection broke after the first byte,
            which every client notices); ``silent`` (ended in an orderly way before its end, which must never be); ``left``
            (the load ended).
        gap_s: the longest wait between two pieces of the answer.
        tries: connections that were needed; a further one only where the connection before broke without any byte.
    """

    kind: str
    began_s: float
    first_s: float = 0.0
    ended_s: float = 0.0
    gap_s: float = 0.0
    end: str = "left"
    status: int = 0
    tries: int = 0
    detail: str = ""
    tokens: int = 0
    priority: str = ""


class Service:
    """Where requests go: to the proxies in turn that were ready when they were last asked, as a Kubernetes Service has it.

    Another try goes to another proxy, as gateways do it (nginx's `proxy_next_upstream`, Envoy's `previous_hosts`).
    """

    def __init__(self, urls: Sequence[str], session: aiohttp.ClientSession) -> None:
        self._session = session
        self._is_ready = dict.fromkeys(urls, True)
        self._turn = itertools.count()

    def next(self, but: str = "") -> str:
        """Return the endpoint of the next connection, if possible another one than that which has just failed."""
        ready = [url for url, is_ready in self._is_ready.items() if is_ready] or list(self._is_ready)
        others = [url for url in ready if url != but] or ready
        return others[next(self._turn) % len(others)]

    async def follow(self, url: str) -> None:
        """Ask a proxy whether it is ready, for ever."""
        timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
        while True:
            try:
                async with self._session.get(url + PROBE_PATH, timeout=timeout) as answer:
                    self._is_ready[url] = answer.status == 200
            except (aiohttp.ClientError, TimeoutError, ConnectionError):
                self._is_ready[url] = False
            await asyncio.sleep(PROBE_EVERY_S)


class Load:
    """Sends requests at a rate, whatever becomes of them."""

    def __init__(self, args: argparse.Namespace, session: aiohttp.ClientSession, service: Service, out: TextIO) -> None:
        self._args = args
        self._service = service
        self._session = session
        self._out = out
        self._numbers = itertools.count()
        self._random = random.Random(args.seed)  # noqa: S311
        self._open: dict[int, float] = {}  # when each request began, in that order

    async def tell_open(self) -> None:
        """Write down every second since when the request waits that has been open longest, for ever."""
        file = self._args.out.with_suffix(OPEN)
        while True:
            file.write_text(str(next(iter(self._open.values()), time.monotonic())), encoding="utf-8")
            await asyncio.sleep(1.0)

    async def send(self, kind: str, key: str) -> None:
        """Send one request and write down what became of it."""
        record = Record(kind, time.monotonic(), priority=key)
        number = next(self._numbers)
        self._open[number] = record.began_s
        url = ""
        try:
            for again in range(MOST_TRIES):
                if again:
                    await asyncio.sleep(FIRST_PAUSE_S * 2 ** (again - 1) * self._random.uniform(0.75, 1.0))
                url = self._service.next(but=url)
                if await self._try(url, record, number):
                    break
        finally:
            del self._open[number]
            record.ended_s = time.monotonic()
            self._out.write(json.dumps(asdict(record)) + "\n")

    async def _try(self, url: str, record: Record, number: int) -> bool:
        """Return whether the request has ended, rather than broken without a byte."""
        record.tries += 1
        path, body = self._request(record.kind, number)
        headers = {"authorization": f"Bearer {record.priority}"} if record.priority else {}
        try:
            async with self._session.post(f"{url}{path}", json=body, headers=headers) as answer:
                record.status = answer.status
                if answer.status != 200:
                    text = await answer.text()
                    record.end, record.detail = ENDS.get(answer.status, "failed"), text[:300]
                    record.first_s = time.monotonic()
                    return True
                await self._read(answer, record, is_stream=bool(body.get("stream")))
                return True
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as err:
            record.end = "cut" if record.first_s else "failed"
            record.detail = f"{record.detail} {type(err).__name__}: {err}"[-600:]
            # No connection is like a refused one; an answer that is late is none that another endpoint would hasten.
            is_late = isinstance(err, TimeoutError) and not isinstance(err, aiohttp.ConnectionTimeoutError)
            return bool(record.first_s) or is_late

    async def _read(self, answer: aiohttp.ClientResponse, record: Record, *, is_stream: bool) -> None:
        last_s, tail = record.began_s, b""
        async for piece in answer.content.iter_any():
            now_s = time.monotonic()
            if not record.first_s and not piece.startswith(b":"):
                record.first_s = now_s
            elif record.first_s:
                record.gap_s = max(record.gap_s, now_s - last_s)
            last_s = now_s
            record.tokens += piece.count(b'"content"') + piece.count(b'"text"')
            tail = (tail + piece)[-4000:]
        whole = b"[DONE]" in tail if is_stream else tail.rstrip().endswith(b"}")
        if b'data: {"error"' in tail:
            at = tail.index(b'data: {"error"')
            record.end, record.detail = ("broken" if record.tokens else "failed"), tail[at : at + 300].decode(errors="replace")
        else:
            record.end = "ok" if whole else "silent"

    def _request(self, kind: str, number: int) -> tuple[str, dict[str, Any]]:
        text = f"{number}: what does the method number {self._random.randrange(10_000)} do?"
        if kind == "embed":
            return "/v1/embeddings", {"model": "minilm", "input": text}
        model = "assistant" if kind == "question" else "chat"
        body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": self._args.tokens}
        return "/v1/chat/completions", {**body, "stream": kind != "whole"}


async def run(args: argparse.Namespace) -> None:
    """Send until standard input closes, then let what is open end."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), lambda: None if os.read(sys.stdin.fileno(), 4096) else over.set())
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=20)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S, sock_connect=CONNECT_S)
    with args.out.open("w", encoding="utf-8", buffering=1) as out:
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            service = Service(args.url, session)
            load = Load(args, session, service, out)
            beside = [loop.create_task(service.follow(url)) for url in args.url] + [loop.create_task(load.tell_open())]
            sources = [(kind, "", getattr(args, kind)) for kind in KINDS] + [("chat", *_keyed(each)) for each in args.keyed]
            senders = [loop.create_task(_send(load, *source, over=over)) for source in sources if source[2]]
            await asyncio.gather(*senders)
            for task in beside:
                task.cancel()


async def _send(load: Load, kind: str, key: str, rate: float, *, over: asyncio.Event) -> None:
    """Let requests of one kind arrive at a rate (a Poisson process)."""
    draw, due_s = random.Random(f"{kind}{key}"), time.monotonic()  # noqa: S311
    async with asyncio.TaskGroup() as group:
        while not over.is_set():
            due_s += draw.expovariate(rate)
            if (wait_s := due_s - time.monotonic()) > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), wait_s)
            group.create_task(load.send(kind, key))


def _keyed(text: str) -> tuple[str, float]:
    key, _, rate = text.partition("=")
    return key, float(rate)


def parse(argv: list[str]) -> argparse.Namespace:
    """Return the options."""
    from pathlib import Path

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", action="append", required=True, help="Where the platform listens; may be given again.")
    parser.add_argument("--out", type=Path, required=True, help="Where the records go, one JSON object a line.")
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=float, default=0.0, help=f"Requests per second of the kind {kind}.")
    parser.add_argument("--keyed", action="append", default=[], help="KEY=RATE: chats with an API key; may be given again.")
    parser.add_argument("--tokens", type=int, default=16, help="Tokens of an answer.")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


if __name__ == "__main__":
    asyncio.run(run(parse(sys.argv[1:])))
