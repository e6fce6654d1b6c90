"""Connecting a Router to the stages that its document names before the first request needs them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Protocol

from serve_app.view import RoutingView

logger = logging.getLogger("ray.serve")

EVERY_S = 5.0


class _Retriever(Protocol):
    async def prepare(self) -> None: ...


class _Embedder(Protocol):
    async def describe(self) -> Any: ...


async def keep_prepared(view: Callable[[], RoutingView], *, retriever: _Retriever, embedders: Mapping[str, _Embedder]) -> None:
    """Have each stage answer once, also those that come later, for ever; one that does not is asked again.

    A handle's first call asks Serve's controller where replicas are, and waits while the head is away. After it the handle
    knows, so that a request for a stage that this Router has not used yet is answered without the head as well.
    """
    known: set[str] = set()
    while True:
        wanted = {name: call for name, call in _stages(view(), retriever, embedders) if name not in known}
        found = await asyncio.gather(*(call() for call in wanted.values()), return_exceptions=True)
        for name, result in zip(wanted, found, strict=True):
            if isinstance(result, BaseException):
                logger.debug("%s does not answer yet: %s", name, result)
            else:
                known.add(name)
        await asyncio.sleep(EVERY_S)


def _stages(
    view: RoutingView, retriever: _Retriever, embedders: Mapping[str, _Embedder]
) -> Iterator[tuple[str, Callable[[], Awaitable[Any]]]]:
    if view.pipelines:
        yield "the Retriever", retriever.prepare
    for name in view.embedders:
        yield f"embedder {name}", embedders[name].describe
