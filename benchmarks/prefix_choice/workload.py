"""Requests that share long prefixes, as questions about a few documents do."""

from __future__ import annotations

import json
import pydoc_data.topics
import random
from collections.abc import Iterator
from pathlib import Path

QUESTIONS = ("What does it say?", "Which word matters most?", "Is there an exception?", "What comes first?")


def documents(count: int, chars: int, *, seed: int) -> list[str]:
    """Return so many texts of this length (characters), no two alike in their first words; real prose, so real tokens."""
    prose = " ".join(" ".join(text.split()) for text in pydoc_data.topics.topics.values())
    draw = random.Random(seed)  # noqa: S311
    starts = [draw.randrange(len(prose) - chars) for _ in range(count)]
    return [f"Document {seed}-{i}: {prose[start : start + chars]}" for i, start in enumerate(starts)]


def bodies(texts: list[str], *, model: str, requests: int, tokens: int, seed: int) -> Iterator[str]:
    """Yield request bodies as JSON lines: a random document as the system message, and a question of one's own."""
    draw = random.Random(seed)  # noqa: S311
    for number in range(requests):
        question = f"{draw.choice(QUESTIONS)} ({number})"
        messages = [{"role": "system", "content": draw.choice(texts)}, {"role": "user", "content": question}]
        yield json.dumps(
            {"model": model, "messages": messages, "max_tokens": tokens, "stream": True, "temperature": 0, "ignore_eos": True}
        )


def write(path: Path, lines: Iterator[str]) -> Path:
    """Write the lines to a file and return its path."""
    path.write_text("\n".join(lines) + "\n")
    return path
