"""Streams without end from several clients, and what became of each."""

from __future__ import annotations

import threading
from collections import Counter
from types import TracebackType

import httpx


class Load:
    """Clients that stream one chat after the other until the block ends.

    Attributes:
        ends: how streams ended: ``whole``, ``refused`` (no byte of an answer), ``broken`` (cut after the first byte, told by
            an error event), ``silent`` (cut without a word, which must never be).
    """

    def __init__(self, url: str, *, model: str, clients: int, max_tokens: int) -> None:
        self.ends: Counter[str] = Counter()
        self.refusals: list[str] = []
        self._url = url
        self._body = {
            "model": model,
            "stream": True,
            "max_tokens": max_tokens,
            "ignore_eos": True,
        }
        self._is_over = threading.Event()
        self._open_tokens: dict[str, int] = {}  # of streams that have not ended
        self._threads = [threading.Thread(target=self._ask_on, args=(n,)) for n in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def open_tokens(self) -> int:
        """Return how many pieces of text the streams have brought that have not ended."""
        return sum(self._open_tokens.copy().values())

    def end(self) -> None:
        """Begin no other stream."""
        self._is_over.set()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end()
        for thread in self._threads:
            thread.join()

    def _ask_on(self, client: int) -> None:
        count = 0
        with httpx.Client(timeout=300) as http:
            while not self._is_over.is_set():
                count += 1
                end = self._ask(http, f"{client}-{count}")
                self._open_tokens.pop(f"{client}-{count}", None)
                self.ends[end] += 1

    def _ask(self, http: httpx.Client, session: str) -> str:
        data = ""
        try:
            # Prompts that begin alike would all go to one replica.
            messages = [{"role": "user", "content": f"{session}: what does os.getcwd do?"}]
            with http.stream("POST", f"{self._url}/v1/chat/completions", json={**self._body, "messages": messages}) as answer:
                if answer.status_code != 200:
                    answer.read()
                    self.refusals.append(f"{answer.status_code}: {answer.text[:300]}")
                    return "refused"
                for line in answer.iter_lines():
                    data = line.removeprefix("data: ") or data
                    if data.startswith('{"error"'):
                        return "broken"
                    self._open_tokens[session] = self._open_tokens.get(session, 0) + _has_text(line)
        except httpx.HTTPError as err:
            self.refusals.append(repr(err))
            return "silent" if data else "refused"
        return "whole" if data == "[DONE]" else "silent"


def _has_text(line: str) -> bool:
    return line.startswith("data: ") and '"content":"' in line and '"content":""' not in line
