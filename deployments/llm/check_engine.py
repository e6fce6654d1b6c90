"""`python -m deployments.llm.check_engine`: checks engines' configurations by vLLM's own classes.

Reads ``{"engines": [{"source", "engine", "has_accelerator"}, ...]}`` as JSON on stdin, and writes
``{"vllm": version, "results": [{"problems": [{"field", "message"}], "unchecked": [text]}, ...]}`` on stdout, in the same order.
A process of its own, because importing vllm takes long and leaves threads behind. It opens no device and starts no engine.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from importlib.metadata import distributions
from typing import Any, TextIO

# What the drivers of NVIDIA (also under WSL), AMD, Intel and others make for an accelerator.
DEVICES = ("/dev/nvidia[0-9]*", "/dev/dxg", "/dev/kfd", "/dev/dri/render*", "/dev/accel*", "/dev/vfio/[0-9]*")


@contextmanager
def _own_stdout() -> Iterator[TextIO]:
    """Yield the real stdout, and send what libraries print to stderr."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as stdout:
        os.dup2(2, 1)
        yield stdout


def _set_environment() -> None:
    # vLLM reads these when it is imported.
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    if not any(map(glob, DEVICES)):
        os.environ.setdefault("VLLM_TARGET_DEVICE", "cpu")  # else a GPU build finds no platform here, and parses nothing


def build() -> tuple[str, bool]:
    """Return the version of the installed vLLM, and whether it is built for accelerators."""
    found = {name: dist.version for name in ("vllm", "vllm-cpu") for dist in distributions(name=name)}
    version = next(iter(found.values()), "")
    return version, set(found) == {"vllm"} and "cpu" not in version


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Return the results of a request. Imports vllm."""
    from deployments.llm.vllm_checks import Subject, check
    from deployments.llm.vllm_fields import dump
    from serve_app.config import EngineConfig

    version, is_for_accelerators = build()
    results = []
    for asked in request["engines"]:
        engine = EngineConfig.model_validate(asked["engine"])
        # Such a build runs on an accelerator, whether a variant names one or not.
        findings = check(Subject(asked["source"], engine, asked["has_accelerator"] or is_for_accelerators))
        results.append({"problems": dump(findings.problems), "unchecked": findings.unchecked})
    return {"vllm": version, "results": results}


def main() -> int:
    """Answer one request; return the exit code."""
    _set_environment()
    with _own_stdout() as stdout:
        json.dump(run(json.load(sys.stdin)), stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
