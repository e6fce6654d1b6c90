"""`manta loadtest`: its options. The work is in serve_app/commands/loadtest.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ScenarioName = Annotated[str, typer.Argument(metavar="SCENARIO", help="A bundled scenario's name, or a YAML file.")]


def loadtest(
    scenario: ScenarioName,
    url: Annotated[str | None, typer.Option(help="Where the REST API listens; by default the scenario's.")] = None,
    grpc: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Where the gRPC API listens.")] = None,
    gate: Annotated[Path | None, typer.Option(metavar="FILE", help="Gates that the run must hold (YAML).")] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write an HTML report.")] = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write every figure as JSON.")] = None,
    compare: Annotated[Path | None, typer.Option(metavar="FILE", help="Compare with an earlier run's --json.")] = None,
    csv: Annotated[str | None, typer.Option(metavar="PREFIX", help="Write Locust's CSV files, for `manta tune`.")] = None,
    duration: Annotated[str | None, typer.Option(help="Length of the measured run, such as 90s.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes.", min=1, max=256)] = None,
    preflight: Annotated[bool, typer.Option(help="Ask first whether the target answers.")] = True,
    wait: Annotated[str | None, typer.Option(help="Wait at most so long until all of the mix is ready, such as 10m.")] = None,
    settle: Annotated[str | None, typer.Option(help="Wait so long before anything is asked, such as 60s.")] = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="Tell rollouts the result; needs --gate and an admin's key.")
    ] = False,
    show: Annotated[
        bool, typer.Option("--print", help="Print the scenario's file, to make one of your own, and exit.")
    ] = False,
) -> None:
    """Load a platform; exits with 1 when a gate fails, with 2 when the run, with 3 when its publication could not be made."""
    from serve_app.commands import loadtest as command

    asked = command.LoadtestOptions(
        scenario=scenario,
        url=url,
        grpc=grpc,
        gate=gate,
        report=report,
        json=json,
        compare=compare,
        csv=csv,
        duration=duration,
        workers=workers,
        preflight=preflight,
        wait=wait,
        settle=settle,
        publish=publish,
    )
    raise typer.Exit(command.show(scenario) if show else command.run(asked))
