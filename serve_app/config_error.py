"""ConfigError: everything that is wrong with a configuration, in plain words, each with its field and line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import NoneType
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from serve_app.config import DNS_LABEL, ORIGIN, PlatformConfig
from serve_app.config_auth import KEY_HASH
from serve_app.config_fields import PUBLIC_NAME
from serve_app.config_rules import FieldPath, PlacedError, did_you_mean, near_miss
from serve_app.config_tracing import ENV_NAME
from serve_app.yaml_document import YamlDocument

MOST_PROBLEMS = 50
WORDS = {
    "missing": "required, but missing",
    "string_type": "expected text, got {got}{quotes}",
    "number_type": "expected a number, got {got}",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters, got {got}",
    "int_type": "expected a whole number, got {got}",
    "int_parsing": "expected a whole number, got {got}",
    "int_from_float": "expected a whole number, got {got}",
    "float_type": "expected a number, got {got}",
    "float_parsing": "expected a number, got {got}",
    "finite_number": "expected a finite number, got {got}",
    "bool_type": "expected true or false, got {got}",
    "bool_parsing": "expected true or false, got {got}",
    "tuple_type": "expected a list of `- ` items, got {got}",
    "dict_type": "expected `field: value` lines, got {got}",
    "model_type": "expected `field: value` lines, got {got}",
    "greater_than_equal": "must be at least {ge}, got {got}",
    "greater_than": "must be more than {gt}, got {got}",
    "less_than_equal": "must be at most {le}, got {got}",
    "too_short": "must not be empty",
    "timezone_aware": "needs a time zone, such as 2030-01-31T00:00:00Z, got {got}",
    "datetime_type": "expected a time such as 2030-01-31T00:00:00Z, got {got}",
    "datetime_parsing": "expected a time such as 2030-01-31T00:00:00Z, got {got}",
    "datetime_from_date_parsing": "expected a time such as 2030-01-31T00:00:00Z, got {got}",
}
PATTERNS = {
    ORIGIN: "expected an origin such as https://app.example.org, without a path or a wildcard, or `*` for all, got {got}",
    DNS_LABEL: "use lower-case letters, digits and inner `-`, got {got}",
    PUBLIC_NAME: "use lower-case letters, digits and inner `-`, or MODEL:ADAPTER, got {got}",
    # Nor is the value here: headers that were meant for the variable hold a secret.
    ENV_NAME: "expected the name of an environment variable, such as OTLP_HEADERS; the headers go into that variable",
    # A key pasted here by mistake must not reach a log, so the value is not repeated.
    KEY_HASH: "expected `sha256:<salt>:<digest>` as `manta keys create NAME` prints it",
}


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing to fix; ``line`` is 0 when it is about the whole file, ``field`` is empty at the top level."""

    line: int
    field: str
    message: str


class ConfigError(ValueError):
    """A configuration that cannot be used. Its text has one ``name:line: field: message`` line per problem.

    Attributes:
        problems: what to fix, in the order of the lines, without repetitions.
    """

    def __init__(self, name: str, problems: Iterable[Problem]) -> None:
        self.name = name
        self.problems = tuple(sorted(set(problems)))
        shown = [self._text(problem) for problem in self.problems[:MOST_PROBLEMS]]
        if (more := len(self.problems) - len(shown)) > 0:
            shown.append(f"{name}: {more} more")
        super().__init__("\n".join(shown))

    def _text(self, problem: Problem) -> str:
        place = f"{self.name}:{problem.line}" if problem.line else self.name
        return ": ".join(filter(None, (place, problem.field, problem.message)))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, tuple[Problem, ...]]]:
        return type(self), (self.name, self.problems)  # args hold the text only


