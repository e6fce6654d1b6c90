"""Transcript: the tokens of a stream as it passes, and where another replica may take it up.

It is taken up at a *seam*: a number of tokens whose text ends where a character ends, and before anything that may yet become
a stop text. Engines tell tokens and text apart from each other: text of a token that ends in half a character comes with the
next token, and the end of a text that may begin a stop text is held back. A token that is part of the new prompt is never
said again, so what a seam leaves behind must be said already. Three facts make that exact:

- A chunk of one token with any text leaves nothing unsaid but what is held back for stop texts. (Tokenizers' stream decoders
  give all that they hold or nothing. Of a chunk with several tokens the last one's text may be missing, so it makes no seam;
  neither does one without text.)
- With stop texts, what is held back has a fixed length, the longest stop text less one. So the text's length at each chunk is
  known, although not what it is. A seam lies so far back that no stop text can span it.
- Tokens after the seam are generated anew, and so is their text. What the client has of it is cut off, and compared: an
  answer that goes another way ends in an error. Where tokens are drawn by chance they do go another way, so such a stream is
  only taken up where there is nothing to cut off.

The prompt's end is the context of the decoder at the other replica, so spaces at the seam come out as in one stream.
"""

from __future__ import annotations

import json
from collections import deque
from typing import Any, NamedTuple, TypeVar

from serve_app.continuation_chunks import HEAD, Chunk, Document, chunk_of, corrected, dressed, without_ids
from serve_app.continuation_plan import Plan
from serve_app.sse import BLANK_LINE, DONE_EVENT, EventBuffer, error_event, json_event

_Said = TypeVar("_Said", str, list[int])
_OTHERWISE = "the replica that was answering has failed, and another one went on otherwise; send the request again"


class Seam(NamedTuple):
    """So many tokens of an answer, which make so many characters."""

    tokens: int
    chars: int


