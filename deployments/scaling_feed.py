"""ScalingFeed: what Rollouts tells the policies, by Ray's key-value store, and what they tell people."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from autoscaling.document import DECISIONS, HELD, SCALING, Held, ScaledApp, ScalingDocument
from deployments.names import llm_app
from deployments.state import StateStore
from serve_app.contracts import ReplicaState
from serve_app.rollout.directory import Directory
from serve_app.rollout.gathering import Gathering

logger = logging.getLogger("ray.serve")

ALIVE_S = 5.0  # news or none, policies are told this often that somebody counts
TIMEOUT_S = 1.0  # a store that hangs must not keep rollouts from being looked at


class ScalingFeed:
    """Publishes settings when they change and held requests as they are. A store that is away is tried again."""

    def __init__(self, store: StateStore, *, wall: Callable[[], float]) -> None:
        self._store = store
        self._wall = wall
        self.document = ScalingDocument()
        self.decisions: Mapping[str, Mapping[str, Any]] = {}  # by application, as they were at the last tick
        self._kept: str | None = None
        self._is_declared = False
        self._now = Held(stamp=0.0)
        self._told: Held | None = None

    async def restore(self) -> None:
        """Find what an earlier process has declared. Raises what the store raises."""
        if (kept := await self._store.get(SCALING)) is None:
            return
        try:
            self.document = ScalingDocument.model_validate_json(kept)
        except ValueError:  # of another version of this program
            logger.warning("the last scaling settings cannot be read any more")
        else:
            self._kept = kept.decode()

    async def declare(self, document: ScalingDocument) -> None:
        """Take new settings, and publish them."""
        self.document, self._is_declared = document, True
        await self._publish_settings()

    async def tick(self, directory: Directory, gathering: Gathering, now_s: float) -> None:
        """Publish what has to be. To be called once every replica could be heard: one unheard of would seem to be gone.

        ``now_s`` is of the clock that the directory and the gathering go by.
        """
        await self._publish_settings()
        held = {llm_app(*key): count for key, count in gathering.held(now_s=now_s).items()}
        entries = directory.entries()
        holding = Counter(llm_app(entry.model, entry.variant) for entry in entries)
        leaving = (entry for entry in entries if entry.state is ReplicaState.DRAINING)
        draining = Counter(llm_app(entry.model, entry.variant) for entry in leaving)
        self._now = now = Held(stamp=self._wall(), held=held, holding=dict(holding), draining=dict(draining))
        if self._is_news(now) and await self._put(HELD, now.model_dump_json()):
            self._told = now
        if (decisions := await self._decisions()) is not None:
            self.decisions = decisions

    async def report(self) -> dict[str, Any]:
        """Return settings, decisions and the budget's use, as JSON."""
        decisions = await self._decisions() or {}
        apps = [self._of_app(name, app, decisions) for name, app in sorted(self.document.apps.items())]
        in_use = sum(each["units"] * each["holding"] for each in apps)
        return {"budget": {"max_accelerators": self.document.max_accelerators, "in_use": in_use}, "apps": apps}

    def _of_app(self, name: str, app: ScaledApp, decisions: Mapping[str, Any]) -> dict[str, Any]:
        decision = decisions.get(name)
        return {
            "name": name,
            **app.model_dump(mode="json"),
            "held": self._held(name, app, decision),
            "holding": self._holding(name, app, decision),
            "decision": decision,
        }

    def _held(self, name: str, app: ScaledApp, decision: Mapping[str, Any] | None) -> float:
        """Return the requests that wait for a replica: at Routers, or at Serve's handles, which the policy alone sees."""
        if app.deployment == "LLM":
            return self._now.held.get(name, 0)
        return 0 if decision is None else decision.get("held", 0)

    def _holding(self, name: str, app: ScaledApp, decision: Mapping[str, Any] | None) -> int:
        """Return how many replicas there are; of an application that no directory knows, how many there should be."""
        if app.deployment == "LLM":
            return self._now.holding.get(name, 0)
        return app.settings.min_replicas if decision is None else int(decision["target"])

    def _is_news(self, now: Held) -> bool:
        told = self._told
        was, so = (each and (each.held, each.holding, each.draining) for each in (told, now))
        if told is None or now.held or was != so:
            return True
        return not 0 <= now.stamp - told.stamp < ALIVE_S  # a wall clock may be set back

    async def _publish_settings(self) -> None:
        text = self.document.model_dump_json()
        # Before anything was declared there is nothing to say: defaults would replace what is in force.
        if self._is_declared and text != self._kept and await self._put(SCALING, text):
            self._kept = text

    async def _decisions(self) -> dict[str, Any] | None:
        """Return what policies have decided, or None when that cannot be read."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                found = json.loads(await self._store.get(DECISIONS) or b"{}")
        except Exception:
            logger.exception("what policies have decided cannot be read")
            return None
        decisions = found if isinstance(found, dict) else {}
        return {name: made for name, made in decisions.items() if isinstance(made, dict) and "target" in made}

    async def _put(self, key: str, text: str) -> bool:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._store.put(key, text.encode())
        except Exception:
            logger.exception("%s could not be published", key)
            return False
        return True
