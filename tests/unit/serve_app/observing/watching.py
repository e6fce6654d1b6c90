"""A platform of fakes that is looked on at: requests go in by either front, records and counts come out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
import httpx

from serve_app.gateway import Gateway
from serve_app.inference import Inference
from serve_app.limits.permit import Admission
from serve_app.observing.gateway_metrics import GatewayMetrics
from serve_app.observing.record import RequestRecord
from serve_app.observing.recorder import Recorder
from serve_app.observing.request_metrics import RequestMetrics
from serve_app.registry import Registry
from serve_app.rest import metrics as metric_routes
from serve_app.rest.app import RestApp
from serve_app.rpc.client import MantaClient
from serve_app.rpc.servicer import InferenceRpc
from serve_app.rpc.services import add_health, add_inference


@dataclass
class Kept:
    """An observer that keeps what it sees."""

    begun: list[RequestRecord] = field(default_factory=list)
    over: list[RequestRecord] = field(default_factory=list)
    is_over: asyncio.Event = field(default_factory=asyncio.Event)

    def began(self, record: RequestRecord) -> None:
        """Keep a request that has arrived."""
        self.begun.append(record)

    def ended(self, record: RequestRecord) -> None:
        """Keep one that is over."""
        self.over.append(record)
        self.is_over.set()


async def report() -> dict[str, str]:
    """Return what the status report is here."""
    return {"all": "well"}


class Watched:
    """Both fronts of one gateway, its records and its metrics."""

    def __init__(self, gateway: Gateway, *, admission: Admission | None = None) -> None:
        self.kept = Kept()
        self.registry = Registry()
        self.registry.register(GatewayMetrics(gateway))
        recorder = Recorder([RequestMetrics(self.registry), self.kept])
        self.inference = Inference(gateway, admission=admission, recorder=recorder)
        self.rest = RestApp(self.inference, report=report, more=metric_routes.routes(self.inference, self.registry))

    async def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Return the REST front's answer."""
        transport = httpx.ASGITransport(self.rest)
        async with httpx.AsyncClient(transport=transport, base_url="http://manta") as client:
            return await client.request(method, path, **more)

    @contextlib.asynccontextmanager
    async def grpc(self) -> AsyncGenerator[MantaClient]:
        """Serve the gRPC front and give a client of it."""
        server = grpc.aio.server()
        front = InferenceRpc(self.inference)
        add_inference(front, server)
        add_health(front, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with MantaClient(f"127.0.0.1:{port}") as client:
                yield client
        finally:
            await server.stop(None)

    @property
    def record(self) -> RequestRecord:
        """The record of the only request there was."""
        [record] = self.kept.over
        return record

    def value(self, name: str, **labels: str) -> float:
        """Return a sample's value; 0 where there is none."""
        return self.registry.get_sample_value(name, labels) or 0.0
