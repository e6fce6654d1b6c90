"""Errands and their targets: a request on its way to a replica, and which variant's replicas it may go to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from serve_app.adapter_errand import AdapterErrand
from serve_app.call import Call, Reply
from serve_app.continuation_plan import Plan
from serve_app.errors import PlatformError, Unavailable, UnknownModel
from serve_app.pool import Lease, ReplicaPool, Target
from serve_app.rollout.document import RoutedModel, RoutedVariant
from serve_app.upstream import UpstreamRequest
from serve_app.view import RoutingView

ATTEMPTS = 4  # replicas tried before the first byte
BROKEN_ATTEMPTS = 2  # connections that may break with the request on them: a request that kills engines must not kill all


@dataclass(slots=True)
class Errand:
    """A request on its way to a replica, and what became of it so far."""

    model: str
    request: UpstreamRequest
    call: Call
    affinity: Callable[[], str]
    adapter: AdapterErrand | None = None  # where the request is for one of the model's adapters
    plan: Plan | None = None  # where its stream may go on at another replica
    tried: list[str] = field(default_factory=list)
    broken: int = 0
    faults: int = 0  # of replicas that it was given another one for
    failed: set[str] = field(default_factory=set)  # variants that failed it
    error: PlatformError | None = None  # what the last one that failed it said
    is_picked: bool = False  # it has been chosen where it goes, at least once
    rescue: tuple[asyncio.Task[Reply | None], Lease] | None = None  # the same request at a second replica, on its way
    may_be_rescued: bool = False  # whoever waits for its answer would take one from there
    was_rescued: bool = False  # it had one
    is_anew: bool = False  # left to another one: the time that it took so far is not that one's

    @property
    def name(self) -> str:
        """What the client called."""
        return self.model if self.adapter is None else self.adapter.name

    @property
    def may_go_on(self) -> bool:
        """Whether another replica may be tried."""
        return len(self.tried) < ATTEMPTS and self.broken < BROKEN_ATTEMPTS

    @property
    def is_stream(self) -> bool:
        """Whether the client asked for a stream."""
        return self.call.body.get("stream") is True


class Targets:
    """Chooses where errands go. One per Router, on its event loop; ``wake`` has a replica of a variant started."""

    def __init__(self, *, view: Callable[[], RoutingView], pool: ReplicaPool, wake: Callable[[str, str], None]) -> None:
        self._view = view
        self._pool = pool
        self._wake = wake

    def choose(self, errand: Errand) -> Target:
        """Return the conversation's variant, or the heaviest that can take work while its own has no replica.

        A variant that the client has been told of is the only one; so is one that a pipeline's version names.
        """
        view, name, answerer = self._view(), errand.model, errand.call.answerer
        model = view.models.get(name)
        if model is None:
            raise UnknownModel(name)
        if errand.adapter is not None:
            self._choose_version(errand, errand.adapter)
        if (only := errand.call.variant or answerer.told_variant) is not None:
            answerer.variant = only
            return self._only_target(model, only, errand)
        own = self._own(view, model, errand)
        if not self._pool.has_ready(name, own):
            self._wake(name, own)
        chosen = next(v for v in model.variants if v.name == own)
        if not self._pool.can_take(name, own):
            weights = view.split(name).weights
            fit = (v for v in model.variants if weights[v.name] and v.name not in errand.failed)
            able = [v for v in fit if self._pool.can_take(name, v.name)]
            chosen = max(able, key=lambda v: weights[v.name], default=chosen)
        answerer.variant = chosen.name
        return _target_of(chosen, errand)

    def has_spare(self, errand: Errand, variant: str) -> bool:
        """Whether the baseline may answer, and can, what this variant has failed."""
        view, name = self._view(), errand.model
        model = view.models.get(name)
        if model is None or not model.fallback or errand.call.variant is not None:
            return False
        if errand.call.answerer.told_variant is not None:
            return False
        baseline = view.split(name).baseline
        return variant != baseline and baseline not in errand.failed and self._pool.can_take(name, baseline)

    def has_other(self, errand: Errand, lease: Lease) -> bool:
        """Whether another replica of the variant may answer what this one has failed: once for each request."""
        tried = {*errand.tried, lease.replica_id}
        return not errand.faults and self._pool.has_other(errand.model, lease.variant, tried)

    def is_out(self, errand: Errand, variant: str) -> bool:
        """Whether a variant was withdrawn and the baseline can take its place; not when the whole model has gone."""
        if errand.adapter is not None and errand.adapter.is_out:
            return True
        return self.has_spare(errand, variant) and variant in self._view().split(errand.model).withdrawn

    def _choose_version(self, errand: Errand, adapter: AdapterErrand) -> None:
        tag = adapter.choose(errand.affinity)
        errand.call.answerer.adapter_version = adapter.version
        if errand.request.adapter != tag:
            errand.request = replace(errand.request, adapter=tag)

    def _own(self, view: RoutingView, model: RoutedModel, errand: Errand) -> str:
        """Return the variant that owns the conversation, or the one that stands in for it after a failure."""
        # The key of a long conversation takes long to make, and where there is one variant there is nothing to choose.
        own = view.variant(model, errand.affinity()) if len(model.variants) > 1 else model.variants[0].name
        return view.split(model.name).baseline if own in errand.failed else own

    def _only_target(self, model: RoutedModel, name: str, errand: Errand) -> Target:
        chosen = next((v for v in model.variants if v.name == name), None)
        if chosen is None:
            raise Unavailable(f"the variant of model {model.name!r} that had the request is gone; send it again")
        if not self._pool.has_ready(model.name, chosen.name):
            self._wake(model.name, chosen.name)
        return _target_of(chosen, errand)


def _target_of(variant: RoutedVariant, errand: Errand) -> Target:
    adapter = errand.request.adapter
    return Target(errand.model, variant.name, variant.max_leases, None if adapter is None else adapter.key)