class Transcript:
    """What was said so far of one answer. ``read`` is called for every piece of its stream.

    Attributes:
        prompt: the prompt's tokens, once a chunk has told them.
        tokens: the answer's.
        failure: the event in which an engine says that it failed, after which nothing is read; empty while there is none.
        is_done: the stream's last event has passed.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.prompt: list[int] = []
        self.tokens: list[int] = []
        self.failure = b""
        self.is_done = False
        self._head: dict[str, Any] = {}
        self._said: list[str] = []  # what the client has, as text
        self._said_chars = 0
        self._told: list[int] = []  # the most tokens that the client had the chunks of, before the continuation
        self._seams = deque([Seam(0, 0)])  # the last one before ``_settled_chars``, and those that may become it
        self._settled_chars = 0  # no stop text can begin before
        self._engine_chars = 0  # where in the text the engine is
        self._is_lost = False  # something passed that tokens do not say
        self._is_finished = False  # the choice has its finish reason
        self._has_usage = False  # the chunk with the usage has passed
        self._joined = 0  # continuations
        self._kept_tokens = 0  # of the answer, before the continuation
        self._repeated = ""  # text that the client has and the continuation is about to say
        self._repeated_ids: list[int] = []

    def read(self, piece: bytes) -> bytes:
        """Take note of whole events, and return what the client is to get of them; that may be nothing."""
        if piece.find(BLANK_LINE) == len(piece) - len(BLANK_LINE):  # as a rule: one event
            return self._event(piece)
        events = EventBuffer()
        whole = events.feed(piece)
        rest = events.flush()
        return b"".join(map(self._event, [*whole, rest] if rest else whole))

    def seam(self) -> Seam | None:
        """Return where another replica may take the stream up; None: nowhere."""
        if self._is_lost or not self.prompt:
            return None
        seam = self._seams[0]
        return seam if self.plan.is_greedy or seam.chars == self._said_chars else None

    def join(self, seam: Seam) -> None:
        """Take note that another replica goes on from a seam: what is read from now on is its completion."""
        self._joined += 1
        self._told = max(self._told, self.tokens, key=len)
        self._repeated = "".join(self._said)[seam.chars :]
        self._repeated_ids = self._told[seam.tokens :] if self.plan.wants_ids else []
        self.tokens = self.tokens[: seam.tokens]
        self._seams = deque([seam])
        self._engine_chars, self._kept_tokens = seam.chars, seam.tokens
        self.failure = b""

    def closing(self) -> bytes | None:
        """Return the events that a finished answer lacks, or None where the answer itself is not whole."""
        if not (self._is_finished or self.is_done) or self._is_lost:
            return None
        if self.is_done:
            return b""
        if not self.plan.wants_usage or self._has_usage:
            return DONE_EVENT
        usage = corrected({}, prompt_tokens=len(self.prompt), said_tokens=len(self.tokens))
        return json_event(self._dressed({"choices": [], "usage": usage}, None)) + DONE_EVENT

    def _event(self, event: bytes) -> bytes:
        if self.failure:
            return b""
        if not event.startswith(b"data: {"):
            self.is_done = self.is_done or event.startswith(b"data: [DONE]")
            self._is_lost = self._is_lost or not (self.is_done or event.startswith(b":"))
            return event
        try:
            document = json.loads(event[6:])
        except ValueError:
            self._is_lost = True
            return event
        if "error" in document:
            return self._error(event, document)
        return self._joined_chunk(document) if self._joined else self._own_chunk(event, document)

    def _error(self, event: bytes, document: Document) -> bytes:
        code = document["error"].get("code") if isinstance(document["error"], dict) else None
        if self._is_lost or (isinstance(code, int) and code < 500):
            self._is_lost = True  # the request's own fault, which another replica would find as well
            return event
        self.failure = event
        return b""

    def _own_chunk(self, event: bytes, document: Document) -> bytes:
        """Take note of a chunk of the first stream; it passes as it is."""
        has_prompt = True
        if not self._is_lost and document.get("choices"):
            chunk = chunk_of(document, is_chat=self.plan.is_chat)
            if chunk is None:
                self._is_lost = True
            else:
                has_prompt = chunk.prompt is not None
                if chunk.prompt:
                    self.prompt = chunk.prompt
                    self._head = {name: document.get(name) for name in HEAD}
                self._note(chunk)
                self._say(chunk.text)
        elif document.get("usage"):
            self._has_usage = True
        return event if self.plan.wants_ids else without_ids(event, has_prompt=has_prompt)

    def _joined_chunk(self, document: Document) -> bytes:
        """Take note of a chunk of a continuation, and return what is new in it as a chunk of the client's stream."""
        if isinstance(usage := document.get("usage"), dict):
            prompt_tokens, said_tokens = len(self.prompt), self._kept_tokens
            document = {**document, "usage": corrected(usage, prompt_tokens=prompt_tokens, said_tokens=said_tokens)}
        if not document.get("choices"):
            self._has_usage = True
            return json_event(self._dressed(document, None))
        chunk = chunk_of(document, is_chat=False)
        new = None if chunk is None else self._new(chunk)
        if chunk is None or new is None:
            return self._diverge()
        has_news = bool(new.text) or new.is_last or len(self.tokens) + len(chunk.ids) > len(self._told)
        self._note(chunk)
        self._say(new.text)
        return json_event(self._dressed(document, new)) if has_news else b""

    def _new(self, chunk: Chunk) -> Chunk | None:
        """Return what of a chunk the client does not have; None where it has something else."""
        text, ids = _after(chunk.text, self._repeated), _after(chunk.ids, self._repeated_ids)
        if text is None or ids is None:
            return None
        self._repeated = self._repeated[len(chunk.text) :]
        self._repeated_ids = self._repeated_ids[len(chunk.ids) :]
        if chunk.is_last and self._repeated:
            return None
        return chunk._replace(text=text, ids=ids)

    def _diverge(self) -> bytes:
        self._is_lost = True
        self.failure = error_event(_OTHERWISE)
        return b""

    def _dressed(self, document: Document, said: Chunk | None) -> Document:
        return dressed(document, self._head, said=said, is_chat=self.plan.is_chat, has_ids=self.plan.wants_ids)

    def _say(self, text: str) -> None:
        if text:
            self._said.append(text)
            self._said_chars += len(text)

    def _note(self, chunk: Chunk) -> None:
        self.tokens += chunk.ids
        self._is_finished = self._is_finished or chunk.is_last
        if not chunk.text:
            return
        self._engine_chars += len(chunk.text)
        chars = self._engine_chars + self.plan.held_chars
        if len(chunk.ids) == 1:
            self._seams.append(Seam(len(self.tokens), chars))
        self._settled_chars = max(self._settled_chars, chars - self.plan.margin_chars)
        while len(self._seams) > 1 and self._seams[1].chars <= self._settled_chars:
            self._seams.popleft()


def _after(said: _Said, known: _Said) -> _Said | None:
    """Return what is said beyond what is known; None where it is something else."""
    shared = min(len(said), len(known))
    return said[shared:] if said[:shared] == known[:shared] else None
