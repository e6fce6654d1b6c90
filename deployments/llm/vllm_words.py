"""What vLLM says of a value that it refuses, short enough to stand beside a field's name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

MOST_CHARACTERS = 1_200
ENOUGH_CHARACTERS = 80
_PREFIX = re.compile(r"^(argument \S+: |Value error, |Assertion failed, |Error: )+")
_COUNT = re.compile(r"^\d+ validation errors? for \w+$")
_DETAILS = re.compile(r" \[type=\w+, input_value=.*$")
_ADDRESS = re.compile(r"(?: object)? at 0x[0-9a-f]+")
_ADVERTISED = ("For further information visit", "Traceback (most recent call last)")
_SENTENCE_END = re.compile(r"(?<=[.!?]) (?=[A-Z`'])")
_ALLOWED = ("Must be", "Valid", "Available", "Supported", "Choose", "Please", "Install")
_CHOICE = re.compile(r"^invalid choice: (.+) \(choose from (.+)\)$")
_KIND = re.compile(r"^invalid (\w+) value: (.+)$")
_KINDS = {"int": "a whole number", "human_readable_int": "a whole number", "float": "a number"}


def plain(text: str) -> str:
    """Return vLLM's own words on one line: without prefixes, addresses, links, and what pydantic adds to a message."""
    lines = [line.strip() for line in text.strip().splitlines()]
    lines = [line for line in lines if line and not line.startswith(_ADVERTISED)]
    if lines and _COUNT.match(_PREFIX.sub("", lines[0])):
        return "; ".join(f"{field}: {said}" if field else said for field, said in _listed(lines[1:]))
    said = " ".join(_DETAILS.sub("", line) for line in lines)
    return _parser_words(_PREFIX.sub("", _ADDRESS.sub("", said)))


def _listed(lines: Sequence[str]) -> list[tuple[str, str]]:
    """Return (field, message) of pydantic's text, where a field's line comes before its message, or is missing."""
    found: list[tuple[str, str]] = []
    field = ""
    for line in lines:
        if _DETAILS.search(line):
            found.append((field, plain_message(_DETAILS.sub("", line))))
            field = ""
        else:
            field = f"{field} {line}".strip()
    return found or [("", " ".join(lines))]


def _parser_words(said: str) -> str:
    """Return what the parser of a command line says as this project says it."""
    if choice := _CHOICE.match(said):
        allowed = choice[2].replace("'", "").removesuffix(", None")  # Python 3.12 quotes none of them
        return f"{choice[1]} is not one of {allowed}"
    if kind := _KIND.match(said):
        return f"expected {_KINDS.get(kind[1], kind[1])}, got {kind[2]}"
    return said


def plain_message(message: str) -> str:
    """Return one of pydantic's messages in this project's words."""
    message = _PREFIX.sub("", _ADDRESS.sub("", message)).strip()
    if message == "Unexpected keyword argument":
        return "unknown field"
    return message.replace("Input should be", "must be", 1) if message.startswith("Input should be") else message


def first_sentence(text: str) -> str:
    """Return the first sentence, without its full stop."""
    return cut(_SENTENCE_END.split(text)[0]).rstrip(".")


def short(text: str) -> str:
    """Return the sentences that say what is wrong and what is allowed, without the advice around them."""
    sentences = _SENTENCE_END.split(text)
    kept = sentences[:1]
    for sentence in sentences[1:]:
        if len(" ".join(kept)) >= ENOUGH_CHARACTERS and not sentence.startswith(_ALLOWED):
            break
        kept.append(sentence)
    return cut(" ".join(kept)).rstrip(".")


def cut(text: str) -> str:
    """Return a text without the end that nobody reads."""
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 3]}..."


def pydantic_problems(error: Any) -> list[tuple[tuple[str, ...], str, object]]:
    """Return (path of the field, message, value) of each problem that a pydantic ValidationError lists."""
    return [
        (tuple(map(str, detail["loc"])), plain_message(plain(detail["msg"])), detail.get("input"))
        for detail in error.errors(include_url=False, include_context=False)
    ]
