"""Router: the ingress. It runs the gateway behind Serve's proxy and follows the directory by long poll."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from deployments.handles import HandleDirectory, HandleEmbedders, HandleRetriever, wake
from deployments.names import RETRIEVER_APP, ROLLOUTS_APP, embedder_app, llm_app
from serve_app.contracts import DirectorySnapshot
from serve_app.gateway import Gateway, Stages
from serve_app.http_upstream import HttpUpstream
from serve_app.inference import Inference
from serve_app.rest.app import RestApp
from serve_app.rest.http import answer_lifespan
from serve_app.settings import read_settings
from serve_app.status import status_report

logger = logging.getLogger("ray.serve")

WATCH_TIMEOUT_S = 60.0
RETRY_S = 1.0

Watch = Callable[[str, int], Awaitable[DirectorySnapshot]]


async def follow(gateway: Gateway, watch: Watch) -> None:
    """Keep the gateway on the newest snapshot, for ever; what was seen last stays in force while Rollouts is away."""
    is_away = False
    while True:
        try:
            gateway.update(await asyncio.wait_for(watch(*gateway.version), WATCH_TIMEOUT_S))
            is_away = False
        except Exception:
            if not is_away:
                logger.exception("Rollouts is away; the last known routing stays in force")
            is_away = True
            await asyncio.sleep(RETRY_S)


class Router:
    """The Serve deployment; ``apps.py`` wraps it in Serve's ASGI ingress."""

    async def __init__(self) -> None:  # type: ignore[misc]
        """Connect to the other deployments and wait for the first snapshot."""
        directory = HandleDirectory(ROLLOUTS_APP)
        self._upstream = HttpUpstream(token=read_settings().internal_token)
        stages = Stages(retriever=HandleRetriever(RETRIEVER_APP), embedders=HandleEmbedders(embedder_app))
        gateway = Gateway(upstream=self._upstream, wake=_wake, stages=stages)
        gateway.update(await directory.watch(*gateway.version))
        self._gateway = gateway
        self._follower = asyncio.create_task(follow(gateway, directory.watch))
        self.asgi = RestApp(Inference(gateway), report=self._status)
        settle_garbage()

    async def check_health(self) -> None:
        """Raise when the Router has stopped following the directory."""
        if self._follower.done():
            raise RuntimeError("the Router no longer follows the directory")

    async def __del__(self) -> None:
        """Close connections; Serve has waited for open requests before it calls this."""
        if (follower := getattr(self, "_follower", None)) is not None:
            follower.cancel()
            await self._upstream.close()

    async def _status(self) -> dict[str, Any]:
        from ray import serve

        return status_report(self._gateway, await asyncio.to_thread(serve.status))


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
