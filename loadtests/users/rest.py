"""Requests over REST: chats, completions, embeddings, pipelines, and conversations that grow."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import gevent

from loadtests import lengths
from loadtests.exchange import Exchange
from loadtests.scenario import Entry
from loadtests.streaming import EventReader
from loadtests.users.session import Session, Task
from loadtests.wire.client import Call

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
Message = Mapping[str, str]


def chat(session: Session, entry: Entry, task: Task) -> None:
    """Ask a model one question."""
    body = {"messages": [*system(entry), {"role": "user", "content": prompt(entry, task)}]}
    generate(session, entry, task, asked=_Ask(CHAT, {**body, **options(entry, task)}))


def complete(session: Session, entry: Entry, task: Task) -> None:
    """Have a prompt completed."""
    shared = lengths.shared_prefix(entry.shared_prefix_tokens) if entry.shared_prefix_tokens else ""
    body = {"prompt": f"{shared} {prompt(entry, task)}".strip()}
    generate(session, entry, task, asked=_Ask(COMPLETIONS, {**body, **options(entry, task)}))


def ask(session: Session, entry: Entry, task: Task) -> None:
    """Ask a pipeline one question."""
    body = {"messages": [{"role": "user", "content": question(entry, task)}]}
    retrieval = {"retrieval": {"top_k": entry.top_k}} if entry.top_k is not None else {}
    generate(session, entry, task, asked=_Ask(CHAT, {**body, **retrieval, **sampling(entry, task)}))


def converse(session: Session, entry: Entry, task: Task) -> None:
    """Hold a conversation: every turn sends what was said before, and ends it when an answer fails."""
    name = f"loadtest-{task.chance.getrandbits(64):016x}"
    said: list[Message] = [*system(entry)]
    begun_with: tuple[str, str] | None = None
    for turn in range(entry.turns):
        said.append({"role": "user", "content": prompt(entry, task)})
        body = {"messages": said, **options(entry, task)}
        turned = _Ask(CHAT, body, {"x-session-id": name}, begun_with=begun_with, is_first=turn == 0)
        answer = generate(session, entry, task, asked=turned)
        if answer is None or session.is_over or turn + 1 == entry.turns:
            return
        said.append({"role": "assistant", "content": answer})
        begun_with = begun_with or turned.variant
        gevent.sleep(entry.think)
        task.intended_s = time.perf_counter()


def embed(session: Session, entry: Entry, task: Task) -> None:
    """Have texts embedded."""
    texts = [prompt(entry, task) for _ in range(entry.batch)]
    seen = Exchange(entry.label, entry.model or "", EMBEDDINGS, task.intended_s)

    def attempt(seen: Exchange, deadline_s: float) -> None:
        call = Call(EMBEDDINGS, json.dumps({"model": entry.model, "input": texts}).encode())
        try:
            session.http.run(call, deadline_s=deadline_s)
            seen.prompt_tokens = int((call.json().get("usage") or {}).get("prompt_tokens") or 0)
        finally:
            take(seen, call)

    session.exchange(seen, attempt)


class _Ask:
    """A request for text, and which variant answered it."""

    def __init__(
        self,
        path: str,
        body: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
        *,
        begun_with: tuple[str, str] | None = None,
        is_first: bool = True,
    ) -> None:
        self.path = path
        self.body = body
        self.headers = headers or {}
        self.begun_with = begun_with
        self.is_first = is_first
        self.variant: tuple[str, str] | None = None


def generate(session: Session, entry: Entry, task: Task, *, asked: _Ask) -> str | None:
    """Run a request for text. Returns the answer's text where it is needed, else nothing; None: it failed."""
    model = entry.model or ""
    keeps_text = "x-session-id" in asked.headers
    seen = Exchange(entry.label, model, asked.path, task.intended_s, is_stream=entry.stream, is_first=asked.is_first)
    streaming = {"stream": True, "stream_options": {"include_usage": True}} if entry.stream else {}
    body = json.dumps({"model": model, **asked.body, **streaming}).encode()
    text = ""

    def attempt(seen: Exchange, deadline_s: float) -> None:
        nonlocal text
        reader = EventReader(keeps_text=keeps_text) if entry.stream else None
        call = Call(asked.path, body, headers=asked.headers, reader=reader)
        try:
            session.http.run(call, deadline_s=deadline_s)
            if reader is None:
                text = _take_whole(seen, call.json())
        finally:
            take(seen, call)
        if reader is not None and keeps_text:
            text = reader.text()

    is_good = session.exchange(seen, _noting_flips(attempt, asked))
    asked.variant = seen.variant
    return text if is_good else None


