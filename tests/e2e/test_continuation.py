"""Streams of a model with `continue_streams` whose replica is killed: their clients read what an undisturbed stream says."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.two_nodes import EnginePlatform, engine_platform

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(2400)]

QUESTIONS = (
    "What does os.getcwd do?",
    "Write a haiku about a lighthouse, with an emoji.",
    "Erkläre kurz, was ein Prozess ist.",
    "用一句话解释什么是操作系统。",
    "How is json.dumps used?",
)
# Greedy, so that the same tokens come again; without the penalty a small model says one word again and again.
RULES = {"max_tokens": 1_000, "ignore_eos": True, "temperature": 0, "repetition_penalty": 1.3, "stream": True}
MID_WAY = 10  # chunks of each stream that have come when its replica is killed


@pytest.fixture(scope="module")
def platform() -> Iterator[EnginePlatform]:
    with engine_platform({"max_model_len": 2048}, replicas=2, model={"continue_streams": True}) as made:
        yield made


@dataclass
class Stream:
    """One stream, read by a thread."""

    path: str
    question: str
    texts: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)  # of lines that carry no text: comments, errors, [DONE]
    usage: dict[str, int] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def read(self, url: str) -> None:
        body: dict[str, Any] = {"model": "chat", **RULES, "stream_options": {"include_usage": True}}
        # Prompts that begin alike would all go to one replica.
        is_chat = self.path.endswith("chat/completions")
        body |= {"messages": [{"role": "user", "content": self.question}]} if is_chat else {"prompt": self.question}
        with httpx.stream("POST", f"{url}{self.path}", json=body, timeout=900) as answer:
            if answer.status_code != 200:
                answer.read()
            assert answer.status_code == 200, answer.text
            for line in answer.iter_lines():
                self._hear(line)

    def _hear(self, line: str) -> None:
        if not line.startswith("data: {"):
            self.ends += [line] if line else []
            return
        document = json.loads(line.removeprefix("data: "))
        if "error" in document:
            self.ends.append(line)
        self.usage = document.get("usage") or self.usage
        for choice in document.get("choices", ()):
            self.texts.append(choice["text"] if "text" in choice else choice["delta"].get("content") or "")


def streams() -> list[Stream]:
    paths = ("/v1/chat/completions", "/v1/completions")
    return [Stream(path, question) for path in paths for question in QUESTIONS]


@contextlib.contextmanager
def reading(url: str) -> Iterator[list[Stream]]:
    """Read ten streams at once; at the end of the block all of them have ended."""
    made = streams()
    with ThreadPoolExecutor(len(made)) as pool:
        readers: list[Future[None]] = [pool.submit(stream.read, url) for stream in made]
        yield made
        for reader in readers:
            reader.result()


def test_streams_of_a_killed_replica_end_as_if_nothing_had_happened(
    platform: EnginePlatform, record_property: Callable[[str, object], None]
) -> None:
    with reading(platform.url) as undisturbed:
        pass
    assert {stream.ends[-1] for stream in undisturbed} == {"data: [DONE]"}
    victim = replica()  # found before: the streams last seconds, and some 4 to 6 of them are there
    with reading(platform.url) as made:
        wait_until(lambda: all(len(stream.texts) > MID_WAY for stream in made), within_s=300)
        victim.send_signal(signal.SIGKILL)
    continued = sum(": continued on another replica" in stream.ends for stream in made)
    record_property("continued", continued)
    print("streams that went on at the other replica:", continued, "of", len(made))  # noqa: T201  # the closing figures
    assert continued >= 3
    for stream, whole in zip(made, undisturbed, strict=True):
        assert stream.ends[-1] == "data: [DONE]"
        assert [line for line in stream.ends if "error" in line] == []
        assert stream.text == whole.text, (stream.path, stream.question)
        assert tokens(stream.usage) == tokens(whole.usage)


def tokens(usage: dict[str, int]) -> list[int]:
    return [usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")]


def replica() -> psutil.Process:
    """Return the process of one replica; its engine's processes die with it."""
    processes = psutil.process_iter(["cmdline"])
    return next(each for each in processes if "llm.chat.stable:LLM" in " ".join(each.info["cmdline"] or ()))


def wait_until(condition: Callable[[], bool], *, within_s: float) -> None:
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not so after {within_s} s"
        time.sleep(0.02)
