"""`manta simulate`: its options; what it does is in serve_app/commands/simulate.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serve_app.cli_options import AsJson


def simulate(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="The platform's YAML document.")] = None,
    model: Annotated[str | None, typer.Option(help="Which model of FILE.")] = None,
    variant: Annotated[str | None, typer.Option(help="Which variant of the model.")] = None,
    trace: Annotated[
        list[str] | None,
        typer.Option(help="poisson, step, spike, diurnal, bursty, all, or a .csv file; repeatable. By default step."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Requests/s; of a rising trace before it rises. By default 2.", min=0.001)
    ] = None,
    duration: Annotated[
        float | None, typer.Option(metavar="S", help="Seconds it lasts; by default 1800, or a file whole.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of what chance decides.", min=0)] = 0,
    slo_ttft: Annotated[float, typer.Option(metavar="S", help="Seconds to the first token.", min=0.001)] = 2.0,
    slo_itl: Annotated[float, typer.Option(metavar="S", help="Seconds between tokens, mean of an answer.", min=0.0001)] = 0.1,
    latency: Annotated[str | None, typer.Option(help="JSON file of a measured latency model, or a preset's name.")] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="ours, ray-default, hpa-qps, hpa-utilization, fixed or oracle; repeatable. By default the usual four."
        ),
    ] = None,
    attainment: Annotated[
        float, typer.Option(help="Share of requests that the oracle must serve in time.", min=0, max=1)
    ] = 0.99,
    min_replicas: Annotated[int | None, typer.Option(help="Fewest replicas, in place of FILE's.", min=0)] = None,
    max_replicas: Annotated[int | None, typer.Option(help="Most replicas, in place of FILE's.", min=1)] = None,
    startup_s: Annotated[float | None, typer.Option(metavar="S", help="Seconds a replica takes to start.", min=0)] = None,
    html: Annotated[Path | None, typer.Option(help="Write a report with plots to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare autoscaling policies on traces, without a cluster: service within objectives, against replica-hours."""
    from serve_app.commands import simulate as command
    from serve_app.commands.simulate_setup import SimulateOptions

    asked = SimulateOptions(
        model=model,
        variant=variant,
        latency=latency,
        min_replicas=min_replicas,
        max_replicas=max_replicas,
        startup_s=startup_s,
        traces=tuple(trace or ("step",)),
        rate=rate,
        duration_s=duration,
        seed=seed,
        slo_ttft_s=slo_ttft,
        slo_itl_s=slo_itl,
    )
    output = command.Output(policies=tuple(policy or ()), attainment=attainment, html=html, as_json=as_json)
    command.run(file, asked, output)
