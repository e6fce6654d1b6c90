"""Router: the ingress. It runs the gateway behind Serve's proxy and follows the directory by long poll."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from autoscaling.signals import SafeSignals, stage_signals
from deployments.busy import BusyShare
from deployments.document_handle import HandleDocuments
from deployments.handles import HandleDirectory, HandleEmbedders, HandleLedger, HandleRetriever, HandleRollouts, wake
from deployments.keys import KeyFollower, follow_keys
from deployments.line_files import open_audit, open_requests
from deployments.names import LIMITS_APP, RETRIEVER_APP, ROLLOUTS_APP, embedder_app, llm_app
from deployments.preparing import keep_prepared
from deployments.ray_export import RayExport, keep_exporting
from deployments.reporting import Reporter, keep_reporting
from serve_app.contracts import DirectorySnapshot
from serve_app.gateway import Gateway, Stages
from serve_app.http_upstream import HttpUpstream
from serve_app.inference import Inference
from serve_app.limits.admission import EscrowAdmission
from serve_app.observing.gateway_metrics import GatewayMetrics
from serve_app.observing.recorder import Recorder
from serve_app.observing.request_log import RequestLog
from serve_app.observing.request_metrics import RequestMetrics
from serve_app.observing.tracing import Delivery, Tracing
from serve_app.registry import Registry
from serve_app.rest import files, load_tests, vector_stores
from serve_app.rest import metrics as metric_routes
from serve_app.rest import rollouts as rollout_routes
from serve_app.rest import scaling as scaling_routes
from serve_app.rest import timeline as timeline_routes
from serve_app.rest.app import RestApp
from serve_app.rest.http import answer_lifespan
from serve_app.rpc.servicer import InferenceRpc
from serve_app.settings import read_settings
from serve_app.status import status_report
from serve_app.timeline import Timeline, keep_sampling

logger = logging.getLogger("ray.serve")

WATCH_TIMEOUT_S = 60.0
RETRY_S = 1.0

Watch = Callable[[str, int], Awaitable[DirectorySnapshot]]


async def follow(gateway: Gateway, watch: Watch, *, on_news: Callable[[], None] = lambda: None) -> None:
    """Keep the gateway on the newest snapshot, for ever; what was seen last stays in force while Rollouts is away.

    ``on_news`` is called after each snapshot, before any request sees it.
    """
    is_away = False
    while True:
        try:
            async with asyncio.timeout(WATCH_TIMEOUT_S):
                snapshot = await watch(*gateway.version)
            gateway.update(snapshot)
            on_news()
            is_away = False
        except Exception:
            if not is_away:
                logger.exception("Rollouts is away; the last known routing stays in force")
            is_away = True
            await asyncio.sleep(RETRY_S)


class Router(InferenceRpc):
    """The Serve deployment; ``apps.py`` wraps it in Serve's ASGI ingress, and Serve's gRPC server calls its methods."""

    async def __init__(self) -> None:  # type: ignore[misc]
        """Connect to the other deployments and wait for the first snapshot."""
        directory = HandleDirectory(ROLLOUTS_APP)
        settings = read_settings()
        self._upstream = HttpUpstream(token=settings.internal_token)
        documents = HandleDocuments()
        retriever, embedders = HandleRetriever(RETRIEVER_APP), HandleEmbedders(embedder_app)
        stages = Stages(retriever=retriever, embedders=embedders, documents=documents)
        gateway = Gateway(upstream=self._upstream, wake=_wake, stages=stages)
        gateway.update(await directory.watch(*gateway.version))
        self._gateway = gateway
        registry = Registry()
        registry.register(GatewayMetrics(gateway))
        timeline = Timeline()
        self._lines = [open_requests(), open_audit()]
        keys = KeyFollower(gateway)
        name = uuid.uuid4().hex
        rollouts = HandleRollouts(ROLLOUTS_APP)
        ledger = HandleLedger(LIMITS_APP)
        admission = EscrowAdmission(ledger.exchange, router=name, clock=time.monotonic)
        self._tasks = [
            asyncio.create_task(follow(gateway, directory.watch, on_news=keys.apply)),
            asyncio.create_task(follow_keys(keys)),
            asyncio.create_task(keep_prepared(lambda: gateway.view, retriever=retriever, embedders=embedders)),
            asyncio.create_task(keep_reporting(Reporter(gateway, router=name), rollouts.report)),
            asyncio.create_task(admission.keep(lambda: gateway.view.document.auth.is_on)),
            asyncio.create_task(keep_exporting(RayExport(registry))),
            asyncio.create_task(keep_sampling(timeline, gateway)),
        ]
        self._tracing = Tracing(lambda: gateway.view.document.tracing, Delivery("router"))
        recorder = Recorder([self._tracing, RequestMetrics(registry), RequestLog(lambda: gateway.view.document.logs)])
        inference = Inference(gateway, admission=admission, recorder=recorder)
        super().__init__(inference, is_local_only=settings.is_local_only)
        more = [*files.routes(inference, documents), *vector_stores.routes(inference, documents)]
        more += [*rollout_routes.routes(inference, rollouts), *scaling_routes.routes(inference, rollouts)]
        more += load_tests.routes(inference, rollouts)
        more += [*metric_routes.routes(inference, registry), *timeline_routes.routes(inference, timeline)]
        self.asgi = RestApp(inference, names_requests=False, report=self._status, more=more)
        settle_garbage()
        busy = BusyShare()  # from here on: starting is no load
        self._signals = SafeSignals(lambda: router_signals(busy))

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the signals of ``autoscaling.signals`` for the policy."""
        return self._signals()

    async def check_health(self) -> None:
        """Raise when the Router has stopped following the directory, the keys or the limits."""
        if any(task.done() for task in self._tasks):
            raise RuntimeError("the Router no longer follows the directory, the keys or the limits")

    async def __del__(self) -> None:
        """Close connections; Serve has waited for open requests before it calls this."""
        for task in getattr(self, "_tasks", ()):
            task.cancel()
        if (gateway := getattr(self, "_gateway", None)) is not None:
            await gateway.shadows.close()
        if (upstream := getattr(self, "_upstream", None)) is not None:
            await upstream.close()
        for lines in getattr(self, "_lines", ()):
            await asyncio.to_thread(lines.close)
        if (tracing := getattr(self, "_tracing", None)) is not None:
            await tracing.close()

    async def _status(self) -> dict[str, Any]:
        from ray import serve

        return status_report(self._gateway, await asyncio.to_thread(serve.status))


def router_signals(busy: BusyShare) -> dict[str, float]:
    """Return a Router's load: how busy its event loop is, as so much of one request.

    Requests say nothing of it: a Router that waits for slow models is idle, and more of them would make nothing faster.
    """
    return stage_signals(waiting=0, running=busy.take(), slots=1, arrived=0)


def settle_garbage() -> None:
    """Keep collections short: what start-up made stays, so that no collection of a busy Router looks through it again.

    Ray's modules alone are several hundred thousand objects; going through them stops every stream for 0.1 s and more.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


async def _wake(model: str, variant: str) -> None:
    await wake(llm_app(model, variant))


def build_asgi() -> Callable[..., Awaitable[None]]:
    """Return an ASGI app that forwards to the Router of this replica."""

    async def forward(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":  # comes before Serve knows the Router that it has built
            await answer_lifespan(receive, send)
            return
        from ray import serve

        router: Any = serve.get_replica_context().servable_object
        await router.asgi(scope, receive, send)

    return forward
