"""`python -m benchmarks.data_path`: measure routers in front of one engine, and write what was found."""

from __future__ import annotations

import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from benchmarks.data_path import machine, plots, registry, report
from benchmarks.data_path.contracts import Endpoint, Engine, FakeSpec, Load, Measurement
from benchmarks.data_path.gates import MANTA, are_passed, assess
from benchmarks.data_path.plan import Timing, grouped, parse_loads
from benchmarks.data_path.records import RawFile, Run, valid
from benchmarks.data_path.runner import Plan, Rig, Runner
from benchmarks.data_path.summary import Summary

HERE = Path(__file__).resolve().parent
DOCUMENT = machine.REPOSITORY / "docs" / "benchmarks.md"
RESULTS = HERE.parent / "results"
LOADS = {"fake": "c=1,c=32,c=128,rate=20,hold=1000", "vllm": "c=1,c=8,c=32"}
EngineKind = Literal["fake", "vllm"]
EngineMaker = Callable[[FakeSpec], AbstractContextManager[Engine]]


def main(  # noqa: PLR0913 (a command's options are its parameters)
    *,
    engine: Annotated[EngineKind, typer.Option(help="The native fake engine, or real vLLM.")] = "fake",
    systems: Annotated[str, typer.Option(help="Names with commas between.")] = ",".join(registry.SYSTEMS),
    loads: Annotated[str, typer.Option(help="c=N at a time, rate=N a second, hold=N open streams.")] = "",
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    duration: Annotated[float, typer.Option(min=0.1, help="Seconds of each load; held streams last a minute.")] = 10.0,
    warmup: Annotated[float, typer.Option(min=0.0, help="Seconds at its start that do not count.")] = 2.0,
    tokens: Annotated[int, typer.Option(min=1, help="Of each answer.")] = 64,
    ttft_ms: Annotated[float, typer.Option(help="The fake engine's time to its first token.")] = 10.0,
    itl_ms: Annotated[float, typer.Option(help="The fake engine's time between tokens.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Of the order of systems and the arrivals of requests.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the raw results.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on: measure what is not there yet, and what had failed.")] = False,
    report_only: Annotated[bool, typer.Option(help="Measure nothing; write tables and plots again.")] = False,
    gate: Annotated[bool, typer.Option(help="End with 1 where a gate is not passed.")] = False,
    document: Annotated[Path, typer.Option(help="Markdown with this engine's markers.")] = DOCUMENT,
) -> None:
    """Compare LLM routers in front of one engine."""
    raw = RawFile((out or RESULTS / engine) / "raw.jsonl")
    if not report_only:
        timing = Timing(duration_s=duration, warmup_s=warmup, tokens=tokens)
        try:
            planned = parse_loads(loads or LOADS[engine], timing)
            names = [name.strip() for name in systems.split(",") if name.strip()]
            plan = Plan(engine, names, grouped(planned, FakeSpec(ttft_ms, itl_ms)), timing, rounds, seed)
            check(plan, raw, resume=resume)
            measure(plan, raw)
        except (registry.NotRegistered, ValueError) as err:
            fail(err)
    try:
        is_passed = publish(engine, raw, document)
    except ValueError as err:
        fail(err)
    if gate and not is_passed:
        raise typer.Exit(1)


def check(plan: Plan, raw: RawFile, *, resume: bool) -> None:
    """Raise ValueError or NotRegistered where the plan cannot run."""
    for name in plan.systems:
        registry.system_path(name)
    if plan.engine == "vllm" and any(planned.hold for group in plan.groups for planned in group.planned):
        raise ValueError("hold=N needs the fake engine's pace")
    if raw.path.exists() and not resume:
        raise ValueError(f"{raw.path} is there already: go on with --resume, or give another folder with --out")


def measure(plan: Plan, raw: RawFile) -> None:
    """Run the plan; a kill ends what it started, too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # A held stream costs each server two sockets; processes started from here inherit the limit.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with engines(plan.engine) as engine:
        rig = Rig(
            system=lambda name: registry.load(registry.system_path(name))(),
            engine=engine,
            run_load=partial(run_load, is_real=plan.engine == "vllm"),
            facts=machine.facts,
        )
        Runner(plan, rig, raw, say=lambda line: typer.echo(line, err=True)).run()


def run_load(endpoint: Endpoint, load: Load, *, hold: bool, is_real: bool) -> Measurement:
    """Put the load on the endpoint with the native client."""
    # A real engine's token may hold half a character and so come with the next one's event.
    extra = ["--hold"] * hold + ["--any-length"] * is_real
    measurement: Measurement = registry.load(registry.RUN_LOAD)(endpoint, load, extra=extra)
    return measurement


@contextmanager
def engines(kind: EngineKind) -> Iterator[EngineMaker]:
    """Yield what starts an engine: a fake for each pace, or the one vLLM of the whole run."""
    if kind == "vllm":
        with registry.load(registry.VLLM_ENGINE)() as engine:
            yield lambda _: nullcontext(engine)
    else:
        start = registry.load(registry.FAKE_ENGINE)

        @contextmanager
        def fake(spec: FakeSpec) -> Iterator[Engine]:
            with start(spec) as endpoint:
                yield Engine(kind="fake", endpoint=endpoint, spec=spec)

        yield fake


def publish(engine: EngineKind, raw: RawFile, document: Path) -> bool:
    """Write tables and plots, print the gates; return whether they are passed. Raises ValueError without results."""
    records = raw.read()
    runs = [record for record in records if isinstance(record, Run)]
    summary = Summary(valid(records))
    if not runs or not summary.systems:
        raise ValueError(f"{raw.path} holds no measurements")
    folder = document.parent / document.stem
    addresses = {}
    for picture, svg in plots.draw_all(summary, engine).items():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{engine}-{picture.name}.svg").write_text(svg)
        addresses[picture.title] = f"{folder.name}/{engine}-{picture.name}.svg"
    block = report.render(summary, runs[0], addresses)
    document.write_text(report.replace_block(document.read_text(), engine, block))
    if MANTA not in summary.systems:
        return False
    outcomes = assess(summary, engine)
    for outcome in outcomes:
        typer.echo(f"{outcome.verdict.value:8} {outcome.wanted}: {outcome.found}")
    return are_passed(outcomes)


def fail(err: Exception) -> NoReturn:
    """End with one line on what is wrong."""
    typer.echo(str(err), err=True)
    raise typer.Exit(2)


if __name__ == "__main__":
    typer.run(main)
