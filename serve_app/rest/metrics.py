"""`/metrics`: what this Router has counted, for setups that scrape it and not Ray's metrics port."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from serve_app.inference import Inference
from serve_app.rest.answer import Answer
from serve_app.rest.operation import Operation
from serve_app.rest.request import Request
from serve_app.rest.routing import Route

TEXT = "text/plain"
METRICS = Operation(
    "Show what this Router has counted, for Prometheus",
    "operations",
    "For keys with `admin: true`. Each Router shows its own counts; Ray's metrics port shows them all.",
    answers={TEXT: {"type": "string"}},
    errors=(403,),
)


def routes(inference: Inference, registry: CollectorRegistry) -> Iterator[Route]:
    """Yield the route."""

    async def show(request: Request, answer: Answer) -> None:
        inference.view.authorize_admin(request.caller)
        await answer.bytes(generate_latest(registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)

    yield Route("GET", "/metrics", show, operation=METRICS)
