"""Tokens of the simulated engine: what a prompt is as token ids, and which word follows a list of them.

It is greedy: the word at a position depends on the prompt and on the position only. So a request whose prompt is another
one's prompt and the tokens generated so far goes on with the very next word, on whichever replica.
"""

from __future__ import annotations

import itertools
import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

NOTICE = ("simulated", "answer", "with", "no", "model", "behind", "it")
FILLER = (
    *("amber", "anchor", "apple", "arrow", "autumn", "basket", "beacon", "birch", "bridge", "bright", "candle", "canyon"),
    *("cedar", "chalk", "cloud", "clover", "copper", "coral", "cotton", "delta", "desert", "dune", "eagle", "ember"),
    *("falcon", "feather", "fern", "field", "flint", "forest", "garden", "glacier", "granite", "harbor", "hazel", "heron"),
    *("island", "ivory", "jade", "juniper", "kernel", "lagoon", "lantern", "lemon", "linen", "maple", "marble", "meadow"),
    *("mirror", "moss", "north", "oak", "ocean", "olive", "orchid", "paper", "pebble", "pine", "prairie", "quartz"),
    *("raven", "river", "saffron", "silver"),
)
_VOCABULARY = (*NOTICE, *FILLER)
_FIRST_ID = 1  # of the vocabulary; id 0 is the name of a request's adapter
_ADAPTER_ID = 0
_PIECE_BYTES = 4
_LARGEST_ID = 2**32 - 1


class BadPrompt(ValueError):
    """The field ``prompt`` holds token ids that are none."""


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token."""

    id: int
    text: str


def prompt_ids(body: dict[str, Any]) -> list[int]:
    """Return the prompt of a request as token ids: as they are when ``prompt`` gives ids, else one for four bytes of its text.

    Raises:
        BadPrompt: an id is no integer of 32 bits.
    """
    prompt = body.get("messages") or body.get("prompt") or ""
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], int):
        return _checked(prompt)
    # Printable ASCII, so no piece of it is as small as an id of the vocabulary.
    text = json.dumps(prompt).encode()
    text += b" " * (-len(text) % _PIECE_BYTES)
    return list(struct.unpack(f"<{len(text) // _PIECE_BYTES}I", text))


def generate(prompt: Sequence[int], *, adapter: str | None = None) -> Iterator[Token]:
    """Yield the tokens that follow a prompt, without end. Generated ones at its end count as said already.

    ``adapter``: what an adapter's answers begin with.
    """
    said = sum(1 for _ in itertools.takewhile(_is_generated, reversed(prompt)))
    asked = prompt[: len(prompt) - said]
    seed = zlib.crc32(struct.pack(f"<{len(asked)}I", *asked))
    for position in itertools.count(said):
        yield _token(seed, position, adapter)


def _token(seed: int, position: int, adapter: str | None) -> Token:
    if adapter is not None:
        if position == 0:
            return Token(_ADAPTER_ID, f"{adapter} ")
        position -= 1
    filler = zlib.crc32(struct.pack("<IQ", seed, position)) % len(FILLER)
    index = position if position < len(NOTICE) else len(NOTICE) + filler
    return Token(_FIRST_ID + index, f"{_VOCABULARY[index]} ")


def _is_generated(token_id: int) -> bool:
    return token_id < _FIRST_ID + len(_VOCABULARY)


def _checked(ids: list[Any]) -> list[int]:
    for place, token_id in enumerate(ids):
        if not isinstance(token_id, int) or isinstance(token_id, bool) or not 0 <= token_id <= _LARGEST_ID:
            raise BadPrompt(f"prompt[{place}] must be a token id (an integer from 0 to {_LARGEST_ID}), got {token_id!r}")
    return ids
