"""From a YAML text or file to a PlatformConfig; whatever is wrong comes as one ConfigError."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from serve_app.config import PlatformConfig
from serve_app.config_error import ConfigError, Problem, problem_at, problems_of
from serve_app.config_files import FileResolver, read_text
from serve_app.config_rules import did_you_mean
from serve_app.yaml_document import MAX_CHARACTERS, YamlDocument, YamlProblem, read_yaml


def load_platform(path: Path, *, check_files: bool = True) -> PlatformConfig:
    """Return the configuration of a file, self-contained: prompts are read in, and relative paths are absolute.

    Args:
        path: a YAML file; what is relative in it is relative to its folder.
        check_files: False accepts model folders and prompt files that this machine does not have.

    Raises:
        ConfigError: the file cannot be read, is no valid configuration, or names files that do not exist.
    """
    name = str(path)
    try:
        text = read_text(path, MAX_CHARACTERS)
    except ValueError as err:
        raise ConfigError(name, [Problem(0, "", f"{err}{_sibling(path)}")]) from err
    config, document = _parse(text, name)
    return _resolve(config, FileResolver(path.parent, check_files), name=name, document=document)


def parse_platform(text: str, *, name: str) -> PlatformConfig:
    """Return the configuration in a text; ``name`` stands for it in errors. Reads no other file.

    Raises:
        ConfigError: no valid configuration.
    """
    return _parse(text, name)[0]


def resolve(config: PlatformConfig, root: Path, *, check_files: bool = True) -> PlatformConfig:
    """Return the configuration with its prompts read in and its relative paths made absolute from ``root``.

    Without the text there are no lines to name: errors carry the field only. Resolving twice changes nothing.

    Raises:
        ConfigError: a missing model folder or prompt file (unless ``check_files`` is False), or an invalid prompt.
    """
    return _resolve(config, FileResolver(root, check_files), name="configuration", document=None)


def _parse(text: str, name: str) -> tuple[PlatformConfig, YamlDocument]:
    try:
        document = read_yaml(text)
    except YamlProblem as err:
        raise ConfigError(name, [Problem(err.line or 0, "", err.message)]) from err
    problems = [problem_at(path, message, document, line=line) for path, line, message in document.problems]
    try:
        config = PlatformConfig.model_validate(document.data)
    except ValidationError as err:
        raise ConfigError(name, [*problems, *problems_of(err, document)]) from err
    if problems:
        raise ConfigError(name, problems)
    return config, document


def _resolve(config: PlatformConfig, resolver: FileResolver, *, name: str, document: YamlDocument | None) -> PlatformConfig:
    resolved = resolver.resolve(config)
    if resolver.problems:
        raise ConfigError(name, [problem_at(path, message, document) for path, message in resolver.problems])
    return resolved


def _sibling(path: Path) -> str:
    """Return a suggestion when a file next to the missing one has nearly its name."""
    if path.exists() or not path.parent.is_dir():
        return ""
    hint = did_you_mean(path.name, sorted(file.name for file in path.parent.glob("*.y*ml")))
    return hint and f", {hint}"
