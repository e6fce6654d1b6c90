"""What the parts of the data-path benchmark hand each other: engines, systems, loads and their measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running HTTP server with OpenAI's paths, and the processes whose cost counts as its own."""

    host: str
    port: int
    model: str  # what requests name as "model"
    headers: Mapping[str, str] = field(default_factory=dict)  # e.g. authorization
    # Role (engine, router, proxy, control) -> root process ids; a root's descendants count with it
    # unless they are named under another role.
    pids: Mapping[str, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FakeSpec:
    """The native fake engine's latency model: token i leaves at ``ttft_ms + i * itl_ms`` after the request came."""

    ttft_ms: float = 10.0
    itl_ms: float = 10.0


@dataclass(frozen=True, slots=True)
class Engine:
    """The engine that every system of a run stands in front of."""

    kind: Literal["fake", "vllm"]
    endpoint: Endpoint  # the engine's own HTTP server: "bare" is a client talking to this
    spec: FakeSpec | None = None  # of the fake
    model_folder: Path | None = None  # of vLLM
    vllm_args: Mapping[str, object] = field(default_factory=dict)  # vLLM's engine arguments, by their Python names


class System(Protocol):
    """Something that can stand between a client and an engine."""

    name: str  # as in the tables: "manta", "litellm", "vllm-router", "ray-serve-llm", ...

    def running(self, engine: Engine) -> AbstractContextManager[Endpoint]:
        """Start it in front of the engine; yield where it answers once it does; end every process of it after."""
        ...


@dataclass(frozen=True, slots=True)
class Load:
    """One load on one endpoint: closed loop (``concurrency``) or open loop (``rate_per_s``, Poisson)."""

    name: str  # e.g. "c=32"
    duration_s: float
    warmup_s: float = 2.0  # requests that start in it are not counted
    concurrency: int | None = None
    rate_per_s: float | None = None
    tokens: int = 64  # max_tokens of each request
    prompt: str = "Say something."
    stream: bool = True
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Milliseconds."""

    p50: float
    p95: float
    p99: float
    max: float
    mean: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """What the client saw of one load. Open-loop latencies count from the intended start."""

    requests: int  # complete, with every token and [DONE]
    errors: Mapping[str, int]  # by kind: connect, status_500, cut, short, timeout, ...
    tokens: int  # content-bearing events inside the measured window
    seconds: float  # length of the measured window
    ttft_ms: Quantiles
    itl_ms: Quantiles
    e2e_ms: Quantiles
    client_cpu_s: float

    @property
    def tokens_per_s(self) -> float:
        """Sustained streaming throughput."""
        return self.tokens / self.seconds
