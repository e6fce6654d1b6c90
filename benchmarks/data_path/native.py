"""The native programs of ``native/``: a fake engine and a load client, compiled on first use and run as processes."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.data_path.contracts import Endpoint, FakeSpec, Load, Measurement, Quantiles

SOURCES = Path(__file__).with_name("native")
BUILDS = Path(__file__).with_name(".build")
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra")
STOP_TIMEOUT_S = 5.0

Program = Literal["engine", "load"]


class NativeError(RuntimeError):
    """A native program could not be built, or failed."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """The fake engine's counters since its start or its last reset."""

    open: int  # requests under way, those that wait for a slot included
    max_open: int
    connections: int
    requests: int
    tokens: int
    aborted: int  # clients that left before their answer's end
    prompt_chars: int
    cached_chars: int
    cpu_s: float


@dataclass(frozen=True, slots=True)
class LoadReport:
    """A measurement and what else the load client saw."""

    measurement: Measurement
    warmup_errors: Mapping[str, int]
    itl_max_per_stream_p95: float  # ms; NaN without a counted stream of two tokens
    open_max: int
    streaming_max: int  # streams between their first token and their end
    waiting_max: int  # open loop: arrivals that waited for one of --max-open connections
    reads: int
    coalesced: int  # tokens that came in one read with an earlier token of their stream: their gaps count as 0


def compiler() -> str | None:
    """Return the C compiler's path, if there is one."""
    return shutil.which("cc") or shutil.which("gcc")


def build(program: Program) -> Path:
    """Return the compiled program; compiles only when a source has changed."""
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for source in sorted(SOURCES.glob("*.[ch]")):
        digest.update(source.read_bytes())
    binary = BUILDS / f"{program}-{digest.hexdigest()[:16]}"
    if not binary.exists():
        _compile(SOURCES / f"{program}.c", binary)
    return binary