def field_name(path: FieldPath) -> str:
    """Return a path as users write it: ``models[0].variants[1].weight``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def problem_at(path: FieldPath, message: str, document: YamlDocument | None, *, line: int | None = None) -> Problem:
    """Return a problem with its line, else that of the nearest field around the path that the document writes."""
    return Problem(line or (document.line_of(path) if document else 0), field_name(path), message)


def problems_of(error: ValidationError, document: YamlDocument, *, root: type[BaseModel] = PlatformConfig) -> Iterator[Problem]:
    """Translate what pydantic found in a document of ``root``: plain words, near misses and lines."""
    for detail in error.errors(include_url=False):
        path: FieldPath = detail["loc"]
        if detail["type"] == "extra_forbidden":
            yield Problem(document.line_of(path), field_name(path[:-1]), _unknown_field(path, root))
        elif isinstance(cause := detail.get("ctx", {}).get("error"), PlacedError):
            yield from (problem_at((*path, *rest), message, document) for rest, message in cause.problems)
        # A list whose items all failed counts as too short for pydantic: those items are reported already.
        elif detail["type"] != "too_short" or not detail["input"]:
            yield problem_at(path, message_of(detail, document.raw.get(path)), document)


def message_of(detail: ErrorDetails, raw: str | None = None) -> str:
    """Return what pydantic found in plain words; ``raw`` is the value as the document spells it."""
    context = detail.get("ctx", {})
    got = _describe(detail["input"], raw)
    match detail["type"]:
        case "value_error":
            return str(context["error"])
        case "literal_error":
            return _not_allowed(got, str(detail["input"]), context["expected"])
        case "string_pattern_mismatch":
            words = PATTERNS.get(context["pattern"], "expected one word such as L40S, got {got}")
        case kind:
            words = WORDS.get(kind, detail["msg"].replace("{", "{{").replace("}", "}}"))
    quotes = "; put quotes around it" if isinstance(detail["input"], bool | int | float) else ""
    # Pydantic keeps the bound of a number as 0.0 where the field says 0.
    bounds = {name: f"{bound:g}" if isinstance(bound, float) else bound for name, bound in context.items()}
    return words.format(got=got, quotes=quotes, **bounds)


def _describe(value: object, raw: str | None) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            # YAML 1.1 has eleven spellings of each; the one in the file is what its writer will look for.
            return f"`{raw}`, which YAML reads as {str(value).lower()}" if raw else str(value).lower()
        case dict():
            return "`field: value` lines"
        case list():
            return "a list"
        case str():
            return repr(value if len(value) <= 60 else f"{value[:57]}...")
    return raw or str(value)


def _not_allowed(got: str, word: str, expected: str) -> str:
    """``expected`` is pydantic's list: ``'vllm' or 'simulated'``."""
    allowed = [choice.strip("' ") for choice in expected.replace(" or ", ", ").split(",")]
    words = [choice for choice in allowed if not choice.isdigit()]  # of numbers, one that looks alike is not near
    return " ".join(filter(None, (f"{got} is not one of {', '.join(allowed)};", did_you_mean(word, words)))).rstrip(";")


def _unknown_field(path: FieldPath, root: type[BaseModel]) -> str:
    name = str(path[-1])
    section = section_at(path[:-1], root=root)
    fields = section.model_fields if section else {}
    for field, info in fields.items():
        child = section_of(info.annotation)
        if child and name in child.model_fields and name not in fields:
            return f"unknown field `{name}` here, did you mean `{field}.{name}`?"
    return f"unknown field `{name}`, {near_miss(name, fields, listed_as='allowed')}"


def section_at(path: FieldPath, *, root: type[BaseModel] = PlatformConfig) -> type[BaseModel] | None:
    """Return the model that describes the fields below a path of the document."""
    section: type[BaseModel] | None = root
    for part in path:
        if isinstance(part, str) and section is not None:
            section = section_of(section.model_fields[part].annotation) if part in section.model_fields else None
    return section


def section_of(annotation: object) -> type[BaseModel] | None:
    """Return the model inside an annotation such as ``tuple[Model, ...]`` or ``Model | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (section_of(arg) for arg in get_args(annotation) if arg not in (NoneType, Ellipsis))
    return next((model for model in inner if model), None)
