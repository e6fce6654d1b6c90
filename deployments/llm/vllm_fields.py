"""Which field of an engine's configuration vLLM complains about: its errors name it in many ways, or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import JsonValue

from deployments.llm.vllm_args import field_of
from deployments.llm.vllm_words import first_sentence, plain, pydantic_problems, short
from serve_app.config import EngineConfig

Path = tuple[str, ...]  # relative to the variant
Problem = tuple[Path, str]
# What vLLM's configuration calls an argument in another way than its command line does.
OTHER_NAMES = {"cache_dtype": "kv_cache_dtype", "target_modules": "lora_target_modules", "policy": "scheduling_policy"}
ALWAYS_SET = {"model", "served_model_name", "speculative_config"}
LEAST_CHARACTERS = 3  # a shorter value stands in too many sentences by chance
# Where vLLM's words are right but do not help: how they start, and what to add.
ADVICE = {
    "Cannot find the config file for": "the model's weights are not quantized so; leave this out, or name a model whose are",
    "Unsupported speculative method": "the model and the draft model are not made for it",
}
TELLING = (ValueError, TypeError, KeyError, ImportError, NotImplementedError, OSError, RuntimeError, AssertionError)


def path_of(name: str) -> Path:
    """Return the path of an argument's field."""
    return ("source",) if name == "model" else ("engine", *field_of(name).split("."))


class FieldFinder:
    """Turns errors of vLLM's into fields and words. A field that the configuration does not set is not to blame."""

    def __init__(self, engine: EngineConfig, arguments: Mapping[str, JsonValue]) -> None:
        self._engine = engine
        self._speculative = engine.speculative
        self._arguments = arguments
        set_here = engine.model_fields_set | set(engine.engine_args)
        chosen = (name for name in arguments if name in set_here or field_of(name).split(".")[0] in set_here)
        self._chosen = [name for name in chosen if name not in ALWAYS_SET]

    def problems(self, error: Exception) -> list[Problem]:
        """Return what an error is about, each problem with its field."""
        title = getattr(error, "title", None)
        if title is None or not hasattr(error, "errors"):
            return [self._told(_said(error))]
        found = []
        for place, message, value in pydantic_problems(error):
            if (path := self._at(title, place)) is None:
                found.append(self._told(message))
            else:
                got = f", got {value!r}" if isinstance(value, str | int | float) and "got" not in message else ""
                found.append((path, f"{short(message)}{got}"))
        return found

    def _at(self, title: str, place: Path) -> Path | None:
        """Return the field that a place in a class of vLLM's stands for, if it is set."""
        if not place:
            return None
        if title == "SpeculativeConfig" and self._speculative is not None:
            options = () if place[0] in type(self._speculative).model_fields else ("options",)
            return ("engine", "speculative", *options, *place)
        name = OTHER_NAMES.get(place[0], place[0])
        return path_of(name) if name in self._chosen else None

    def _told(self, text: str) -> Problem:
        """Find the field that a sentence names first, else the one whose value it repeats."""
        if text.startswith("Model architectures"):
            return ("source",), first_sentence(text)  # the next one lists hundreds
        advice = next((f": {added}" for start, added in ADVICE.items() if text.startswith(start)), "")
        words = f"{short(text)}{advice}"
        named = [(match.start(), path) for path, name in self._names() if (match := name.search(text))]
        if named:
            return min(named)[1], words
        repeated = (path for path, value in self._values() if _quoted(value).search(text))
        return next(repeated, ("engine",)), words

    def _names(self) -> Iterator[tuple[Path, re.Pattern[str]]]:
        for name in self._chosen:
            yield path_of(name), _spelled(name)
        if self._speculative is None:
            return
        # A name that both have is taken for the engine's, unless the engine does not set it.
        for field in self._speculative.model_fields_set - {"model", "options", *self._chosen}:
            yield ("engine", "speculative", field), _spelled("speculative method" if field == "method" else field)
        for field in self._speculative.options:
            yield ("engine", "speculative", "options", field), _spelled(field)

    def _values(self) -> Iterator[tuple[Path, str]]:
        for name in self._chosen:
            for text in _texts(self._arguments[name]):
                yield path_of(name), text
        for field in ("model", "method"):
            if said := getattr(self._speculative, field, None):
                yield ("engine", "speculative", field), str(said)
        yield ("source",), str(self._arguments["model"])


def _texts(value: JsonValue) -> Iterator[str]:
    """Yield the texts in a value that are long enough to be told apart."""
    if isinstance(value, str) and len(value) >= LEAST_CHARACTERS:
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _said(error: Exception) -> str:
    # A KeyError's text is the repr of its message.
    text = plain(str(error.args[0] if isinstance(error, KeyError) and error.args else error))
    if text and isinstance(error, TELLING):
        return text
    return f"{type(error).__name__}: {text}".removesuffix(": ")


def _spelled(name: str) -> re.Pattern[str]:
    """Return a pattern of a name as vLLM's sentences write it: `max_loras`, `--max-loras`, "max loras", "Sleep mode"."""
    prefix, _, rest = name.partition("_")
    words = rf"(?:{prefix}_)?{rest}" if prefix in ("enable", "disable") and "_" in rest else name
    return re.compile(rf"(?<![a-z_]){re.sub('[ _]', '[-_ ]', words)}(?![a-z_])", re.IGNORECASE)


def _quoted(value: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w/]){re.escape(value)}(?![\w/])", re.IGNORECASE)


def dump(problems: list[Problem]) -> list[dict[str, Any]]:
    """Return problems as JSON takes them, each once."""
    return [{"field": list(path), "message": message} for path, message in dict.fromkeys(problems)]
