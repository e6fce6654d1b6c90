"""From a YAML file to a Scenario or to gates; whatever is wrong comes as one ConfigError with its line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from loadtests.gates_config import Gates
from loadtests.scenario import Scenario, ShapeKind, Target
from serve_app.config_error import ConfigError, Problem, problem_at, problems_of
from serve_app.config_files import read_text
from serve_app.config_rules import did_you_mean
from serve_app.yaml_document import MAX_CHARACTERS, YamlProblem, read_yaml

SCENARIO, URL, OUT = "MANTA_LOADTEST_SCENARIO", "MANTA_LOADTEST_URL", "MANTA_LOADTEST_OUT"  # what Locust's processes read
BUNDLED = Path(__file__).with_name("scenarios")

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class FoundScenario:
    """A scenario, and the folder that its trace is looked for in."""

    scenario: Scenario
    folder: Path


def bundled() -> tuple[str, ...]:
    """Return the names of the scenarios that come with Manta."""
    return tuple(sorted(path.stem for path in BUNDLED.glob("*.yaml")))


def load_scenario(name: str, *, url: str | None = None) -> FoundScenario:
    """Return a scenario: a bundled one by its name, else a file's. ``url`` replaces its target's.

    Raises:
        ConfigError: there is none, it is not valid, or its trace is missing.
    """
    path = _path(name)
    scenario = read_model(path, Scenario)
    if url is not None:
        scenario = scenario.model_copy(update={"target": _at(scenario.target, url)})
    _check_trace(scenario, path)
    return FoundScenario(scenario, path.parent)


def scenario_text(name: str) -> str:
    """Return a scenario as its file has it. Raises ConfigError."""
    path = _path(name)
    try:
        return read_text(path, MAX_CHARACTERS)
    except ValueError as err:
        raise ConfigError(str(path), [Problem(0, "", str(err))]) from err


def load_gates(path: Path) -> Gates:
    """Return the gates of a file. Raises ConfigError."""
    return read_model(path, Gates)


def read_model(path: Path, root: type[M]) -> M:
    """Return what a YAML file says. Raises ConfigError."""
    name = str(path)
    try:
        document = read_yaml(read_text(path, MAX_CHARACTERS))
    except YamlProblem as err:
        raise ConfigError(name, [Problem(err.line or 0, "", err.message)]) from err
    except ValueError as err:
        raise ConfigError(name, [Problem(0, "", str(err))]) from err
    problems = [problem_at(place, message, document, line=line) for place, line, message in document.problems]
    try:
        made = root.model_validate(document.data)
    except ValidationError as err:
        raise ConfigError(name, [*problems, *problems_of(err, document, root=root)]) from err
    if problems:
        raise ConfigError(name, problems)
    return made


def _path(name: str) -> Path:
    if name in bundled():
        return BUNDLED / f"{name}.yaml"
    path = Path(name)
    if not path.exists() and path.suffix not in (".yaml", ".yml"):
        hint = did_you_mean(name, bundled())
        told = f"no such scenario or file; bundled are {', '.join(bundled())}"
        raise ConfigError(name, [Problem(0, "", "; ".join(filter(None, (told, hint))))])
    return path


def _at(target: Target, url: str) -> Target:
    try:
        return Target.model_validate({**target.model_dump(), "url": url})
    except ValidationError as err:
        raise ConfigError("--url", [Problem(0, "", f"expected an address such as http://127.0.0.1:8000, got {url!r}")]) from err


def _check_trace(scenario: Scenario, path: Path) -> None:
    shape = scenario.load.shape
    if shape.kind is ShapeKind.REPLAY and not (path.parent / shape.trace).is_file():
        place = Problem(0, "load.shape.trace", f"there is no file {path.parent / shape.trace}")
        raise ConfigError(str(path), [place])
