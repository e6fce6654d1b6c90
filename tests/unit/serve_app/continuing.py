"""An engine that writes tokens as vLLM does: greedy, half characters and the beginnings of stop texts held back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

# Bytes of each token of the answer, by id: the second and third make one character, and so do the fifth and its neighbours.
TEXTS = (
    b"Hi", b" \xe2", b"\x82\xac", b" to", b" \xf0\x9f", b"\x98", b"\x80 x", b"", b"yz", b" EN", b"D", b"O",
    b" \xe5\xa5\xbd", b"!", b" EN", b"DIN", b"G", b" end", b" \xc3", b"\xa9t\xc3", b"\xa9",
)  # fmt: skip
PROMPT = [101, 102, 103]
FIRST_ID = 0
FINAL = "".join(["Hi €", " to 😀 x", "yz EN", "DO 好!", " ENDING", " end été"])


@dataclass
class Engine:
    """Answers bodies with events, ``per_chunk`` tokens at a time."""

    per_chunk: int = 1
    has_stop_reason: bool = True
    asked: list[Mapping[str, Any]] = field(default_factory=list)

    def events(self, body: Mapping[str, Any], *, stream_id: str = "one") -> list[bytes]:
        """Return the events of a stream."""
        self.asked.append(body)
        prompt = body["prompt"] if isinstance(body.get("prompt"), list) else PROMPT
        return [b"data: " + json.dumps(each).encode() + b"\n\n" for each in self._documents(body, prompt, stream_id)] + [
            b"data: [DONE]\n\n"
        ]

    def _documents(self, body: Mapping[str, Any], prompt: list[int], stream_id: str) -> Iterator[dict[str, Any]]:
        is_chat = "messages" in body
        has_ids = body.get("return_token_ids") is True
        kind = "chat.completion.chunk" if is_chat else "text_completion"
        head = {"id": stream_id, "object": kind, "created": 7 if stream_id == "one" else 8, "model": "m"}
        options = body.get("stream_options") or {}
        prompt_ids = prompt if has_ids else None
        if is_chat:
            choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
            yield {**head, "choices": [choice], "prompt_token_ids": prompt_ids, **self._usage(options, prompt, 0)}
        done, is_first = 0, True
        for text, ids, reason, stop_reason in self._pieces(body, prompt):
            done += len(ids)
            said: dict[str, Any] = {"delta": {"content": text}} if is_chat else {"text": text}
            choice = {"index": 0, **said, "logprobs": None, "finish_reason": reason, "token_ids": ids if has_ids else None}
            if not is_chat:
                choice |= {"prompt_token_ids": prompt_ids if is_first else None}
            if reason is not None or not is_chat:
                choice |= {"stop_reason": stop_reason}
            is_first = False
            yield {**head, "choices": [choice], **self._usage(options, prompt, done)}
        if options.get("include_usage"):
            yield {**head, "choices": [], **self._usage({"continuous_usage_stats": True}, prompt, done)}

    def _usage(self, options: Mapping[str, Any], prompt: list[int], done: int) -> dict[str, Any]:
        if not options.get("continuous_usage_stats"):
            return {}
        details = {"cached_tokens": len(prompt)}
        usage = {"prompt_tokens": len(prompt), "completion_tokens": done, "total_tokens": len(prompt) + done}
        return {"usage": {**usage, "prompt_tokens_details": details}}

    def _pieces(self, body: Mapping[str, Any], prompt: list[int]) -> Iterator[tuple[str, list[int], str | None, str | None]]:
        """Yield (text, ids, finish reason, stop reason) of each chunk."""
        said = [token for token in prompt if token not in PROMPT]
        assert prompt[: len(PROMPT)] == PROMPT
        assert said == list(range(len(said)))
        decoder, stops = Decoder(b"".join(TEXTS[token] for token in said)), body.get("stop") or []
        stops = [stops] if isinstance(stops, str) else stops
        has_stop = bool(body.get("include_stop_str_in_output"))
        held = 0 if has_stop else max((len(stop) - 1 for stop in stops), default=0)
        last = min(len(TEXTS), len(said) + body.get("max_tokens", 10**6))
        text, told, ids, reason = "", 0, [], None
        for token in range(len(said), last):
            text += decoder.next(TEXTS[token])
            ids.append(token)
            found = min(((text.find(stop) + len(stop), stop) for stop in stops if stop in text), default=None)
            if found is not None:
                reason, text = "stop", text[: found[0] if has_stop else found[0] - len(found[1])]
            elif token == last - 1:
                reason = "stop" if last == len(TEXTS) else "length"
            if reason is not None or len(ids) == self.per_chunk:
                end = len(text) if reason is not None else max(told, len(text) - held)
                yield text[told:end], ids, reason, None if found is None else found[1]
                told, ids = end, []
            if reason is not None:
                return


class Decoder:
    """Text of tokens one by one, as ``tokenizers.DecodeStream`` gives it: all that is held, or nothing while it ends in half.

    Begun after half a character it gives the whole text at once; then the prompt's own text would be said to the client.
    """

    def __init__(self, before: bytes) -> None:
        self._data = b"PROMPT" + before
        text = self._data.decode(errors="replace")
        self._told = "" if text.endswith("\ufffd") else text

    def next(self, data: bytes) -> str:
        """Return what a token adds."""
        self._data += data
        text = self._data.decode(errors="replace")
        if len(text) <= len(self._told) or text.endswith("\ufffd"):
            return ""
        new, self._told = text[len(self._told) :], text
        return new


def documents(events: bytes) -> list[dict[str, Any]]:
    """Return what a stream's events say, without comments and the end."""
    lines = [line for line in events.decode().split("\n\n") if line.startswith("data: {")]
    return [json.loads(line[6:]) for line in lines]


def text_of(events: bytes) -> str:
    """Return the text of a stream."""
    choices = [choice for document in documents(events) for choice in document.get("choices", ())]
    return "".join(choice["text"] if "text" in choice else choice["delta"].get("content", "") for choice in choices)


def finish(events: bytes) -> list[tuple[str, str | None]]:
    """Return the finish reasons, each with its stop text."""
    choices = [choice for document in documents(events) for choice in document.get("choices", ())]
    return [(choice["finish_reason"], choice.get("stop_reason")) for choice in choices if choice["finish_reason"]]
