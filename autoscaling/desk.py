"""Desk: where the decisions on all deployments of a platform are made. One per process, as Serve has one controller.

Each deployment is an application of its own, so no policy of Serve's sees more than one of them; here they meet.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from autoscaling.budget import Claim, Ledger
from autoscaling.document import Held, ScaledApp, ScalingDocument
from autoscaling.feed import ClusterStore, Feed, Store
from autoscaling.observation import Decision, Observation
from autoscaling.reports import Raw, Reports, Sums
from autoscaling.scaler import Scaler

logger = logging.getLogger("ray.serve")

LOOK_S = 1.0  # Serve asks ten times a second; news come once a second
LLM = "LLM"  # the deployment whose requests reach its replicas past Serve's handles
ROUTER = "Router"  # its load is how busy it is: requests are none of its units
HELD_S = 15.0  # what Routers hold is believed this long
DRAIN_S = 120.0  # and what drains
HANDOVER_S = 5.0
NOTHING = Held(stamp=0.0)
GRACE_S = 5.0  # after a start, for every deployment to be asked about once: until then nobody knows what is held


@dataclass(frozen=True, slots=True)
class Look:
    """What Serve says of a deployment; what costs something is asked for only when it is needed."""

    app: str
    target: int
    replicas: Sequence[Hashable]  # that serve
    raw: Callable[[], Raw | None]
    queued: Callable[[], float]  # calls that wait at handles


@dataclass(slots=True)
class _File:
    """All that is known of one deployment."""

    scaler: Scaler
    reports: Reports = field(default_factory=Reports)
    looked_s: float = -LOOK_S
    answer: int = 0
    granted: int | None = None  # by the last decision
    shown: dict[str, Any] = field(default_factory=dict)
    decided: Counter[str] = field(default_factory=Counter)  # decisions by direction: up, down, hold
    arrived: float = 0.0
    most_arrived: float = 0.0  # of the sum that `arrived` follows
    most_at_s: float = 0.0
    is_deaf: bool = False
    is_failing: bool = False


class Desk:
    """Decides for every deployment that Serve asks about."""

    def __init__(
        self, store: Store, *, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self.feed = Feed(store, self._news)
        self._clock = clock
        self._wall = wall
        self._ledger = Ledger()
        self._files: dict[str, _File] = {}
        self._document_seen: ScalingDocument | None = None
        self._since_s = 0.0  # when the first document came
        self._held_seen = (0, 0.0)  # (news of the feed, when they came)
        self._published = ""

    def decide(self, look: Look) -> int:
        """Return how many replicas a deployment is to have: as many as it has, where nothing can be said. Never raises."""
        document = self.feed.document
        app = document.apps.get(look.app) if document is not None else None
        if document is None or app is None:
            return look.target  # nothing is known of it yet
        now_s = self._clock()
        file = self._files.get(look.app)
        if file is None:
            file = self._files[look.app] = _File(Scaler(app.settings))
        if now_s - file.looked_s < LOOK_S:
            return file.answer
        file.looked_s, file.answer = now_s, look.target  # which stands, should anything below fail
        try:
            self._hear(document, now_s)
            self._ledger.see(look.app, Claim(app.units, app.priority), target=look.target, now_s=now_s)
            file.scaler.config = app.settings
            file.answer = self._answer(look, app, file, now_s=now_s)
            file.is_failing = False
        except Exception:
            if not file.is_failing:
                logger.exception("no decision on %s; it stays at %d replicas", look.app, look.target)
            file.is_failing = True
        return file.answer

    def _answer(self, look: Look, app: ScaledApp, file: _File, *, now_s: float) -> int:
        sums = file.reports.take(look.raw(), look.replicas, now_s=now_s)
        seen = self._observe(look, app, file=file, sums=sums)
        decision = self._decision(app, file, seen, is_deaf=self._is_deaf(look, file, sums))
        wanted = decision.replicas if self._knows_all(now_s) else min(decision.replicas, look.target)
        least = min(app.settings.min_replicas, wanted)
        told = self._told(now_s, DRAIN_S)
        alive, draining = told.holding.get(look.app, 0), told.draining.get(look.app, 0)
        claim = Claim(app.units, app.priority, least, wanted, draining=draining, alive=alive)
        granted = self._ledger.grant(look.app, claim, target=look.target, now_s=now_s)
        if granted != look.target:
            logger.info("%s: %d -> %d replicas: %s", look.app, look.target, granted, decision.reason)
        if file.granted == 0 and look.target:
            file.decided["up"] += 1  # Serve wakes what sleeps by itself, without asking
        file.decided[_direction(look.target, granted)] += 1
        file.granted = granted
        self._show(file, seen, decision, granted=granted)
        return granted

    def _knows_all(self, now_s: float) -> bool:
        """Whether everything that may hold accelerators has been asked about, or has had the time to be."""
        document = self._document_seen
        if document is None or document.max_accelerators is None or now_s - self._since_s >= GRACE_S:
            return True
        return all(self._ledger.knows(app) for app, each in document.apps.items() if each.units and not _is_none(each))

    def _decision(self, app: ScaledApp, file: _File, seen: Observation, *, is_deaf: bool) -> Decision:
        if app.is_fixed:
            return Decision(app.settings.min_replicas, "fixed")
        if is_deaf:
            within = min(max(seen.target, app.settings.min_replicas), app.settings.max_replicas)
            return Decision(within, "most replicas report no load; the number stays")
        return file.scaler.decide(seen)

    def _observe(self, look: Look, app: ScaledApp, *, file: _File, sums: Sums) -> Observation:
        now_s = file.looked_s
        held = float(self._told(now_s, HELD_S).held.get(look.app, 0))
        if app.deployment == LLM and not look.replicas:
            held = max(held, look.queued())  # only then do calls wait at its handle, for requests that Routers hold as well
        elif app.deployment not in (LLM, ROUTER):
            held += look.queued()
        self._count(file, file.reports.arrived + held)
        return Observation(
            now_s=now_s,
            target=look.target,
            ready=len(look.replicas),
            waiting=sums.waiting,
            held=held,
            running=sums.running,
            arrived=file.arrived,
            slots=sums.slots,
            kv_cache_usage=sums.kv_cache,
        )

    @staticmethod
    def _count(file: _File, arrived: float) -> None:
        """Follow the arrivals. Their sum falls while a request is on its way from a Router to a replica, or when one leaves."""
        if arrived >= file.most_arrived or file.looked_s - file.most_at_s > HANDOVER_S:
            file.arrived += max(0.0, arrived - file.most_arrived)
            file.most_arrived, file.most_at_s = arrived, file.looked_s

    def _is_deaf(self, look: Look, file: _File, sums: Sums) -> bool:
        """Whether too few replicas report to decide anything; replicas that have just begun may be quiet."""
        is_deaf = bool(look.replicas) and sums.silent >= max(1, sums.heard) and look.target > 0
        if is_deaf and not file.is_deaf:
            logger.warning("%s: %d of %d replicas report no load", look.app, sums.silent, len(look.replicas))
        file.is_deaf = is_deaf
        return is_deaf

    def _told(self, now_s: float, within_s: float) -> Held:
        """Return what Rollouts has said; of longer ago than that, nothing."""
        held = self.feed.held
        return held if held is not None and now_s - self._held_seen[1] <= within_s else NOTHING

    def _hear(self, document: ScalingDocument, now_s: float) -> None:
        """Take what the feed has brought since the last look."""
        if document is not self._document_seen:
            if self._document_seen is None:
                self._since_s = now_s
            self._document_seen = document
            self._ledger.budget = document.max_accelerators
            self._files = {app: file for app, file in self._files.items() if app in document.apps}
        if self.feed.held_news != self._held_seen[0]:
            self._held_seen = self.feed.held_news, now_s
        asked = [app for app, each in document.apps.items() if not _is_none(each)]
        self._ledger.keep(asked, self._told(now_s, DRAIN_S).draining, now_s=now_s)

    def _show(self, file: _File, seen: Observation, decision: Decision, *, granted: int) -> None:
        file.shown = {
            "target": seen.target,
            "wanted": decision.replicas,
            "granted": granted if granted < decision.replicas else None,
            "reason": decision.reason,
            "ready": seen.ready,
            "waiting": round(seen.waiting, 1),
            "held": round(seen.held, 1),
            "running": round(seen.running, 2),
            "slots": seen.slots,
            "startup_s": round(file.scaler.startup_s, 1),
            "decided": dict(file.decided),
            "at": round(self._wall(), 1),
        }

    def _news(self) -> str | None:
        """Return the decisions as JSON, if they are others than the last time. Called by the feed's thread."""
        text = json.dumps({app: file.shown for app, file in list(self._files.items()) if file.shown})
        if text == self._published:
            return None
        self._published = text
        return text


def _direction(target: int, granted: int) -> str:
    if granted == target:
        return "hold"
    return "up" if granted > target else "down"


def _is_none(app: ScaledApp) -> bool:
    """Whether a deployment has no replica, ever: Serve asks nothing about it."""
    return app.is_fixed and not app.settings.min_replicas


@cache
def desk() -> Desk:
    """Return the desk of this process, its feed running."""
    made = Desk(ClusterStore())
    made.feed.start()
    return made
