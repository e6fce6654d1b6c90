"""A client's checks: named functions, each of which prints one JSON line when the program runs."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TypeVar

Check = Callable[[], str]
E = TypeVar("E", bound=BaseException)

# The form that the demo model learned, so that its answers are a sentence and end by themselves.
PROMPT = (
    "Source 1: os.getcwd\n[1] Return a string representing the current working directory.\n\nQuestion: What does os.getcwd do?"
)
TRIES = 8  # more requests than the limited key has in a minute
QUESTION = "What does os.getcwd do?"
ABOUT = "docs/os.getcwd.md"  # the document that answers it


@dataclass(frozen=True)
class Place:
    """Where the platform under test is, and the keys to it."""

    url: str
    grpc: str
    key: str
    admin_key: str
    other_key: str  # of another tenant
    limited_key: str  # few requests a minute
    expired_key: str
    embedding_key: str  # may use the embedder only

    @property
    def v1(self) -> str:
        """The base URL that OpenAI's clients want."""
        return f"{self.url}/v1"

    def environment(self) -> dict[str, str]:
        """Return what tells a program where the platform is."""
        return {variable_of(name): value for name, value in vars(self).items()}


def place() -> Place:
    """Return the platform that the environment names."""
    return Place(**{field.name: os.environ[variable_of(field.name)] for field in fields(Place)})


def variable_of(name: str) -> str:
    """Return the environment's variable for a field of Place."""
    return f"MATRIX_{name.upper()}"


def error_of(kind: type[E], call: Callable[[], object], *, tries: int = 1) -> E:
    """Return the error of this kind that a call raises, at the last try at the latest. Raises AssertionError: none."""
    for _ in range(tries):
        try:
            call()
        except kind as err:
            return err
    raise AssertionError(f"no {kind.__name__}")


class Checks:
    """The checks of one client."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}

    def __call__(self, name: str) -> Callable[[Check], Check]:
        """Return a decorator that adds a check; what the check returns is shown beside its name."""

        def add(check: Check) -> Check:
            assert name not in self._checks, name
            self._checks[name] = check
            return check

        return add

    def run(self) -> None:
        """Run the checks named on the command line, or all."""
        for name in sys.argv[1:] or self._checks:
            started_s = time.monotonic()
            try:
                detail, is_ok = self._checks[name](), True
            except Exception:  # whatever a client raises is what the check has found
                detail, is_ok = traceback.format_exc(limit=-4), False
            line = {"check": name, "ok": is_ok, "detail": detail, "seconds": round(time.monotonic() - started_s, 2)}
            print(json.dumps(line), flush=True)  # noqa: T201 - what the program is for
