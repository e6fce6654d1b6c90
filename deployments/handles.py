"""Handles of other applications, fetched when first used: applications start in any order and may come later."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from deployments.tries import TRY_S, Lost, Patience, Tries
from serve_app.contracts import DirectorySnapshot, EmbeddingFingerprint, Hit, ReplicaEntry, SearchQuery
from serve_app.errors import PlatformError, RateLimited, Unavailable
from serve_app.limits.messages import Message, Reply
from serve_app.observing.record import current_link, current_record
from serve_app.rollout.commands import Verb
from serve_app.rollout.telemetry import RouterReport

RETRY_S = 0.5
# Of what has one replica, another try would only meet the same one, or wait for its successor.
ONE_REPLICA = Patience(total_s=60.0, try_s=math.inf)
FOR_EVER = Patience(total_s=math.inf, try_s=math.inf)
EMBED_S = 600.0  # for a call whose caller sets no limit
TEXT_S = 2.0  # of a slow embedder, for one text

Asked = tuple[tuple[Any, ...], Mapping[str, Any]]  # arguments by position and by name


class LazyHandle:
    """A Serve deployment handle by application name. What its calls raise: ``call``."""

    def __init__(self, deployment: str, app: str, *, wait_s: float = 0.0) -> None:
        self._deployment = deployment
        self._app = app
        self._wait_s = wait_s
        self._handle: Any = None
        self._tries = Tries(app, LOST)

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the deployment and return its result; it runs once, or not at all.

        Raises:
            Unavailable: the application does not exist, ``wait_s`` seconds long, or its replica is gone.
            RateLimited: it has more requests than it takes.
            Exception: what the method raised.
        """
        return await self._told(self._tries.write(lambda _: self._send(method, args, kwargs)))

    async def read(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Return the result of a method that may run twice; a replica that dies costs another try.

        Raises:
            DeadlineExceeded: there was no answer within a minute.
            Exception: as ``call``.
        """
        return await self._told(self._tries.read(lambda _: self._send(method, args, kwargs), ONE_REPLICA))

    async def read_within(self, patience: Patience, method: str, asked: Callable[[float], Asked]) -> Any:
        """Return the result as ``read``; what is ``asked`` depends on the seconds left, and a slow replica costs another try.

        Raises:
            DeadlineExceeded: there was no answer in time.
            Exception: as ``call``.
        """
        return await self._told(self._tries.read(lambda left_s: self._send(method, *asked(left_s)), patience))

    async def _send(self, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if self._handle is None:
            self._handle = await self._find()
        response = getattr(self._handle, method).remote(*args, **kwargs)
        try:
            return await response
        except asyncio.CancelledError as err:
            response.cancel()  # or the replica would go on with it
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            raise Dropped(f"{self._app} dropped the call") from err  # another caller of the same batch has left

    async def _told(self, work: Awaitable[Any]) -> Any:
        try:
            return await work
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


class Dropped(Exception):
    """Nobody cancelled the call here, and yet it was cancelled where it ran."""


def _is_lost(error: Exception) -> bool:
    from ray.exceptions import RayActorError, TaskCancelledError
    from ray.serve.exceptions import RequestCancelledError

    lost = RayActorError | TaskCancelledError | RequestCancelledError | Dropped
    return isinstance(error, lost) or _was_never_sent(error)


def _was_never_sent(error: Exception) -> bool:
    from ray.serve.exceptions import DeploymentUnavailableError, ReplicaUnavailableError

    return isinstance(error, DeploymentUnavailableError | ReplicaUnavailableError)


LOST = Lost(_is_lost, _was_never_sent)


def _of_serve(error: Exception, app: str) -> PlatformError | None:
    """Return what a failure of Serve's own means to a client, or None for an error of the method called."""
    from ray.serve.exceptions import BackPressureError

    if isinstance(error, BackPressureError):
        return RateLimited(f"{app} is busy; try again later", retry_after_s=5)
    if _is_lost(error):
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
        await self._handle.read("drain", replica_id)

    async def deregister(self, replica_id: str) -> None:
        """Say a replica's goodbye."""
        await self._handle.read("deregister", replica_id)

    async def watch(self, epoch: str, version: int) -> DirectorySnapshot:
        """Return the first snapshot that differs from the caller's."""
        snapshot: DirectorySnapshot = await self._handle.read_within(FOR_EVER, "watch", lambda _: ((epoch, version), {}))
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
        found: dict[str, Any] = await self._handle.read("rollouts")
        return found

    async def scaling(self) -> dict[str, Any]:
        """Return how the number of every application's replicas stands."""
        found: dict[str, Any] = await self._handle.read("scaling")
        return found

    async def history(self, name: str) -> list[dict[str, Any]]:
        """Return the decisions on one. Raises UnknownRollout."""
        found: list[dict[str, Any]] = await self._handle.read("rollout_history", name)
        return found

    async def command(self, name: str, verb: Verb, *, by: str) -> dict[str, Any]:
        """Do what an operator says, and return the record of it. Raises UnknownRollout, RolloutConflict."""
        made: dict[str, Any] = await self._handle.call(
            "command_rollout", name, verb.value, by, request_id=current_record().request_id
        )
        return made

    async def load_tests(self) -> list[dict[str, Any]]:
        """Return the last result of each load test."""
        found: list[dict[str, Any]] = await self._handle.read("load_tests")
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
    """The embed stage over a handle. ``try_s``: after which a call of one text or of none tries another replica."""

    def __init__(self, app: str, *, try_s: float = TRY_S) -> None:
        self._handle = LazyHandle("Embedder", app)
        self._try_s = try_s

    async def embed(self, texts: Sequence[str], *, budget_s: float | None = None) -> list[list[float]]:
        """Return one vector per text. Raises DeadlineExceeded: not within ``budget_s``, where it is given."""
        link = current_link(is_sampled=True)
        traced: dict[str, Any] = {} if link is None else {"trace": link}

        def asked(left_s: float) -> Asked:
            return (list(texts),), traced if budget_s is None else {**traced, "budget_s": left_s}

        vectors: list[list[float]] = await self._handle.read_within(self._patience(texts, budget_s), "embed", asked)
        return vectors

    async def count_tokens(self, texts: Sequence[str], *, must_fit: bool = False) -> int:
        """Return how many tokens are read of the texts together. Raises BadRequest: one that must fit does not."""
        asked = (list(texts),), {"must_fit": must_fit}
        return int(await self._handle.read_within(self._patience(texts, None), "count_tokens", lambda _: asked))

    async def describe(self) -> EmbeddingFingerprint:
        """Return what the vectors are."""
        patience = Patience(try_s=self._try_s)
        fingerprint: EmbeddingFingerprint = await self._handle.read_within(patience, "describe", lambda _: ((), {}))
        return fingerprint

    def _patience(self, texts: Sequence[str], budget_s: float | None) -> Patience:
        return Patience(EMBED_S if budget_s is None else budget_s, max(self._try_s, TEXT_S * len(texts)))


class HandleEmbedders(Mapping[str, HandleEmbedder]):
    """Embedders by name; the routing document decides which names are asked for."""

    def __init__(self, app_of: Callable[[str], str], *, try_s: float = TRY_S) -> None:
        self._app_of = app_of
        self._try_s = try_s
        self._embedders: dict[str, HandleEmbedder] = {}

    def __getitem__(self, name: str) -> HandleEmbedder:
        if name not in self._embedders:
            self._embedders[name] = HandleEmbedder(self._app_of(name), try_s=self._try_s)
        return self._embedders[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._embedders)

    def __len__(self) -> int:
        return len(self._embedders)


class HandleRetriever:
    """The retrieve stage over a handle."""

    def __init__(self, app: str) -> None:
        self._handle = LazyHandle("Retriever", app)

    async def prepare(self) -> None:
        """Return once a Retriever has answered. Raises what ``LazyHandle.read`` does."""
        await self._handle.read("check_health")

    async def search(self, query: SearchQuery) -> list[Hit]:
        """Return hits, best first. Raises DeadlineExceeded: not within the query's budget."""
        if (link := current_link(is_sampled=True)) is not None:
            query = replace(query, trace=link)

        def asked(left_s: float) -> Asked:
            return (replace(query, budget_s=left_s),), {}

        hits: list[Hit] = await self._handle.read_within(Patience(query.budget_s), "search", asked)
        return hits


async def wake(app: str) -> None:
    """Make Serve start a replica of a variant that sleeps at zero: a call that waits at its handle does that."""
    await LazyHandle("LLM", app).call("wake")
