"""Lengths: how long prompts and answers are, and text of a length, made from bundled text."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from loadtests.scenario_lengths import Lengths, Spread

# English text has about so many characters for a token of a large vocabulary. What a prompt really had is in the report.
CHARS_PER_TOKEN = 4.4
TEXTS = Path(__file__).with_name("texts")

# Like ShareGPT: most questions are short, some paste pages. Like RAG: a question under passages. The Azure ones are those of
# `autoscaling.simulation.trace`.
PRESETS: Mapping[str, tuple[Spread, Spread]] = {
    "sharegpt": (Spread(median=75.0, mean=220.0, most=2048), Spread(median=140.0, mean=200.0, most=1024)),
    "rag": (Spread(median=1800.0, mean=2100.0, most=6000), Spread(median=120.0, mean=170.0, most=768)),
    "azure-conversation": (Spread(median=968.0, mean=1150.0, most=4096), Spread(median=135.0, mean=210.0, most=1024)),
    "azure-code": (Spread(median=1469.0, mean=2050.0, most=8192), Spread(median=13.0, mean=28.0, most=512)),
}


def prompt_spread(lengths: Lengths) -> Spread:
    """Return how long prompts are."""
    return lengths.prompt or PRESETS[lengths.preset][0]


def output_spread(lengths: Lengths) -> Spread:
    """Return how long answers are."""
    return lengths.output or PRESETS[lengths.preset][1]


def draw(spread: Spread, chance: random.Random) -> int:
    """Return a number of tokens."""
    if spread.tokens is not None:
        return spread.tokens
    sigma = math.sqrt(2 * math.log(spread.mean / spread.median))
    return min(spread.most, max(1, round(spread.median * math.exp(sigma * chance.gauss(0.0, 1.0)))))


def text(tokens: int, chance: random.Random, *, is_unique: bool) -> str:
    """Return about so many tokens of English, the same for the same chance.

    A unique text begins with a number of its own, so that no cache of prefixes knows it.
    """
    mark = f"Note {chance.getrandbits(40):x}. " if is_unique else ""
    length = max(1, round(tokens * CHARS_PER_TOKEN) - len(mark))
    return mark + _from_sentence(chance.randrange(len(sentences())), length)


def shared_prefix(tokens: int) -> str:
    """Return the same text for everyone."""
    return _from_sentence(0, round(tokens * CHARS_PER_TOKEN))


def _from_sentence(first: int, length: int) -> str:
    book = sentences()
    parts: list[str] = []
    left, number = length, first
    while left > 0:
        parts.append(book[number % len(book)])
        left -= len(parts[-1]) + 1
        number += 1
    return " ".join(parts)[:length].rstrip() or "a"


@cache
def sentences() -> Sequence[str]:
    """Return the bundled text by sentences."""
    prose = (TEXTS / "prose.txt").read_text(encoding="utf-8")
    return tuple(re.split(r"(?<=[.!?]) ", " ".join(prose.split())))


@cache
def questions() -> Sequence[str]:
    """Return the bundled questions, which the documents of the demo answer."""
    return tuple(line for line in (TEXTS / "questions.txt").read_text(encoding="utf-8").splitlines() if line)
