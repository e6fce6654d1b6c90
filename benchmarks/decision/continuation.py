"""What `continue_streams` costs a Router for each chunk: to read it, to keep its tokens, to take the ids out again.

    python -m benchmarks.decision.continuation

CPU time of the thread, median over the rounds; without the option a chunk is not looked at.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from serve_app.continuation_plan import CHAT, plan_of
from serve_app.continuation_transcript import Transcript

ROUNDS = 31
CHUNKS = 2000
PROMPT_TOKENS = 500
BODY: dict[str, Any] = {"model": "chat", "stream": True, "temperature": 0, "messages": [{"role": "user", "content": "Hello"}]}
HEAD = {"id": f"chatcmpl-{'6f0c3a5e' * 4}", "object": "chat.completion.chunk", "created": 1_795_759_307, "model": "chat"}


def event(delta: dict[str, Any], *, ids: list[int] | None = None, **more: Any) -> bytes:
    """Return a chunk of a chat, as vLLM writes it."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, "token_ids": ids}
    text = json.dumps({**HEAD, "choices": [choice], **more}, separators=(",", ":"))
    return f"data: {text}\n\n".encode()


def per_chunk_us(events: Sequence[bytes]) -> float:
    """Return microseconds for each of the events of one stream."""
    plan = plan_of(CHAT, BODY)
    assert plan is not None  # noqa: S101  (the body above is one that may go on)
    transcript = Transcript(plan)
    transcript.read(event({"role": "assistant", "content": ""}, prompt_token_ids=list(range(PROMPT_TOKENS))))
    began_s = time.thread_time()
    for each in events:
        transcript.read(each)
    return (time.thread_time() - began_s) / len(events) * 1e6


def main() -> int:
    """Write the figures; return the exit code."""
    events = [event({"content": " word"}, ids=[1000 + i]) for i in range(CHUNKS)]
    parse = []
    for _ in range(ROUNDS):
        began_s = time.thread_time()
        for each in events:
            json.loads(each[6:])
        parse.append((time.thread_time() - began_s) / CHUNKS * 1e6)
    read = [per_chunk_us(events) for _ in range(ROUNDS)]
    sys.stdout.write(f"a chunk of {len(events[0])} bytes: {median(read):.1f} µs, of which JSON takes {median(parse):.1f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
