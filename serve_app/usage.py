"""Usage: how many tokens a request cost, read from the answer on its way; also from a stream that its client left."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol, Self

from serve_app.limits.permit import Permit
from serve_app.sse import ByteStream

CHUNKED = ("/v1/chat/completions", "/v1/completions")  # their chunks carry usage when they are asked to
BYTES_PER_TOKEN = 4  # of a prompt that no answer has counted
# Within JSON strings quotes are escaped, so that none of these can stand in what a model or a client wrote.
_USAGE = re.compile(rb'"usage":\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')
_CHOICE = re.compile(rb'"choices":\s*\[\s*\{\s*"index":\s*(\d+)')
_NO_CHOICES = (b'"choices":[]', b'"choices": []')
_BLANK_LINES = re.compile(rb"\r?\n\r?\n")
_DELTA = re.compile(rb"event: (?:content_block_delta|response\.\S+\.delta)\r?\n")
_FINAL = re.compile(rb"event: (?:message_delta|response\.(?:completed|incomplete|failed))\r?\n")


class Usage(NamedTuple):
    """Tokens of a request and of its answer."""

    prompt: int
    completion: int
    is_estimated: bool = False  # no answer has told it


def told_usage(answer: bytes) -> Usage | None:
    """Return what a whole answer, or the end of a stream, says it cost, in OpenAI's words or Anthropic's."""
    usage = _last_usage(answer)
    prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
    return None if prompt is None else Usage(prompt, usage.get("completion_tokens", usage.get("output_tokens", 0)))


def tells_usage(body: Mapping[str, Any], path: str) -> bool:
    """Whether the answer is a stream whose chunks carry usage when they are asked to."""
    options = body.get("stream_options") or {}
    return _endpoint(path) in CHUNKED and bool(body.get("stream")) and isinstance(options, dict)


def prompt_estimate(raw: bytes) -> int:
    """Return about how many tokens a request has, for want of an answer that says it."""
    return len(raw) // BYTES_PER_TOKEN


def with_usage(body: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the body that makes an engine tell its usage in every chunk, so that it is known whenever a client leaves."""
    if not tells_usage(body, path):
        return dict(body)
    options = body.get("stream_options") or {}
    return {**body, "stream_options": {**options, "include_usage": True, "continuous_usage_stats": True}}


def usage_of(body: bytes) -> int | None:
    """Return the tokens that a whole answer says it cost, or None when it does not say."""
    return _tokens(_last_usage(body))


def completion_tokens(body: bytes) -> int:
    """Return how many tokens a whole answer says it generated, in OpenAI's words or Anthropic's; 0 when it does not say."""
    usage = _last_usage(body)
    return usage.get("completion_tokens", usage.get("output_tokens", 0))


def metered(stream: ByteStream, permit: Permit, *, path: str, body: Mapping[str, Any], raw: bytes) -> MeteredStream:
    """Return the stream as the client asked for it in ``body``; at its end the permit is charged and released.

    ``raw`` is the request as received: its length stands for a prompt that nobody has counted.
    """
    if not permit.counts_tokens:
        return MeteredStream(stream, permit, _Uncounted())
    prompt_tokens = prompt_estimate(raw)
    if _endpoint(path) in CHUNKED:
        return MeteredStream(stream, permit, _Chunks(body, prompt_tokens))
    return MeteredStream(stream, permit, _Events(prompt_tokens))


class Meter(Protocol):
    """Reads usage from whole events."""

    def read(self, piece: bytes) -> bytes:
        """Take note of the usage in a piece and return what the client is to get of it."""
        ...

    def tokens(self) -> int:
        """Return what the request has cost so far."""
        ...


