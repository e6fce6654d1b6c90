"""KeyFile: API keys in a YAML file or a mounted Secret, followed while the platform runs."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, model_validator

from serve_app.config_auth import ApiKeyConfig
from serve_app.config_error import ConfigError, Problem, problem_at, problems_of
from serve_app.config_fields import Config
from serve_app.config_files import read_text
from serve_app.config_rules import refuse, repeated
from serve_app.yaml_document import MAX_CHARACTERS, YamlProblem, read_yaml

logger = logging.getLogger("ray.serve")


class KeyFileDocument(Config):
    """What a file of keys holds."""

    keys: tuple[ApiKeyConfig, ...] = Field(description="Accepted keys; an empty list lets nobody in.")

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        refuse(repeated("key names", ((("keys", i, "name"), key.name) for i, key in enumerate(self.keys))))
        return self


def parse_keys(text: str, *, name: str) -> tuple[ApiKeyConfig, ...]:
    """Return the keys in a text; ``name`` stands for it in errors.

    Raises:
        ConfigError: no valid list of keys; each problem carries its line, record and field.
    """
    try:
        document = read_yaml(text)
    except YamlProblem as err:
        raise ConfigError(name, [Problem(err.line or 0, "", err.message)]) from err
    problems = [problem_at(path, message, document, line=line) for path, line, message in document.problems]
    try:
        keys = KeyFileDocument.model_validate(document.data).keys
    except ValidationError as err:
        raise ConfigError(name, [*problems, *problems_of(err, document, root=KeyFileDocument)]) from err
    if problems:
        raise ConfigError(name, problems)
    return keys


def read_keys(path: Path) -> tuple[ApiKeyConfig, ...]:
    """Return the keys in a file. Raises ConfigError: it cannot be read, or is no valid list of keys."""
    return parse_keys(_text_of(path), name=str(path))


def _text_of(path: Path) -> str:
    try:
        return read_text(path, MAX_CHARACTERS)
    except ValueError as err:
        raise ConfigError(str(path), [Problem(0, "", str(err))]) from err


class KeyFile:
    """The keys of a file that may change at any time; a bad version leaves the last good one in force.

    Raises:
        ConfigError: the file is missing or bad at the start. An absent list never means an open door.

    Attributes:
        keys: the keys in force.
    """

    def __init__(self, path: Path, *, taken: Iterable[str] = ()) -> None:
        self.path = path
        self._taken = frozenset(taken)  # names of keys that the configuration itself holds
        text = _text_of(path)
        self.keys = self._parse(text)
        self._digest = _digest(text)
        self._problem = ""

    def poll(self) -> bool:
        """Read the file again if its content has changed; whether other keys are in force now.

        Compared by content: Kubernetes swaps a Secret's files by renaming a link, and a copied file may keep its time.
        """
        try:
            text = _text_of(self.path)
            if (digest := _digest(text)) == self._digest:
                self._problem = ""
                return False
            keys = self._parse(text)
        except ConfigError as err:
            if str(err) != self._problem:
                logger.error("the keys read before stay in force, because the file of keys cannot be used: %s", err)  # noqa: TRY400
            self._problem = str(err)
            return False
        self._digest, self._problem = digest, ""
        is_news, self.keys = keys != self.keys, keys
        return is_news

    def _parse(self, text: str) -> tuple[ApiKeyConfig, ...]:
        keys = parse_keys(text, name=str(self.path))
        clashes = [
            Problem(0, f"keys[{i}].name", f"{key.name!r} is in `auth.keys` too")
            for i, key in enumerate(keys)
            if key.name in self._taken
        ]
        if clashes:
            raise ConfigError(str(self.path), clashes)
        return keys


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
