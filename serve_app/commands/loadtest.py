"""`manta loadtest SCENARIO`: load a platform, show what it did, and judge it by gates."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from loadtests import health, preflight, runner
from loadtests.figures import figures
from loadtests.gates import findings
from loadtests.gates_config import Gates
from loadtests.publishing import PublishError, connect
from loadtests.report import render
from loadtests.result import Result, ResultError, facts_of, read_result
from loadtests.scenario import Scenario, ShapeKind
from loadtests.scenario_file import FoundScenario, load_gates, load_scenario, scenario_text
from loadtests.schedule import schedule
from serve_app.commands import loadtest_tables as tables
from serve_app.commands.client import API_KEY
from serve_app.commands.loadtest_publishing import Publication
from serve_app.commands.loadtest_waiting import wait_until_ready
from serve_app.config_error import ConfigError, message_of
from serve_app.config_rollouts import Duration
from serve_app.errors import CommandError

UNUSABLE, UNPUBLISHED = 2, 3  # exit codes: the run could not be made; its result could not be published
_DURATIONS = TypeAdapter[float](Duration)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadtestOptions:
    """What the command line asks for."""

    scenario: str
    url: str | None = None
    grpc: str | None = None
    gate: Path | None = None
    report: Path | None = None
    json: Path | None = None
    compare: Path | None = None
    csv: str | None = None
    duration: str | None = None
    workers: int | None = None
    preflight: bool = True
    wait: str | None = None
    settle: str | None = None
    publish: bool = False


def show(name: str) -> int:
    """Print a scenario's file. Returns the exit code."""
    try:
        typer.echo(scenario_text(name), nl=False)
    except ConfigError as err:
        typer.echo(err, err=True)
        return UNUSABLE
    return 0


def run(asked: LoadtestOptions) -> int:
    """Run a scenario, print and write what it gave.

    Returns the exit code: 0, 1 (a gate failed), 2 (it could not be run) or 3 (its result could not be published).
    """
    try:
        return _run(asked)
    except ConfigError as err:
        typer.echo(err, err=True)
        return UNUSABLE
    except (CommandError, ResultError) as err:
        typer.echo(f"manta: {err}", err=True)
        return UNPUBLISHED if isinstance(err, PublishError) else UNUSABLE


def _run(asked: LoadtestOptions) -> int:
    found, gates, earlier = _prepared(asked)
    with connect(found.scenario.target, os.environ.get(API_KEY)) as http:
        _wait(asked, found.scenario, http)
        if asked.preflight:
            preflight.check(found.scenario, os.environ.get(API_KEY))
        publication = Publication.begin(http, found.scenario) if asked.publish else None
        document = _watched(found, asked.csv)
        result = _result(found.scenario, document, gates)
        if publication is not None:
            result = publication.told(result, document)
        _write(asked, result, earlier)
        if publication is not None:
            publication.send(result, written=asked.json)
    return result.exit_code


def _wait(asked: LoadtestOptions, scenario: Scenario, http: httpx.Client) -> None:
    """Return when the platform is as it is to be measured. Raises CommandError."""
    if asked.settle is not None:
        time.sleep(_seconds("--settle", asked.settle))
    if asked.wait is not None:
        wait_until_ready(http, scenario, longest_s=_seconds("--wait", asked.wait))


def _seconds(option: str, text: str) -> float:
    try:
        return _DURATIONS.validate_python(float(text) if text.isdecimal() else text)
    except ValidationError as err:
        raise CommandError(f"{option}: {message_of(err.errors(include_url=False)[0])}") from err


def _prepared(asked: LoadtestOptions) -> tuple[FoundScenario, Gates | None, Mapping[str, Any] | None]:
    """Return all that the run needs, so that nothing is missing after it. Raises ConfigError, CommandError or ResultError."""
    found = _overridden(load_scenario(asked.scenario, url=asked.url), asked)
    gates = load_gates(asked.gate) if asked.gate is not None else None
    earlier = read_result(asked.compare) if asked.compare is not None else None
    for option, path in (("--report", asked.report), ("--json", asked.json)):
        if path is not None:
            _check_place(option, path)
    _check_schedule(found)
    if asked.publish and gates is None:
        raise CommandError("--publish needs --gate: without gates a result says neither that it passed nor that it failed")
    for option, text in (("--wait", asked.wait), ("--settle", asked.settle)):
        if text is not None:
            _seconds(option, text)
    return found, gates, earlier


def _overridden(found: FoundScenario, asked: LoadtestOptions) -> FoundScenario:
    document = found.scenario.model_dump(exclude_unset=True)
    for name, value in (("duration", asked.duration), ("workers", asked.workers)):
        if value is not None:
            document[name] = value
    if asked.grpc is not None:
        document.setdefault("target", {})["grpc"] = asked.grpc
    try:
        return FoundScenario(Scenario.model_validate(document), found.folder)
    except ValidationError as err:
        detail = err.errors(include_url=False)[0]
        raise CommandError(f"--{detail['loc'][-1]}: {message_of(detail)}") from err


def _check_place(option: str, path: Path) -> None:
    if os.path.isdir(path) or not os.path.isdir(path.absolute().parent):
        raise CommandError(f"{option}: {path} cannot be written; name a file in a folder that exists")


def _check_schedule(found: FoundScenario) -> None:
    """Raise CommandError for a schedule that cannot be made, before worker processes find out."""
    if found.scenario.load.mode == "open" or found.scenario.load.shape.kind is ShapeKind.REPLAY:
        try:
            planned = len(schedule(found.scenario, folder=found.folder))
        except ValueError as err:
            raise CommandError(str(err)) from err
        if not planned:
            raise CommandError("load: nothing arrives within the duration; raise `level` or `duration`")


def _watched(found: FoundScenario, csv: str | None) -> dict[str, Any]:
    """Return the run's document, with a bar on stderr while it goes on."""
    scenario = found.scenario
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        total = scenario.warmup + scenario.duration
        task = bar.add_task(f"{scenario.name}: starting", total=total, said="")

        def on_progress(seen: runner.Progress) -> None:
            what = "ending" if seen.is_ending else "warming up" if seen.elapsed_s < 0 else "measuring"
            done = min(total, max(0.0, seen.elapsed_s + scenario.warmup))
            bar.update(task, completed=done, description=f"{scenario.name}: {what}", said=tables.progress(seen))

        return runner.run(found, csv=csv, on_progress=on_progress)


def _result(scenario: Scenario, document: Mapping[str, Any], gates: Gates | None) -> Result:
    seen = figures(scenario, document)
    return Result(
        scenario=scenario,
        figures=seen,
        facts=facts_of(scenario, document),
        found=findings(gates, seen) if gates is not None else (),
        warnings=health.warnings(scenario, document, seen),
    )


def _write(asked: LoadtestOptions, result: Result, earlier: Mapping[str, Any] | None) -> None:
    """Print the figures first: they are on the screen, should a file fail."""
    tables.show(result, Console(soft_wrap=True))
    written: tuple[tuple[Path | None, Callable[[], str]], ...] = (
        (asked.json, lambda: json.dumps(result.to_json(), indent=1)),
        (asked.report, lambda: render(result, earlier)),
    )
    for path, text in written:
        if path is None:
            continue
        try:
            path.write_text(text(), encoding="utf-8")
        except OSError as err:
            raise CommandError(f"{path} cannot be written: {(err.strerror or str(err)).lower()}") from err
        typer.echo(f"written: {path}")
