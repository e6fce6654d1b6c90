"""One streamed chat as its client sees it, and prompts that no cache has seen."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from random import Random
from typing import Any

import aiohttp

PROBES = (50, 200)  # words
WORDS = (
    *("apple", "river", "stone", "cloud", "green", "table", "light", "paper", "house", "water", "bread", "chair", "window"),
    *("garden", "music", "winter", "summer", "street", "market", "silver", "bottle", "letter", "yellow", "number", "circle"),
    *("bridge", "forest", "island", "mountain", "engine", "signal", "pocket", "ticket", "camera", "button", "planet"),
)


class ServerError(RuntimeError):
    """The server did not answer a chat as an OpenAI-compatible one does; says how."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered chat. Times are of ``time.monotonic``, in seconds."""

    sent_s: float
    first_s: float
    last_s: float
    prompt_tokens: int
    output_tokens: int

    @property
    def ttft_s(self) -> float:
        """Seconds until the first token."""
        return self.first_s - self.sent_s

    @property
    def itl_s(self) -> float:
        """Mean seconds between tokens; 0 of a single one."""
        return (self.last_s - self.first_s) / max(1, self.output_tokens - 1)

    @property
    def e2e_s(self) -> float:
        """Seconds of the whole answer."""
        return self.last_s - self.sent_s


class Client:
    """Streams chats of one model over a session that the caller owns.

    Where the server knows `ignore_eos`, every answer is as long as was asked; `probe` finds out.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, *, model: str, api_key: str | None = None) -> None:
        self._session = session
        self._url = f"{url.rstrip('/').removesuffix('/v1')}/v1/chat/completions"
        self._model = model
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self.ignores_eos = True

    async def chat(self, prompt: str, tokens: int) -> Answer:
        """Return the answer of so many tokens. Raises ServerError."""
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.ignores_eos:
            body |= {"ignore_eos": True, "min_tokens": tokens}
        stream = _Stream(time.monotonic())
        try:
            async with self._session.post(self._url, json=body, headers=self._headers) as response:
                if response.status != 200:
                    raise ServerError(f"{self._url} answered {response.status}: {(await response.text())[:300]}")
                async for line in response.content:
                    stream.take(line.strip())
        except (aiohttp.ClientError, TimeoutError, OSError) as err:
            raise ServerError(f"{self._url}: {err!r}") from err
        return stream.answer()

    async def probe(self, prompt: str) -> Answer:
        """Return an answer of two tokens, and note whether the server takes `ignore_eos`. Raises ServerError."""
        try:
            return await self.chat(prompt, 2)
        except ServerError as err:
            if " answered 4" not in str(err):
                raise
        self.ignores_eos = False
        return await self.chat(prompt, 2)


class _Stream:
    """What has come of one answer."""

    def __init__(self, sent_s: float) -> None:
        self._sent_s = sent_s
        self._first_s: float | None = None
        self._last_s = sent_s
        self._usage: dict[str, int] | None = None

    def take(self, line: bytes) -> None:
        """Take a line of the event stream. Raises ServerError."""
        if not line.startswith(b"data: {"):
            return
        event = json.loads(line[6:])
        if "error" in event:
            raise ServerError(f"the stream ended with an error: {event['error']}")
        self._usage = event.get("usage") or self._usage
        choices = event.get("choices")
        if not choices or _is_opening(choices[0].get("delta") or {}):
            return
        self._last_s = time.monotonic()
        if self._first_s is None:
            self._first_s = self._last_s

    def answer(self) -> Answer:
        """Return it whole. Raises ServerError."""
        if self._first_s is None or self._usage is None:
            lacks = "token" if self._first_s is None else "usage (`stream_options: {include_usage: true}`)"
            raise ServerError(f"the stream ended without a {lacks}")
        tokens = (self._usage["prompt_tokens"], self._usage["completion_tokens"])
        return Answer(self._sent_s, self._first_s, self._last_s, *tokens)


def _is_opening(delta: dict[str, Any]) -> bool:
    # A chunk that only names the role may come before anything has been computed.
    return "role" in delta and not delta.get("content")


class Prompts:
    """Random words, by the number of tokens that the server makes of them."""

    def __init__(self, random: Random, *, tokens_per_word: float = 1.0, template_tokens: float = 0.0) -> None:
        self._random = random
        self._tokens_per_word = tokens_per_word
        self._template_tokens = template_tokens

    def words(self, count: int) -> str:
        """Return so many words."""
        return " ".join(self._random.choices(WORDS, k=count))

    def of(self, tokens: int) -> str:
        """Return a prompt of about so many tokens, with what the chat template adds."""
        return self.words(max(1, round((tokens - self._template_tokens) / self._tokens_per_word)))

    async def calibrated(self, client: Client) -> Prompts:
        """Return prompts that know what the server makes of words. Raises ServerError."""
        few, many = [(await client.probe(self.words(count))).prompt_tokens for count in PROBES]
        per_word = (many - few) / (PROBES[1] - PROBES[0])
        if per_word <= 0:
            raise ServerError(f"usage.prompt_tokens does not grow with the prompt: {few} and {many} for {PROBES} words")
        return Prompts(self._random, tokens_per_word=per_word, template_tokens=few - per_word * PROBES[0])
