"""The Router's gateway under bare uvicorn, without Ray and without HAProxy: what profilers are pointed at.

    python -m benchmarks.data_path.router_alone --engine 127.0.0.1:8001 --model fake --port 8002

With ``--endpoints N`` the directory holds N replicas at N loopback addresses (127.0.0.1, 127.0.0.2, ...) of the engine's
port, so that the engine must listen on all of them.
"""

from __future__ import annotations

import argparse
import secrets
from typing import Any

import uvicorn

from deployments.router import settle_garbage
from serve_app.contracts import DirectorySnapshot, ReplicaEntry, ReplicaState
from serve_app.gateway import Gateway, Stages
from serve_app.http_upstream import HttpUpstream
from serve_app.inference import Inference
from serve_app.observing.gateway_metrics import GatewayMetrics
from serve_app.observing.recorder import Recorder
from serve_app.observing.request_metrics import RequestMetrics
from serve_app.registry import Registry
from serve_app.rest import metrics as metric_routes
from serve_app.rest.app import RestApp
from serve_app.rollout.document import RoutedModel, RoutedVariant, RoutingDocument

PER_NETWORK = 250


class _NoRetriever:
    async def search(self, query: object) -> Any:
        raise NotImplementedError("the Router alone has no collections")


def build(urls: list[str], model: str, *, is_observed: bool = False) -> RestApp:
    """Return the REST front over a gateway that knows these replicas; ``is_observed``: with metrics, as a Router has them."""

    async def wake(*_: str) -> None: ...

    upstream = HttpUpstream(token=secrets.token_urlsafe(8))
    gateway = Gateway(upstream=upstream, wake=wake, stages=Stages(retriever=_NoRetriever()))
    variant = RoutedVariant(name="stable", weight=100, max_leases=100_000, engine="simulated")
    routing = RoutingDocument(models=(RoutedModel(name=model, variants=(variant,)),))
    replicas = tuple(ReplicaEntry(f"r{i}", model, "stable", url, ReplicaState.READY) for i, url in enumerate(urls))
    gateway.update(DirectorySnapshot("e", 1, replicas, routing.model_dump_json()))
    if not is_observed:
        return RestApp(Inference(gateway))
    registry = Registry()
    registry.register(GatewayMetrics(gateway))
    inference = Inference(gateway, recorder=Recorder([RequestMetrics(registry)]))
    return RestApp(inference, more=metric_routes.routes(inference, registry))


def addresses(engine: str, count: int) -> list[str]:
    """Return the engine's URL at so many loopback addresses."""
    host, _, port = engine.rpartition(":")
    if count == 1:
        return [f"http://{host}:{port}"]
    return [f"http://127.0.{i // PER_NETWORK}.{i % PER_NETWORK + 1}:{port}" for i in range(count)]


def main() -> None:
    """Serve until interrupted."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--engine", required=True, help="host:port")
    options.add_argument("--model", default="fake")
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--endpoints", type=int, default=1)
    options.add_argument("--observed", action="store_true")
    given = options.parse_args()
    app = build(addresses(given.engine, given.endpoints), given.model, is_observed=given.observed)
    settle_garbage()
    uvicorn.Server(uvicorn.Config(app, port=given.port, access_log=False, log_level="warning", lifespan="off")).run()


if __name__ == "__main__":
    main()