class MeteredStream:
    """Passes a stream on; charges the permit once and releases it when the stream ends, breaks or is closed.

    (An object and no generator, for the reason that ``LeasedStream`` gives.)
    """

    def __init__(self, stream: ByteStream, permit: Permit, meter: Meter) -> None:
        self._stream = stream
        self._permit = permit
        self._meter = meter
        self._is_over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the next whole events."""
        try:
            while True:
                if kept := self._meter.read(await anext(self._stream)):
                    return kept
        except BaseException:
            self._end()
            raise

    async def aclose(self) -> None:
        """Charge for what was generated so far, and free what is behind the stream."""
        self._end()
        await self._stream.aclose()

    def _end(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._permit.charge(self._meter.tokens())
            self._permit.release()


class _Uncounted:
    """Nothing is counted and nothing is touched."""

    def read(self, piece: bytes) -> bytes:
        return piece

    def tokens(self) -> int:
        return 0


class _Chunks:
    """OpenAI's chunks of chat and text completions, with usage in each."""

    def __init__(self, body: Mapping[str, Any], prompt_tokens: int) -> None:
        options = body.get("stream_options")
        options = options if isinstance(options, dict) else {}
        self._keeps_last = bool(options.get("include_usage"))
        self._keeps_all = self._keeps_last and bool(options.get("continuous_usage_stats"))
        count = body.get("n")
        self._choices_per_prompt = count if isinstance(count, int) and count > 0 else 1
        self._estimate = prompt_tokens
        self._chunks = 0
        self._seen: dict[int, bytes] = {}  # the last usage of each choice, which counts its own answer; parsed at the end
        self._total: int | None = None

    def read(self, piece: bytes) -> bytes:
        if piece.find(b"\n\n") == len(piece) - 2:  # as a rule: one event
            return self._event(piece)
        return b"".join(map(self._event, _events(piece)))

    def tokens(self) -> int:
        if self._total is not None:
            return self._total
        if not self._seen:
            return self._estimate + self._chunks
        seen = {index: _object(usage) for index, usage in self._seen.items()}
        prompts = {index // self._choices_per_prompt: usage.get("prompt_tokens", 0) for index, usage in seen.items()}
        return sum(prompts.values()) + sum(usage.get("completion_tokens", 0) for usage in seen.values())

    def _event(self, event: bytes) -> bytes:
        start = event.rfind(b'"usage":')
        found = _USAGE.match(event, start) if start >= 0 else None
        if found is None:
            self._chunks += b'"choices"' in event
            return event
        if any(sign in event for sign in _NO_CHOICES):
            self._total = _tokens(_object(found[1]))
            return event if self._keeps_last else b""
        choice = _CHOICE.search(event)
        self._seen[int(choice[1]) if choice else 0] = found[1]
        return event if self._keeps_all else _cut(event, start, found.end())


class _Events:
    """Events of /v1/messages and /v1/responses: usage stands at the start, at the end, or nowhere."""

    def __init__(self, prompt_tokens: int) -> None:
        self._estimate = prompt_tokens
        self._deltas = 0  # each is a token, or a few
        self._prompt: int | None = None
        self._total: int | None = None

    def read(self, piece: bytes) -> bytes:
        self._deltas += len(_DELTA.findall(piece))
        if b'"usage"' in piece:
            for event in _events(piece):
                self._note(event)
        return piece

    def tokens(self) -> int:
        if self._total is not None:
            return self._total
        return (self._estimate if self._prompt is None else self._prompt) + self._deltas

    def _note(self, event: bytes) -> None:
        found = _USAGE.search(event)
        tokens = None if found is None else _tokens(_object(found[1]))
        if tokens is None:
            return
        if _FINAL.match(event):
            self._total = tokens
        else:
            self._prompt = tokens


def _cut(document: bytes, start: int, end: int) -> bytes:
    """Return the document without one member of an object, and without the comma that set it apart."""
    head, tail = document[:start].rstrip(), document[end:]
    return head[:-1] + tail if head.endswith(b",") else head + tail.lstrip(b" ").removeprefix(b",")


def _endpoint(path: str) -> str:
    return path.partition("?")[0]


def _events(piece: bytes) -> Iterator[bytes]:
    start = 0
    for end in _BLANK_LINES.finditer(piece):
        yield piece[start : end.end()]
        start = end.end()
    if start < len(piece):
        yield piece[start:]


def _last_usage(answer: bytes) -> dict[str, int]:
    """Return the numbers of the last usage object in an answer; none where it has none."""
    start = answer.rfind(b'"usage"')
    found = _USAGE.match(answer, start) if start >= 0 else None
    return {} if found is None else _object(found[1])


def _object(text: bytes) -> dict[str, int]:
    """Return the numbers of a usage object."""
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    return {name: value for name, value in document.items() if isinstance(value, int)}


def _tokens(usage: Mapping[str, int]) -> int | None:
    """Return prompt and answer together, in OpenAI's words or Anthropic's, where cached input is counted apart."""
    if "total_tokens" in usage:
        return usage["total_tokens"]
    parts = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens")
    cached = ("cache_read_input_tokens", "cache_creation_input_tokens")
    found = [usage[name] for name in (*parts, *cached) if name in usage]
    return sum(found) if found else None