def _noting_flips(attempt: Any, asked: _Ask) -> Any:
    def noted(seen: Exchange, deadline_s: float) -> None:
        try:
            attempt(seen, deadline_s)
        finally:
            seen.has_flipped = None not in (asked.begun_with, seen.variant) and seen.variant != asked.begun_with

    return noted


def take(seen: Exchange, call: Call) -> None:
    """Keep what is known of a call, however it ended."""
    seen.sent_s = call.sent_s
    if (answer := call.answer) is not None:
        seen.status = answer.status or None
        seen.ended_s = answer.ended_s or 0.0
        seen.variant = _variant(answer.headers, seen.model)
        seen.received_bytes = len(answer.body)
    if (reader := call.reader) is not None:
        seen.stamps, seen.coalesced, seen.citations = reader.stamps, reader.coalesced, reader.citations
        seen.tokens = int(reader.usage.get("completion_tokens") or len(reader.stamps))
        seen.prompt_tokens = int(reader.usage.get("prompt_tokens") or 0)


def _take_whole(seen: Exchange, document: Mapping[str, Any]) -> str:
    usage = document.get("usage") or {}
    seen.tokens = int(usage.get("completion_tokens") or 0)
    seen.prompt_tokens = int(usage.get("prompt_tokens") or 0)
    seen.citations = len(document.get("citations") or ())
    choice = (document.get("choices") or [{}])[0]
    return str((choice.get("message") or {}).get("content") or choice.get("text") or "")


def _variant(headers: Mapping[str, str], asked: str) -> tuple[str, str] | None:
    """Return what answered: of a pipeline its version, else the model's variant."""
    if version := headers.get("x-manta-pipeline-version"):
        return asked, version
    model, variant = headers.get("x-manta-model"), headers.get("x-manta-variant")
    return (model, variant) if model and variant else None


def system(entry: Entry) -> Sequence[Message]:
    """Return the system message that all requests share, if there is one."""
    if not entry.shared_prefix_tokens:
        return ()
    return ({"role": "system", "content": lengths.shared_prefix(entry.shared_prefix_tokens)},)


def prompt(entry: Entry, task: Task) -> str:
    """Return a prompt of a drawn length, or of the one that a trace gives."""
    tokens = task.prompt_tokens or lengths.draw(lengths.prompt_spread(entry.lengths), task.chance)
    return lengths.text(tokens, task.chance, is_unique=entry.unique)


def question(entry: Entry, task: Task) -> str:
    """Return what a pipeline is asked."""
    return task.chance.choice(entry.questions or lengths.questions())


def options(entry: Entry, task: Task) -> Mapping[str, Any]:
    """Return how a model is to answer, to the token where the engine takes that."""
    return {**sampling(entry, task), **({"ignore_eos": True} if entry.lengths.ignore_eos else {})}


def sampling(entry: Entry, task: Task) -> Mapping[str, Any]:
    """Return how long the answer may be, and the temperature."""
    tokens = task.output_tokens or lengths.draw(lengths.output_spread(entry.lengths), task.chance)
    return {"max_tokens": tokens, **({"temperature": entry.temperature} if entry.temperature is not None else {})}
