"""Rollouts: one replica that keeps the routing document, the traffic table and the directory, and tells Routers."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Callable
from typing import Any

from deployments.declared import declared
from deployments.rollout_metrics import NoMetrics, RolloutMetrics, Sources
from deployments.scaling_feed import ScalingFeed
from deployments.state import StateStore
from serve_app.contracts import DirectorySnapshot, ReplicaEntry
from serve_app.rollout.commands import Verb
from serve_app.rollout.controller import Controller, Kept, statuses
from serve_app.rollout.directory import Directory
from serve_app.rollout.document import RoutingDocument
from serve_app.rollout.gathering import Gathering
from serve_app.rollout.report import shadow_report, stats_report
from serve_app.rollout.telemetry import RouterReport
from serve_app.view import RoutingView

logger = logging.getLogger("ray.serve")

TTL_S = 4.0  # eight heartbeats: what kills or cuts off a replica is known to Routers within 5 s
STALL_S = TTL_S / 2  # longer between two looks, of which there is one a second: this process has read no heartbeats meanwhile
POLL_S = 20.0  # a watch without news returns after this long, so that dead watchers do not pile up
COALESCE_S = 0.1  # news closer together than this reach Routers as one
TICK_S = 1.0  # between two looks at the rollouts
SAVE_TIMEOUT_S = 3.0
SAVE_EVIDENCE_S = 10.0  # what gates have seen is kept this often, what was decided at once
PROGRESS, EVIDENCE, ROUTING = "progress", "evidence", "routing"


class Rollouts:
    """The control plane's memory. It carries no traffic: when it is away, Routers keep what they saw last.

    ``state`` keeps progress, history and evidence; ``cluster_state`` the last configuration that was good.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        state: StateStore,
        cluster_state: StateStore,
        metrics: RolloutMetrics | NoMetrics | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._state, self._cluster_state = state, cluster_state
        self._metrics = metrics or NoMetrics()
        self._directory = Directory(ttl_s=TTL_S)
        self._gathering = Gathering()
        self._controller = Controller(self._gathering, wall=wall)
        self._scaling = ScalingFeed(cluster_state, wall=wall)
        self._sources = Sources(self._controller, self._gathering, self._directory, self._scaling)
        self._routing = ""  # none yet
        self._kept_routing = ""
        self._refused: str | None = None
        self._epoch = uuid.uuid4().hex
        self._started_s = self._looked_s = clock()
        self._revision = 0
        self._told_version = -1  # of the traffic table
        self._news = asyncio.Event()
        self._saving = asyncio.Lock()
        self._saved = (0, 0)  # (table version, decisions) that are kept
        self._evidence_saved_s = clock()
        self._kept_evidence = "{}"  # without a rollout there is nothing to write
        self._is_restored = False
        self._ticking: asyncio.Task[None] | None = None

    async def reconfigure(self, user_config: dict[str, object]) -> None:
        """Take a new platform document, in place. One that is bad is refused; the one before stays in force.

        Raising would make Serve end this replica and start others that fail as well: nobody would keep the directory.
        Raises ValueError only where there was never a good one.
        """
        if not self._is_restored:
            await self._restore()
        try:
            now = declared(user_config)
        except ValueError as err:
            if not self._routing:
                raise
            self._refused = f"the configuration was refused, the one before stays in force: {err}"
            logger.exception("the configuration was refused; the one before stays in force")
        else:
            await self._take(now.routing)
            await self._scaling.declare(now.scaling)
        if self._ticking is None:
            self._ticking = asyncio.create_task(self._keep_ticking())

    async def check_health(self) -> None:
        """Raise when rollouts are no longer looked at."""
        if self._ticking is not None and self._ticking.done():
            raise RuntimeError("rollouts are no longer looked at")

    async def heartbeat(self, entry: ReplicaEntry, seq: int) -> None:
        """Hear from a replica; the first heartbeat registers it."""
        self._changed(lambda: self._directory.heartbeat(entry, seq=seq, now_s=self._clock()))

    async def drain(self, replica_id: str) -> None:
        """Stop new work for a replica whose streams are still open."""
        self._changed(lambda: self._directory.drain(replica_id))

    async def deregister(self, replica_id: str) -> None:
        """Forget a replica for good."""
        self._changed(lambda: self._directory.remove(replica_id, now_s=self._clock()))

    async def report(self, report: RouterReport) -> None:
        """Hear from a Router what it has counted."""
        self._gathering.take(report, now_s=self._clock())

    async def watch(self, epoch: str, version: int) -> DirectorySnapshot:
        """Return the first snapshot that differs from the caller's, or the same one after ``POLL_S`` seconds."""
        deadline_s = self._clock() + POLL_S
        while (now_s := self._clock()) < deadline_s:
            self._expire(now_s)
            if (epoch, version) != (self._epoch, self._version()):
                break
            news = self._news
            try:
                # Wake at least once per time-to-live: an expiry is news that nobody announces.
                await asyncio.wait_for(news.wait(), timeout=min(TTL_S / 8, deadline_s - now_s))
                await asyncio.sleep(COALESCE_S)
            except TimeoutError:
                continue
        return self._snapshot()

    async def status(self) -> DirectorySnapshot:
        """Return the snapshot as it is."""
        self._expire(self._clock())
        return self._snapshot()

    async def rollouts(self) -> dict[str, Any]:
        """Return how every split stands, what was counted, and which table each Router has in force, as JSON."""
        table = self._controller.table
        return {
            "table": {"version": table.version, "digest": table.digest},
            "routers": self._gathering.tables(),
            "refused": self._refused,
            "splits": statuses(self._controller),
            "stats": stats_report(self._gathering, self._controller.declared(), now_s=self._clock()),
            "shadows": shadow_report(self._gathering),
        }

    async def rollout_history(self, name: str) -> list[dict[str, Any]]:
        """Return the decisions on a model or pipeline, oldest first. Raises UnknownRollout."""
        self._controller.require(name)
        return [made.model_dump(mode="json") for made in self._controller.history.of(name)]

    async def command_rollout(self, name: str, verb: str, by: str) -> dict[str, Any]:
        """Do what an operator says; it is kept for good when this returns, unless the store is away.

        Raises:
            UnknownRollout, RolloutConflict: it cannot be done.
        """
        made = self._controller.command(name, Verb(verb), by=by)
        self._table_may_have_changed()
        await self._save()
        return made.model_dump(mode="json")

    async def scaling(self) -> dict[str, Any]:
        """Return what every application's number of replicas goes by, what was decided and what is held, as JSON."""
        return await self._scaling.report()

    async def tick(self) -> None:
        """Look at the rollouts once. Does nothing until every replica could be heard after a start."""
        now_s = self._clock()
        self._expire(now_s)
        if self._is_complete():
            await self._scaling.tick(self._directory, self._gathering, now_s)
            self._controller.tick(self._directory, now_s=now_s)
        self._table_may_have_changed()
        await self._save()
        if now_s - self._evidence_saved_s >= SAVE_EVIDENCE_S:
            self._evidence_saved_s = now_s
            await self._save_evidence()
        self._metrics.show(self._sources, now_s=now_s)

    async def _keep_ticking(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self.tick()
            except Exception:
                logger.exception("a look at the rollouts failed; the table stays as it is")

    async def _take(self, document: RoutingDocument) -> None:
        routing = document.model_dump_json()
        self._refused = None
        self._controller.declare(document)
        if routing != self._routing:
            self._routing = routing
            self._revision += 1
        self._table_may_have_changed()
        self._tell()
        await self._save()

    async def _restore(self) -> None:
        """Go on where an earlier process ended. Raises what the store raises: to begin anew would undo a rollback."""
        kept, evidence = await self._state.get(PROGRESS), await self._state.get(EVIDENCE)
        if kept is not None:
            self._controller.restore(Kept.model_validate_json(kept), _evidence(evidence))
            self._saved = self._now_kept()
        if (routing := await self._cluster_state.get(ROUTING)) is not None:
            try:
                document = RoutingDocument.model_validate_json(routing)
                RoutingView(document)
            except ValueError:  # of another version of this program
                logger.warning("the last configuration cannot be read any more")
            else:
                self._controller.declare(document)
                self._routing = self._kept_routing = routing.decode()
        await self._scaling.restore()
        self._is_restored = True
        # A store may take long, and nobody could be heard before.
        self._started_s = self._looked_s = self._clock()

    async def _save(self) -> None:
        """Keep what was decided, if it is not kept yet; a store that is away is tried again at the next look."""
        async with self._saving:
            if (now := self._now_kept()) != self._saved and await self._put(
                self._state, PROGRESS, self._controller.keep().model_dump_json()
            ):
                self._saved = now
            routing = self._routing
            if routing != self._kept_routing and await self._put(self._cluster_state, ROUTING, routing):
                self._kept_routing = routing

    async def _save_evidence(self) -> None:
        evidence = json.dumps(self._controller.evidence())
        if evidence != self._kept_evidence and await self._put(self._state, EVIDENCE, evidence):
            self._kept_evidence = evidence

    async def _put(self, store: StateStore, key: str, text: str) -> bool:
        try:
            async with asyncio.timeout(SAVE_TIMEOUT_S):  # a store that hangs must not keep rollouts from being looked at
                await store.put(key, text.encode())
        except Exception:
            logger.exception("%s could not be kept", key)
            return False
        return True

    def _now_kept(self) -> tuple[int, int]:
        return self._controller.table.version, self._controller.history.count

    def _table_may_have_changed(self) -> None:
        if self._controller.table.version != self._told_version:
            self._told_version = self._controller.table.version
            self._revision += 1
            self._tell()

    def _expire(self, now_s: float) -> None:
        stalled_s, self._looked_s = now_s - self._looked_s, now_s
        if stalled_s > STALL_S:  # else all replicas at once would be given up for this process' own silence
            self._directory.excuse(stalled_s, now_s=now_s)
        self._changed(lambda: self._directory.expire(now_s=now_s))

    def _is_complete(self) -> bool:
        return self._clock() - self._started_s > TTL_S

    def _version(self) -> int:
        # Becoming complete is news as well: only then may Routers forget replicas that the restart made unknown.
        return self._directory.version + self._revision + int(self._is_complete())

    def _snapshot(self) -> DirectorySnapshot:
        return DirectorySnapshot(
            epoch=self._epoch,
            version=self._version(),
            replicas=self._directory.entries(),
            routing=self._routing or RoutingDocument().model_dump_json(),
            traffic=self._controller.table.model_dump_json(),
            is_complete=self._is_complete(),
        )

    def _changed(self, change: Callable[[], None]) -> None:
        before = self._directory.version
        change()
        if self._directory.version != before:
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def _evidence(data: bytes | None) -> dict[str, Any]:
    """Return what gates had seen; what cannot be read is gathered again."""
    try:
        found = json.loads(data or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
