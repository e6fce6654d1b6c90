"""What a change of weights does to a platform under load: measured while the configuration is put as KubeRay puts it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from benchmarks.canary_switch.open_loop import Answered, Load
from serve_app.rollout.table import Split

WAIT_S = 60.0


class Running(Protocol):
    """A platform that runs."""

    @property
    def url(self) -> str:
        """Where it listens."""
        ...

    @property
    def applications(self) -> Mapping[str, Any]:
        """Serve's own report, by application."""
        ...

    def put(self, weights: Mapping[str, int]) -> None:
        """Put the whole configuration with other weights."""
        ...


@dataclass(frozen=True, slots=True)
class Switch:
    """One change of weights."""

    weights: Mapping[str, int]
    put_s: float  # that the PUT itself took
    told_s: float  # from the PUT's begin until every Router had said that the new table is in force
    last_old_s: float  # from the PUT's begin until the last chat was sent that the old owner of its bucket answered
    chats: int
    failed: int
    misrouted: int  # chats, clearly before or after, that another than the bucket's owner answered
    restarted: tuple[str, ...]  # applications with other processes than before


def replica_pids(applications: Mapping[str, Any]) -> dict[str, frozenset[int]]:
    """Return the processes of every application's replicas."""
    return {
        name: frozenset(r["pid"] for d in app["deployments"].values() for r in d["replicas"] if r.get("pid"))
        for name, app in applications.items()
    }


async def switch(running: Running, *, before: Split, after: Split, rate: float, settle_s: float = 4.0) -> Switch:
    """Change the weights in the middle of a load, and return what came of it."""
    load = Load(running.url, rate)
    pids = replica_pids(running.applications)
    async with load.running():
        await asyncio.sleep(settle_s)
        begun_s = time.monotonic()
        put = asyncio.create_task(asyncio.to_thread(running.put, after.weights))
        told_s = await _told_everywhere(running.url, after) - begun_s
        await put
        put_s = time.monotonic() - begun_s
        await asyncio.sleep(settle_s)
    now = replica_pids(running.applications)
    restarted = tuple(sorted(name for name in pids.keys() | now.keys() if pids.get(name) != now.get(name)))
    owners = (owners_of(before), owners_of(after))
    moved = [a for a in load.answers if owners[0][a.bucket] != owners[1][a.bucket] and a.sent_s >= begun_s]
    old = [a.sent_s - begun_s for a in moved if a.variant == owners[0][a.bucket]]
    return Switch(
        weights=dict(after.weights),
        put_s=put_s,
        told_s=told_s,
        last_old_s=max(old, default=0.0),
        chats=len(load.answers),
        failed=len(load.failed()),
        misrouted=sum(is_misrouted(a, owners, begun_s=begun_s, ended_s=begun_s + max(told_s, 2.0)) for a in load.answers),
        restarted=restarted,
    )


async def _told_everywhere(url: str, after: Split) -> float:
    """Return when every Router had reported the table that has these weights."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        deadline_s = time.monotonic() + WAIT_S
        while time.monotonic() < deadline_s:
            report = (await client.get("/admin/rollouts")).json()
            split = next(s for s in report["splits"] if s["name"] == after.name)
            versions = set(report["routers"].values())
            if split["weights"] == dict(after.weights) and versions == {report["table"]["version"]}:
                return time.monotonic()
            await asyncio.sleep(0.05)
    raise TimeoutError(f"not every Router has {dict(after.weights)} in force after {WAIT_S} s")


def owners_of(split: Split) -> list[str]:
    """Return the owner of every bucket."""
    return [r.variant for r in split.ranges for _ in range(r.start, r.stop)]


def is_misrouted(answer: Answered, owners: tuple[list[str], list[str]], *, begun_s: float, ended_s: float) -> bool:
    """Return whether another than the bucket's owner answered a chat that was over before the change, or sent after it."""
    if answer.is_failed:
        return False
    if answer.ended_s is not None and answer.ended_s < begun_s:
        return answer.variant != owners[0][answer.bucket]
    return answer.sent_s > ended_s and answer.variant != owners[1][answer.bucket]
