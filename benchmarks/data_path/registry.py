"""Which systems and engines there are, by name; each is imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

# Where each is made: a module, and in it what returns the system when called.
SYSTEMS: Mapping[str, str] = {
    "bare": "benchmarks.data_path.systems.bare:Bare",
    "manta": "benchmarks.data_path.systems.manta:Manta",
    "manta-limits": "benchmarks.data_path.systems.manta:manta_with_limits",
    "vllm-router": "benchmarks.data_path.systems.vllm_router:VllmRouter",
    "litellm": "benchmarks.data_path.systems.litellm:LiteLLM",
    "ray-serve-llm": "benchmarks.data_path.systems.ray_serve_llm:RayServeLLM",
    "ray-serve-llm-default": "benchmarks.data_path.systems.ray_serve_llm:RayServeLLMDefault",
    "ray-serve-llm-direct": "benchmarks.data_path.systems.ray_serve_llm:RayServeLLMDirect",
    "native-edge": "benchmarks.data_path.systems.native_edge:NativeEdge",
}
FAKE_ENGINE = "benchmarks.data_path.native:fake_engine"
VLLM_ENGINE = "benchmarks.data_path.vllm_engine:vllm_engine"
RUN_LOAD = "benchmarks.data_path.native:run_load"


class NotRegistered(LookupError):
    """A name that no system has, or a system whose module is not there."""


def load(path: str) -> Callable[..., Any]:
    """Return what `module:name` names."""
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as err:
        raise NotRegistered(f"cannot import {module_name}, where {name} should be: {err}") from err
    found = getattr(module, name, None)
    if not callable(found):
        raise NotRegistered(f"{module_name} has no {name} to call")
    return found  # type: ignore[no-any-return]


def system_path(name: str) -> str:
    """Return where the system of this name is."""
    if name not in SYSTEMS:
        raise NotRegistered(f"no system is named {name!r}; there are {', '.join(SYSTEMS)}")
    return SYSTEMS[name]
