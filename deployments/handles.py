"""Handles of other applications, fetched when first used: applications start in any order and may come later."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from serve_app.contracts import DirectorySnapshot, EmbeddingFingerprint, Hit, ReplicaEntry, SearchQuery
from serve_app.errors import PlatformError, RateLimited, Unavailable
from serve_app.limits.messages import Message, Reply
from serve_app.observing.record import current_link, current_record
from serve_app.rollout.commands import Verb
from serve_app.rollout.telemetry import RouterReport

RETRY_S = 0.5


class LazyHandle:
    """A Serve deployment handle by application name."""

    def __init__(self, deployment: str, app: str, *, wait_s: float = 0.0) -> None:
        self._deployment = deployment
        self._app = app
        self._wait_s = wait_s
        self._handle: Any = None

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the deployment and return its result.

        Raises:
            Unavailable: the application does not exist, ``wait_s`` seconds long, or its replica is gone.
            RateLimited: it has more requests than it takes.
            Exception: what the method raised.
        """
        if self._handle is None:
            self._handle = await self._find()
        try:
            return await getattr(self._handle, method).remote(*args, **kwargs)
        except PlatformError:
            raise
        except Exception as err:
            if (known := _of_serve(err, self._app)) is None:
                raise
            raise known from err

    async def _find(self) -> Any:
        from ray import serve

        deadline_s = time.monotonic() + self._wait_s
        while True:
            try:
                # The look-up asks the controller and blocks.
                return await asyncio.to_thread(serve.get_deployment_handle, self._deployment, self._app)
            except KeyError as err:
                if time.monotonic() >= deadline_s:
                    raise Unavailable(f"{self._app} is not deployed yet", retry_after_s=5) from err
            await asyncio.sleep(RETRY_S)


def _of_serve(error: Exception, app: str) -> PlatformError | None:
    """Return what a failure of Serve's own means to a client, or None for an error of the method called."""
    from ray.exceptions import RayActorError
    from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError

    if isinstance(error, BackPressureError):
        return RateLimited(f"{app} is busy; try again later", retry_after_s=5)
    if isinstance(error, RayActorError | DeploymentUnavailableError | ReplicaUnavailableError):
        return Unavailable(f"{app} has no healthy replica; try again later", retry_after_s=5)
    return None


class HandleDirectory:
    """Rollouts, as replicas and Routers talk to it."""

    def __init__(self, app: str, *, wait_s: float = 60.0) -> None:
        self._handle = LazyHandle("Rollouts", app, wait_s=wait_s)

    async def heartbeat(self, entry: ReplicaEntry, seq: int) -> None:
        """Register or refresh a replica."""
        await self._handle.call("heartbeat", entry, seq)

    async def drain(self, replica_id: str) -> None:
        """Ask Routers to send a replica nothing new."""
        await self._handle.call("drain", replica_id)

    async def deregister(self, replica_id: str) -> None:
        """Say a replica's goodbye."""
        await self._handle.call("deregister", replica_id)

    async def watch(self, epoch: str, version: int) -> DirectorySnapshot:
        """Return the first snapshot that differs from the caller's."""
        snapshot: DirectorySnapshot = await self._handle.call("watch", epoch, version)
        return snapshot


class HandleRollouts:
    """Rollouts, as Routers report to it and operators command it through them."""

    def __init__(self, app: str) -> None:
        self._handle = LazyHandle("Rollouts", app)

    async def report(self, report: RouterReport) -> None:
        """Tell what this Router has counted."""
        await self._handle.call("report", report)

    async def rollouts(self) -> dict[str, Any]:
        """Return how every split stands."""
        found: dict[str, Any] = await self._handle.call("rollouts")
        return found

    async def scaling(self) -> dict[str, Any]:
        """Return how the number of every application's replicas stands."""
        found: dict[str, Any] = await self._handle.call("scaling")
        return found

    async def history(self, name: str) -> list[dict[str, Any]]:
        """Return the decisions on one. Raises UnknownRollout."""
        found: list[dict[str, Any]] = await self._handle.call("rollout_history", name)
        return found

    async def command(self, name: str, verb: Verb, *, by: str) -> dict[str, Any]:
        """Do what an operator says, and return the record of it. Raises UnknownRollout, RolloutConflict."""
        made: dict[str, Any] = await self._handle.call(
            "command_rollout", name, verb.value, by, request_id=current_record().request_id
        )
        return made

    async def load_tests(self) -> list[dict[str, Any]]:
        """Return the last result of each load test."""
        found: list[dict[str, Any]] = await self._handle.call("load_tests")
        return found

    async def publish_load_test(self, document: dict[str, Any], *, by: str) -> dict[str, Any]:
        """Keep a result. Raises BadRequest, RolloutConflict, Unavailable."""
        kept: dict[str, Any] = await self._handle.call("publish_load_test", document, by)
        return kept


class HandleLedger:
    """The ledger of limits over a handle."""

    def __init__(self, app: str) -> None:
        self._handle = LazyHandle("Limits", app)

    async def exchange(self, message: Message) -> Reply:
        """Report and be granted."""
        reply: Reply = await self._handle.call("exchange", message)
        return reply


class HandleEmbedder:
    """The embed stage over a handle."""

    def __init__(self, app: str) -> None:
        self._handle = LazyHandle("Embedder", app)

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return one vector per text."""
        link = current_link(is_sampled=True)
        traced = {} if link is None else {"trace": link}
        vectors: list[list[float]] = await self._handle.call("embed", list(texts), **traced)
        return vectors

    async def count_tokens(self, texts: Sequence[str], *, must_fit: bool = False) -> int:
        """Return how many tokens are read of the texts together. Raises BadRequest: one that must fit does not."""
        return int(await self._handle.call("count_tokens", list(texts), must_fit=must_fit))

    async def describe(self) -> EmbeddingFingerprint:
        """Return what the vectors are."""
        fingerprint: EmbeddingFingerprint = await self._handle.call("describe")
        return fingerprint


class HandleEmbedders(Mapping[str, HandleEmbedder]):
    """Embedders by name; the routing document decides which names are asked for."""

    def __init__(self, app_of: Callable[[str], str]) -> None:
        self._app_of = app_of
        self._embedders: dict[str, HandleEmbedder] = {}

    def __getitem__(self, name: str) -> HandleEmbedder:
        if name not in self._embedders:
            self._embedders[name] = HandleEmbedder(self._app_of(name))
        return self._embedders[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._embedders)

    def __len__(self) -> int:
        return len(self._embedders)


class HandleRetriever:
    """The retrieve stage over a handle."""

    def __init__(self, app: str) -> None:
        self._handle = LazyHandle("Retriever", app)

    async def search(self, query: SearchQuery) -> list[Hit]:
        """Return hits, best first."""
        if (link := current_link(is_sampled=True)) is not None:
            query = replace(query, trace=link)
        hits: list[Hit] = await self._handle.call("search", query)
        return hits


async def wake(app: str) -> None:
    """Make Serve start a replica of a variant that sleeps at zero: a call that waits at its handle does that."""
    await LazyHandle("LLM", app).call("wake")
