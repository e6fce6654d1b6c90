from __future__ import annotations

import asyncio
import logging

import pytest

from deployments import router as router_module
from deployments.busy import BusyShare
from deployments.router import build_asgi, follow, router_signals
from serve_app.contracts import DirectorySnapshot
from tests.unit.deployments.clock import Clock
from tests.unit.serve_app.fakes import entry, gateway, snapshot, turns, until


class Rollouts:
    """Gives the next snapshot, or fails with the next error; then nothing happens any more."""

    def __init__(self, *news: DirectorySnapshot | Exception) -> None:
        self._news = list(news)
        self.asked: list[tuple[str, int]] = []

    async def watch(self, epoch: str, version: int) -> DirectorySnapshot:
        self.asked.append((epoch, version))
        if not self._news:
            await asyncio.Event().wait()
        if isinstance(news := self._news.pop(0), Exception):
            raise news
        return news


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router_module, "RETRY_S", 0.0)


async def followed(rollouts: Rollouts) -> list[str]:
    """Return the replicas that the gateway knows when the news have run out."""
    made = gateway()
    following = asyncio.create_task(follow(made, rollouts.watch))
    await turns(30)
    assert not following.done()
    following.cancel()
    await asyncio.wait([following])
    return [e.replica_id for e in made.pool.entries()]


async def test_the_gateway_follows_the_newest_snapshot() -> None:
    rollouts = Rollouts(snapshot(entry("r1")), snapshot(entry("r2"), version=2))
    assert await followed(rollouts) == ["r2"]
    assert rollouts.asked == [("", -1), ("e", 1), ("e", 2)]


async def test_what_was_seen_last_stays_in_force_while_rollouts_is_away(caplog: pytest.LogCaptureFixture) -> None:
    rollouts = Rollouts(snapshot(entry("r1")), OSError("away"), OSError("away"))
    with caplog.at_level(logging.ERROR, logger="ray.serve"):
        assert await followed(rollouts) == ["r1"]
    assert rollouts.asked == [("", -1), ("e", 1), ("e", 1), ("e", 1)]
    assert caplog.text.count("Rollouts is away") == 1


async def test_a_watch_that_never_returns_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router_module, "WATCH_TIMEOUT_S", 0.001)
    rollouts = Rollouts()
    following = asyncio.create_task(follow(gateway(), rollouts.watch))
    await until(lambda: len(rollouts.asked) > 1)
    following.cancel()
    await asyncio.wait([following])


async def test_the_ingress_answers_lifespan_before_there_is_a_router() -> None:
    sent: list[str] = []

    async def receive() -> dict[str, str]:
        return {"type": "lifespan.shutdown"}

    async def send(message: dict[str, str]) -> None:
        sent.append(message["type"])

    await build_asgi()({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.shutdown.complete"]


def test_the_load_of_a_router_is_how_busy_its_process_is() -> None:
    cpu, clock = Clock(0.0), Clock(0.0)
    busy = BusyShare(cpu=cpu, clock=clock)
    cpu.now_s, clock.now_s = 3.0, 4.0
    assert router_signals(busy) == {"manta_waiting": 0, "manta_running": 0.75, "manta_slots": 1, "manta_arrived": 0}