def _compile(source: Path, binary: Path) -> None:
    cc = compiler()
    if cc is None:
        raise NativeError("no C compiler to build the benchmark's native programs: run `sudo apt-get install gcc libc6-dev`")
    binary.parent.mkdir(exist_ok=True)
    unfinished = binary.with_suffix(f".{os.getpid()}")
    done = subprocess.run([cc, *FLAGS, "-o", unfinished, source, "-lm"], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise NativeError(f"{source.name} does not compile:\n{done.stderr}")
    unfinished.replace(binary)  # at once: another process may be building the same


@contextmanager
def fake_engine(  # noqa: PLR0913 the engine's options, each with a default
    spec: FakeSpec,
    *,
    slots: int = 0,
    model: str = "fake",
    prefill_us_per_char: float = 0.0,
    cache_chars: int = 0,
    tick_us: int = 0,
) -> Iterator[Endpoint]:
    """Run a fake engine on a free port; 0 slots are unlimited, 0 cache chars are no prefix cache, 0 ticks are exact times."""
    options = {
        "ttft-ms": spec.ttft_ms,
        "itl-ms": spec.itl_ms,
        "slots": slots,
        "model": model,
        "prefill-us-per-char": prefill_us_per_char,
        "cache-chars": cache_chars,
        "tick-us": tick_us,
    }
    command = [str(build("engine")), *(f"--{name}={value}" for name, value in options.items())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            yield Endpoint("127.0.0.1", _listening_port(process), model, pids={"engine": [process.pid]})
        finally:
            _end(process)


def _listening_port(process: subprocess.Popen[str]) -> int:
    line = process.stdout.readline() if process.stdout else ""
    if not line.startswith("listening "):
        raise NativeError("the fake engine did not start: its message is above")
    return int(line.split()[1])


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()


def engine_stats(endpoint: Endpoint) -> EngineStats:
    """Return a fake engine's counters."""
    return EngineStats(**_ask(endpoint, "/stats"))


def reset_engine_stats(endpoint: Endpoint) -> None:
    """Let a fake engine's counters start anew."""
    _ask(endpoint, "/stats/reset", body=b"")


def _ask(endpoint: Endpoint, path: str, body: bytes | None = None) -> dict[str, Any]:
    url = f"http://{endpoint.host}:{endpoint.port}{path}"
    with urllib.request.urlopen(url, data=body, timeout=10) as answer:
        return dict(json.load(answer))


def run_load(endpoint: Endpoint, load: Load, *, path: str = "/v1/chat/completions", extra: Sequence[str] = ()) -> Measurement:
    """Put the load on the endpoint; ``extra`` goes to the load client as it is, e.g. ``["--timeout-s", "5"]``."""
    return load_report(endpoint, load, path=path, extra=extra).measurement


def load_report(endpoint: Endpoint, load: Load, *, path: str = "/v1/chat/completions", extra: Sequence[str] = ()) -> LoadReport:
    """Put the load on the endpoint, and return all that the client saw."""
    with tempfile.TemporaryDirectory() as folder:
        body = Path(folder) / "body.json"
        # A file, as a long prompt does not fit into an argument.
        body.write_text(json.dumps(_body(endpoint, load, path=path)))
        options = [*_endpoint_options(endpoint, path), *_load_options(load), "--body-file", str(body), *extra]
        done = subprocess.run([build("load"), *options], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise NativeError(f"the load client failed: {done.stderr.strip()}")
    return _report(json.loads(done.stdout))


def _body(endpoint: Endpoint, load: Load, *, path: str) -> dict[str, object]:
    is_chat = "chat/" in path
    prompt: dict[str, object] = {"messages": [{"role": "user", "content": load.prompt}]} if is_chat else {"prompt": load.prompt}
    # OpenAI refuses stream_options without a stream.
    stream: dict[str, object] = (
        {"stream": True, "stream_options": {"include_usage": False}} if load.stream else {"stream": False}
    )
    return {"model": endpoint.model, **prompt, "max_tokens": load.tokens, "temperature": 0, "ignore_eos": True, **stream}


def _endpoint_options(endpoint: Endpoint, path: str) -> list[str]:
    headers = [option for name, value in endpoint.headers.items() for option in ("--header", f"{name}: {value}")]
    return ["--host", endpoint.host, "--port", str(endpoint.port), "--path", path, "--model", endpoint.model, *headers]


def _load_options(load: Load) -> list[str]:
    options: dict[str, object] = {
        "duration": load.duration_s,
        "warmup": load.warmup_s,
        "tokens": load.tokens,
        "seed": load.seed,
    }
    if load.concurrency is not None:
        options["concurrency"] = load.concurrency
    if load.rate_per_s is not None:
        options["rate"] = load.rate_per_s
    return [f"--{name}={value}" for name, value in options.items()] + ([] if load.stream else ["--no-stream"])


def _report(seen: Mapping[str, Any]) -> LoadReport:
    measurement = Measurement(
        requests=seen["requests"],
        errors=seen["errors"],
        tokens=seen["tokens"],
        seconds=seen["seconds"],
        ttft_ms=_quantiles(seen["ttft_ms"]),
        itl_ms=_quantiles(seen["itl_ms"]),
        e2e_ms=_quantiles(seen["e2e_ms"]),
        client_cpu_s=seen["client_cpu_s"],
    )
    longest = seen["itl_max_per_stream_p95"]
    return LoadReport(
        measurement=measurement,
        warmup_errors=seen["warmup_errors"],
        itl_max_per_stream_p95=math.nan if longest is None else longest,
        open_max=seen["open_max"],
        streaming_max=seen["streaming_max"],
        waiting_max=seen["waiting_max"],
        reads=seen["reads"],
        coalesced=seen["coalesced"],
    )


def _quantiles(seen: Mapping[str, float] | None) -> Quantiles:
    """NaN stands for a latency that nothing was seen of, as 0 would be a very good one."""
    if seen is None:
        return Quantiles(math.nan, math.nan, math.nan, math.nan, math.nan)
    return Quantiles(**seen)
