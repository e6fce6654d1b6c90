"""Lets vLLM check the engines of a configuration, in a process of its own that starts no engine."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from serve_app.config import PlatformConfig, VariantConfig
from serve_app.config_rules import FieldPath

COMMAND = (sys.executable, "-m", "deployments.llm.check_engine")
TIMEOUT_S = 600.0  # importing vllm alone takes a minute or two on a slow machine
Places = tuple[FieldPath, ...]


class CheckFailedError(Exception):
    """The engines could not be checked; the text says why."""


@dataclass(frozen=True)
class Report:
    """What vLLM says of all engines.

    Attributes:
        version: of the vLLM that was asked.
        problems: (path of the field, what is wrong), of every variant.
        unchecked: (paths of variants, what could not be checked of them here), each reason once.
    """

    version: str
    problems: tuple[tuple[FieldPath, str], ...]
    unchecked: tuple[tuple[Places, str], ...]


def is_installed() -> bool:
    """Whether this environment has vLLM; it is not imported."""
    return importlib.util.find_spec("vllm") is not None


def subjects(config: PlatformConfig) -> list[tuple[dict[str, Any], Places]]:
    """Return each distinct thing to check, with the paths of the variants that it stands for."""
    found: dict[str, list[FieldPath]] = {}
    for path, variant in _variants(config):
        found.setdefault(json.dumps(_subject(variant), sort_keys=True), []).append(path)
    return [(json.loads(subject), tuple(places)) for subject, places in found.items()]


def _variants(config: PlatformConfig) -> Iterator[tuple[FieldPath, VariantConfig]]:
    for m, model in enumerate(config.models):
        for v, variant in enumerate(model.variants):
            if variant.engine.kind == "vllm":
                yield ("models", m, "variants", v), variant


def _subject(variant: VariantConfig) -> dict[str, Any]:
    engine = variant.engine.model_dump(mode="json", exclude_defaults=True)
    return {"source": variant.source, "engine": engine, "has_accelerator": variant.accelerator is not None}


def check(config: PlatformConfig, *, command: Sequence[str] = COMMAND, timeout_s: float = TIMEOUT_S) -> Report:
    """Return vLLM's report of every engine of kind vllm. Raises CheckFailedError."""
    asked = subjects(config)
    answer = _ask({"engines": [subject for subject, _ in asked]}, command, timeout_s)
    try:
        results = list(zip(asked, answer["results"], strict=True))
        problems = [
            ((*place, *problem["field"]), str(problem["message"]))
            for (_, places), result in results
            for problem in result["problems"]
            for place in places
        ]
        unchecked: dict[str, list[FieldPath]] = {}
        for (_, places), result in results:
            for reason in result["unchecked"]:
                unchecked.setdefault(str(reason), []).extend(places)
        return Report(str(answer["vllm"]), tuple(problems), tuple((tuple(p), reason) for reason, p in unchecked.items()))
    except (KeyError, TypeError, ValueError) as err:
        raise CheckFailedError("the answer of the process that checks them cannot be read") from err


def _ask(request: dict[str, Any], command: Sequence[str], timeout_s: float) -> Any:
    """Return the JSON that the command answers. The process, and what it started, is gone afterwards."""
    # A session of its own: vLLM starts helpers, and all of them have to end with it.
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, start_new_session=True) as process:  # noqa: S603  # our own module
        try:
            stdout, stderr = process.communicate(json.dumps(request), timeout=timeout_s)
        except subprocess.TimeoutExpired as err:
            fix = "try again when the machine is less busy"
            raise CheckFailedError(f"vLLM has not answered within {timeout_s:.0f} s; {fix}") from err
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode != 0:
        how = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
        raise CheckFailedError(f"the process that checks them ended with {how}{_last_words(stderr)}")
    try:
        return json.loads(stdout)
    except ValueError as err:
        raise CheckFailedError(f"the process that checks them gave no answer{_last_words(stderr)}") from err


def _last_words(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return f": {lines[-1][:300]}" if lines else ""
