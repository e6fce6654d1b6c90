"""Gateway: the one core of a request, free of Ray and of web frameworks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from serve_app.attempts import Attempts
from serve_app.call import Call as Call
from serve_app.call import Reply as Reply
from serve_app.contracts import CountingEmbedder, DirectorySnapshot, EmbeddingFingerprint, Retriever
from serve_app.documents.contract import Documents
from serve_app.errors import BadRequest, PlatformError, UnknownModel
from serve_app.needs import Needs
from serve_app.pool import ReplicaPool, VariantKey
from serve_app.relay import Relay, Watchers
from serve_app.replica_set import Balance
from serve_app.rollout.document import RoutedAdapter, RoutedModel, RoutingDocument
from serve_app.rollout.table import TrafficTable
from serve_app.shadow import Shadows
from serve_app.upstream import Upstream
from serve_app.view import RoutingView

logger = logging.getLogger("ray.serve")

Wake = Callable[[str, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Stages:
    """The other deployments of the graph, as the gateway calls them."""

    retriever: Retriever
    embedders: Mapping[str, CountingEmbedder] = field(default_factory=dict)
    documents: Documents | None = None


class Gateway:
    """Authenticate, resolve, pick, lease, relay. One per Router replica, on one event loop."""

    def __init__(self, *, upstream: Upstream, wake: Wake, stages: Stages, clock: Callable[[], float] = time.monotonic) -> None:
        self._wake = wake
        self.stages = stages
        self.view = RoutingView(RoutingDocument())
        self.pool = ReplicaPool(clock=clock)
        self.attempts = Attempts(clock=clock)
        self.shadows = Shadows(upstream=upstream, pool=self.pool, embedders=lambda: self.stages.embedders, clock=clock)
        self.needs = Needs(self.pool, clock=clock)
        self.pool.room.on_wait = self._make_place
        self.version: tuple[str, int] = ("", -1)
        self.updated_s = clock()
        self._routing = self._traffic = ""
        self._relay = Relay(
            upstream=upstream,
            pool=self.pool,
            watchers=Watchers(self.attempts, self.shadows),
            view=lambda: self.view,
            wake=self._see_asleep,
        )
        self.hedges = self._relay.hedges
        self.budgets = self._relay.budgets
        self._waking: dict[VariantKey, asyncio.Task[None]] = {}

    def update(self, snapshot: DirectorySnapshot) -> None:
        """Take a snapshot: a routing document or a traffic table that cannot be used changes nothing."""
        is_new = snapshot.routing != self._routing
        if is_new:
            self._route(snapshot.routing)
        if is_new or snapshot.traffic != self._traffic:
            self._split(snapshot.traffic)
        self.pool.update(snapshot.replicas, is_complete=snapshot.is_complete)
        self.version = (snapshot.epoch, snapshot.version)
        self.updated_s = self.attempts.clock()

    def _route(self, routing: str) -> None:
        self._routing = routing
        try:
            self.view = RoutingView(RoutingDocument.model_validate_json(routing))
        except ValueError:
            # Rollouts refuses such a document too. The directory must be followed all the same.
            logger.exception("the routing document cannot be used; the one before stays in force")
            return
        self.pool.room.max_waiting = self.view.document.limits.max_waiting
        self.pool.room.shedding.max_expected_wait_s = self.view.document.limits.max_expected_wait_s
        self.pool.limit_ejections(self.view.document.outlier_ejection)
        self.budgets.limits = self.view.document.retry_budget
        self.pool.balance = Balance(self.view.document.replica_choice, self.view.document.balance_factor)

    def _split(self, traffic: str) -> None:
        self._traffic = traffic
        if not traffic:
            return
        try:
            self.view = self.view.with_table(TrafficTable.model_validate_json(traffic))
        except ValueError:
            logger.exception("the traffic table cannot be used; the one before stays in force")
            return
        for split in self.view.table.splits:
            for variant in split.withdrawn:
                self.attempts.withdraw((split.name, variant))

    def is_ready(self, name: str | None = None) -> bool:
        """Whether the model, adapter or pipeline, or at least one model if none is named, takes work.

        A variant that may sleep at zero counts as ready: the request that wakes it waits, and is answered.
        """
        view = self.view
        if name is None:
            models = list(view.models.values())
        elif (pipeline := view.pipelines.get(name)) is not None:
            weights = view.split(name).weights
            return all(self.is_ready(version.model) for version in pipeline.versions if weights[version.name])
        elif (callee := view.callee(name)) is not None:
            models = [callee.model]  # an adapter's replicas load it when it is asked for
        else:
            raise UnknownModel(name)
        has_one = any(v.may_sleep or self.pool.has_ready(m.name, v.name) for m in models for v in m.variants)
        return has_one or (name is None and bool(self._routing) and not models)

    async def relay(self, call: Call, model: RoutedModel, adapter: RoutedAdapter | None = None) -> Reply:
        """Send a request for a model, or for an adapter of it, to one of its replicas and return the answer.

        Until the first byte is here, other replicas are tried; other variants while the conversation's own has no replica
        that can take it; and the baseline when the conversation's own has failed the request, or was withdrawn. Of an
        adapter the same holds for its versions.

        Raises:
            UpstreamRejected: the engine refused the request.
            AdapterUnavailable: no replica could load the adapter.
            RateLimited, DeadlineExceeded, Unavailable: no replica took it.
            UnknownModel: the model, or the adapter, went while the request waited.
        """
        return await self._relay.send(call, model, adapter)

    async def embed(self, name: str, texts: list[str], *, budget_s: float | None = None) -> list[list[float]]:
        """Return one vector per text from an embedder. Raises DeadlineExceeded: not within ``budget_s`` seconds."""
        return await self._embedder(name).embed(texts, budget_s=budget_s)

    async def count_tokens(self, name: str, texts: list[str], *, must_fit: bool = False) -> int:
        """Return how many tokens an embedder reads of the texts. Raises BadRequest: one that must fit does not."""
        return await self._embedder(name).count_tokens(texts, must_fit=must_fit)

    async def describe_embedder(self, name: str) -> EmbeddingFingerprint:
        """Return what an embedder's vectors are."""
        return await self._embedder(name).describe()

    def _embedder(self, name: str) -> CountingEmbedder:
        if name not in self.view.embedders:
            raise UnknownModel(name)
        return self.stages.embedders[name]

    def _make_place(self, key: VariantKey) -> bool:
        """Take back a copy's place for a request that would wait otherwise; whether there was one."""
        self.needs.wait(key)
        return self.shadows.shed(key)

    def _see_asleep(self, model: str, variant: str) -> None:
        """Have a replica started. A call would make Serve start one at once, also past the budget of accelerators."""
        known = self.view.models.get(model)
        if known is not None and variant in known.budgeted:
            self.needs.miss((model, variant))
        else:
            self._start_waking((model, variant))

    def _start_waking(self, key: VariantKey) -> None:
        task = self._waking.get(key)
        if task is None or task.done():
            self._waking[key] = asyncio.create_task(self._wake_quietly(*key))

    async def _wake_quietly(self, model: str, variant: str) -> None:
        try:
            await self._wake(model, variant)
        except PlatformError as err:
            logger.warning("waking %s.%s failed: %s", model, variant, err.message)
        except Exception:
            logger.exception("waking %s.%s failed", model, variant)


def require_text(value: object, param: str) -> str:
    """Return a non-empty string. Raises BadRequest naming the field."""
    if not isinstance(value, str) or not value.strip():
        raise BadRequest(f"{param} must be a non-empty string", param=param)
    try:
        value.encode()
    except UnicodeEncodeError as err:  # JSON may hold half a surrogate pair; tokenizers refuse it
        raise BadRequest(f"{param} must be valid Unicode", param=param) from err
    return value
