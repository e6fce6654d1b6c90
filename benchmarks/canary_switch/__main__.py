"""`python -m benchmarks.canary_switch`: how fast a change of weights is in force on every Router, and what it costs clients."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import typer

from benchmarks.canary_switch.switch import Switch, switch
from serve_app.apps import build_schema, cpus_needed
from serve_app.cluster import LocalCluster, free_ports
from serve_app.config import PlatformConfig
from serve_app.rollout.document import declared_split, routing_document
from serve_app.rollout.table import Split

START_TIMEOUT_S = 240.0
HEAD = "| stable/canary | PUT s | every Router s | last by old owner s | chats | failed | misrouted | restarted |"
WEIGHTS = ((95, 5), (90, 10), (75, 25), (50, 50), (0, 100), (100, 0))


class Platform:
    """A platform of simulated engines on a Ray cluster of its own."""

    def __init__(self, cluster: LocalCluster, *, port: int, grpc_port: int, routers: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._cluster = cluster
        self._ports = (port, grpc_port)
        self._routers = routers

    @property
    def applications(self) -> Mapping[str, Any]:
        """Serve's own report."""
        return self._cluster.applications()

    def put(self, weights: Mapping[str, int]) -> None:
        """Put the whole configuration, as KubeRay does."""
        self._cluster.deploy(schema(weights, self._ports, routers=self._routers))

    def wait_ready(self) -> None:
        """Wait until both variants have a ready replica. Raises TimeoutError."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline_s:
            if all(app["status"] == "RUNNING" for app in self.applications.values()) and self._answers():
                return
            time.sleep(0.5)
        raise TimeoutError(f"the platform was not ready after {START_TIMEOUT_S} s")

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/admin/rollouts", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False


def config(weights: Mapping[str, int], *, routers: int) -> PlatformConfig:
    """Return the platform that is measured."""
    engine = {"kind": "simulated", "simulated": {"prefill_s_per_token": 0, "decode_s_per_token": 0.01}}
    variants = [
        {"name": name, "source": "simulated", "cpus": 0.01, "engine": engine, "weight": weight}
        for name, weight in weights.items()
    ]
    return PlatformConfig.model_validate(
        {"models": [{"name": "chat", "variants": variants}], "router": {"cpus": 0.1, "replicas": routers}}
    )


def schema(weights: Mapping[str, int], ports: tuple[int, int], *, routers: int) -> dict[str, Any]:
    """Return it as Serve takes it."""
    made = config(weights, routers=routers)
    return build_schema(made, http_port=ports[0], http_host="127.0.0.1", grpc_port=ports[1])


def split(weights: Mapping[str, int]) -> Split:
    """Return how its traffic is shared."""
    return declared_split(routing_document(config(weights, routers=1)).models[0])


async def measure(platform: Platform, *, rate: float, rounds: int) -> list[Switch]:
    """Go through the weights, several times."""
    found = []
    now = dict(zip(("stable", "canary"), WEIGHTS[-1], strict=True))
    for pair in WEIGHTS * rounds:
        after = dict(zip(("stable", "canary"), pair, strict=True))
        found.append(await switch(platform, before=split(now), after=split(after), rate=rate))
        typer.echo(row(found[-1]))
        now = after
    return found


def row(seen: Switch) -> str:
    """Return a line of the table."""
    numbers = (f"{seen.put_s:.2f}", f"{seen.told_s:.2f}", f"{seen.last_old_s:.2f}", str(seen.chats), str(seen.failed))
    weights = "/".join(str(weight) for weight in seen.weights.values())
    return f"| {weights} | {' | '.join(numbers)} | {seen.misrouted} | {len(seen.restarted)} |"


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=50.0, help="chats per second")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--routers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    args = parser.parse_args()
    port, grpc_port = free_ports(2)
    first = schema({"stable": 100, "canary": 0}, (port, grpc_port), routers=args.routers)
    with LocalCluster(num_cpus=cpus_needed(first) + 1) as cluster:
        platform = Platform(cluster, port=port, grpc_port=grpc_port, routers=args.routers)
        cluster.deploy(first)
        platform.wait_ready()
        typer.echo(HEAD)
        typer.echo("|---|---|---|---|---|---|---|---|")
        found = asyncio.run(measure(platform, rate=args.rate, rounds=args.rounds))
    told = [seen.told_s for seen in found]
    typer.echo(f"\non every Router: median {statistics.median(told):.2f} s, worst {max(told):.2f} s")
    if args.out:
        args.out.write_text(json.dumps([asdict(seen) for seen in found], indent=2))


if __name__ == "__main__":
    main()
