"""`python -m benchmarks.data_path.systems NAME`: start one system in front of the fake engine and stream one chat."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator

import httpx
import psutil

from benchmarks.data_path import native, registry
from benchmarks.data_path.contracts import Endpoint, Engine, FakeSpec, System
from benchmarks.data_path.systems.program import chat, url

TOKENS = 8
SPEC = FakeSpec(ttft_ms=20.0, itl_ms=10.0)


def main(arguments: list[str]) -> int:
    """Smoke-test the named system; also takes `module:name` for one that is not registered."""
    if len(arguments) != 1:
        sys.stderr.write(f"usage: python -m benchmarks.data_path.systems NAME ({', '.join(registry.SYSTEMS)})\n")
        return 2
    (name,) = arguments
    system: System = registry.load(name if ":" in name else registry.system_path(name))()
    with native.fake_engine(SPEC) as engine_endpoint:
        engine = Engine(kind="fake", endpoint=engine_endpoint, spec=SPEC)
        began_s = time.monotonic()
        with system.running(engine) as endpoint:
            say(f"{system.name}: answers after {time.monotonic() - began_s:.1f} s on {url(endpoint)}")
            text = stream_one(endpoint)
            show_processes(endpoint)
            began_s = time.monotonic()
        say(f"stopped in {time.monotonic() - began_s:.1f} s")
    if text != "".join(f" tok{number:04d}" for number in range(TOKENS)):
        say(f"FAILED: the answer is {text!r}")
        return 1
    return 0


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def stream_one(endpoint: Endpoint) -> str:
    """Stream one chat, write when each event came, and return its text."""
    text, times = "", []
    began_s = time.monotonic()
    with httpx.stream("POST", url(endpoint), json=chat(endpoint, tokens=TOKENS), headers=dict(endpoint.headers)) as answer:
        answer.raise_for_status()
        lines = [line for line in _timed(answer, began_s) if line[1].startswith("data: ")]
    for at_ms, line in lines:
        if line != "data: [DONE]":
            for choice in json.loads(line.removeprefix("data: "))["choices"]:
                text += choice["delta"].get("content") or ""
        times.append(f"{at_ms:.0f}")
    say(f"answer: {text!r}; done: {lines[-1][1] == 'data: [DONE]'}; events at {' '.join(times)} ms")
    say(f"second event: {lines[1][1]} ({len(lines[1][1]) + 2} bytes)")
    return text


def _timed(answer: httpx.Response, began_s: float) -> Iterator[tuple[float, str]]:
    for line in answer.iter_lines():
        yield (time.monotonic() - began_s) * 1000, line


def show_processes(endpoint: Endpoint) -> None:
    """Write each process of the system with its role."""
    roots = {pid: role for role, pids in endpoint.pids.items() for pid in pids}
    for root in roots:
        for process in [psutil.Process(root), *psutil.Process(root).children(recursive=True)]:
            if process.pid != root and process.pid in roots:
                continue
            above = [process.pid, *(parent.pid for parent in process.parents())]
            if next((pid for pid in above if pid in roots), None) == root:
                rss = process.memory_info().rss / 2**20
                say(f"  {roots[root]:8} {process.pid:7} {rss:5.0f} MiB  {' '.join(process.cmdline())[:110]}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
