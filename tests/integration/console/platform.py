"""A platform in this process for the console: the real Rollouts, gateway and REST front, and engines that are made up."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, TypeVar

import uvicorn

from deployments.declared import declared
from deployments.reporting import Reporter, keep_reporting
from deployments.rollouts import TTL_S, Rollouts
from deployments.router import follow
from serve_app.config import ApiKeyConfig
from serve_app.contracts import EngineLoad, ReplicaEntry, ReplicaState
from serve_app.gateway import Gateway, Stages
from serve_app.inference import Inference
from serve_app.rest import rollouts as rollout_routes
from serve_app.rest import scaling as scaling_routes
from serve_app.rest import timeline as timeline_routes
from serve_app.rest.app import RestApp
from serve_app.rest.http import Receive, Scope, Send
from serve_app.rollout.commands import Verb
from serve_app.rollout.document import revisions
from serve_app.rollout.telemetry import Outcome
from serve_app.status import status_report
from serve_app.timeline import EVERY_S, KEPT_S, Figures, Timeline, figures_now, keep_sampling
from tests.integration.console.engines import HITS, Engines
from tests.unit.deployments.fakes import MemoryState
from tests.unit.serve_app.fakes import FakeEmbedder, FakeRetriever, entry

PREFIX = "/team/manta"  # as an ingress may put before everything
T = TypeVar("T")


def variants(**weights: int) -> list[dict[str, Any]]:
    engine = {"kind": "simulated"}
    return [{"name": name, "source": f"org/{name}", "weight": weight, "engine": engine} for name, weight in weights.items()]


def platform_config(keys: Sequence[ApiKeyConfig] = (), **mail: int) -> dict[str, Any]:
    """Return a user_config with a model in a rollout, one with the plain weights given, and a pipeline."""
    rollout = {
        "variant": "canary",
        "baseline": "stable",
        "steps": [{"weight": 5, "pause": "1s"}, {"weight": 25, "pause": "30m"}, {"weight": 100}],
        "gates": {"error_rate": 0.01, "ttft_p95_ratio": 1.5, "min_requests": 100_000},
    }
    stable, *others = variants(stable=100, canary=0)
    stable["replicas"] = 3
    version = {"name": "v1", "embedder": "minilm", "collection": "docs", "prompt": "{{ question }}", "model": "chat"}
    return {
        "platform": {
            "models": [
                {"name": "chat", "variants": [stable, *others], "rollout": rollout},
                {"name": "mail", "variants": variants(**(mail or {"stable": 80, "next": 20}))},
            ],
            "embedders": [{"name": "minilm", "source": "org/minilm"}],
            "pipelines": [{"name": "docs-assistant", "versions": [version]}],
            "auth": {"keys": [key.model_dump(mode="json", exclude_unset=True) for key in keys]},
        }
    }


class Control:
    """The routes' way to Rollouts, without a handle between."""

    def __init__(self, rollouts: Rollouts) -> None:
        self._rollouts = rollouts

    async def rollouts(self) -> dict[str, Any]:
        return await self._rollouts.rollouts()

    async def history(self, name: str) -> list[dict[str, Any]]:
        return await self._rollouts.rollout_history(name)

    async def command(self, name: str, verb: Verb, *, by: str) -> dict[str, Any]:
        return await self._rollouts.command_rollout(name, verb.value, by)

    async def scaling(self) -> dict[str, Any]:
        return await self._rollouts.scaling()


class ConsolePlatform:
    """Runs in a thread of its own; ``call`` runs something on its event loop."""

    def __init__(self, *keys: ApiKeyConfig) -> None:
        self.engines = Engines()
        self.is_away = False  # True: the front answers nothing
        self._keys = keys
        self._chance = random.Random(7)  # noqa: S311  (made-up load)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    @property
    def url(self) -> str:
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}{PREFIX}"

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=20)

    def open_gate(self, gate: asyncio.Event) -> None:
        """Let an answer go on."""
        self._loop.call_soon_threadsafe(gate.set)

    def declare(self, **mail: int) -> None:
        """Apply a document with other weights."""
        self.call(self.rollouts.reconfigure(platform_config(self._keys, **mail)))

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(timeout=60)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=20)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        ahead_s = 0.0
        self.rollouts = Rollouts(lambda: time.monotonic() + ahead_s, state=MemoryState(), cluster_state=MemoryState())
        await self.rollouts.reconfigure(platform_config(self._keys))
        ahead_s = 2 * TTL_S  # every replica could be heard by now
        gateway = self._gateway()
        for beat in range(3):
            await self._beat(beat)
        gateway.update(await self.rollouts.status())
        timeline = Timeline()
        self._past(timeline, gateway)
        tasks = [
            asyncio.create_task(follow(gateway, self.rollouts.watch)),
            asyncio.create_task(keep_reporting(Reporter(gateway, router="a"), self.rollouts.report)),
            asyncio.create_task(keep_sampling(timeline, gateway)),
            asyncio.create_task(self._keep_beating()),
            asyncio.create_task(self._keep_loading(gateway)),
        ]
        self._server = uvicorn.Server(
            uvicorn.Config(self._app(gateway, timeline), port=0, log_level="critical", lifespan="off")
        )
        serving = asyncio.create_task(self._server.serve())
        while not self._server.started:  # noqa: ASYNC110  (uvicorn offers no event)
            await asyncio.sleep(0.01)
        self._ready.set()
        await serving
        for task in (*tasks, self.rollouts._ticking):
            if task is not None:
                task.cancel()

    def _gateway(self) -> Gateway:
        stages = Stages(retriever=FakeRetriever(HITS), embedders={"minilm": FakeEmbedder()})

        async def wake(model: str, variant: str) -> None:
            raise AssertionError((model, variant))

        return Gateway(upstream=self.engines, wake=wake, stages=stages)

    def _app(self, gateway: Gateway, timeline: Timeline) -> Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]:
        inference = Inference(gateway)
        control = Control(self.rollouts)
        more = [*rollout_routes.routes(inference, control), *scaling_routes.routes(inference, control)]

        async def report() -> dict[str, Any]:
            return status_report(gateway, SERVE)

        app = RestApp(inference, report=report, more=[*more, *timeline_routes.routes(inference, timeline)])

        async def prefixed(scope: Scope, receive: Receive, send: Send) -> None:
            path = scope["path"].removeprefix(PREFIX)
            if self.is_away:
                await send({"type": "http.response.start", "status": 502, "headers": []})
                await send({"type": "http.response.body", "body": b""})
            else:
                await app({**scope, "path": path, "raw_path": path.encode()}, receive, send)

        return prefixed

    def _entries(self) -> list[ReplicaEntry]:
        made_of = {m.name: revisions(m) for m in declared(platform_config()).routing.models}
        table = [
            ("r1", "chat", "stable", 3, 8, 0.61),
            ("r2", "chat", "stable", 1, 8, 0.58),
            ("r3", "chat", "canary", 0, 2, 0.12),
            ("r4", "mail", "stable", 0, 3, 0.2),
            ("r5", "mail", "next", 0, 1, 0.05),
        ]
        entries = []
        for replica, model, variant, waiting, running, cache in table:
            load = EngineLoad(waiting=waiting, running=running, kv_cache_usage_ratio=cache, open_requests=running)
            entries.append(replace(entry(replica, variant, model=model, revision=made_of[model][variant]), load=load))
        late = entry(
            "r6", "stable", model="chat", revision=made_of["chat"]["stable"], state=ReplicaState.STARTING, phase="load"
        )
        return [*entries, late]

    async def _beat(self, seq: int) -> None:
        for each in self._entries():
            await self.rollouts.heartbeat(each, seq)

    async def _keep_beating(self) -> None:
        for seq in itertools.count(10):
            await self._beat(seq)
            await asyncio.sleep(1.0)

    async def _keep_loading(self, gateway: Gateway) -> None:
        """Count requests as if they were answered: what figures are made of."""
        chance = self._chance
        shares = [("chat", "stable", 0.2, 12), ("chat", "canary", 0.22, 3), ("mail", "stable", 0.1, 4)]
        while True:
            await asyncio.sleep(0.2)
            for model, variant, ttft_s, each_s in shares:
                if chance.random() > each_s / 12:
                    continue
                began_s = gateway.attempts.clock() - ttft_s * chance.uniform(0.7, 1.6)
                attempt = gateway.attempts.begin((model, variant), began_s=began_s, is_stream=True)
                for _ in range(20):
                    attempt.piece(b"data: {}\n\n")
                attempt.end(Outcome.OK if chance.random() > 0.004 else Outcome.SERVER_ERROR)

    def _past(self, timeline: Timeline, gateway: Gateway) -> None:
        """Fill the timeline as if the platform had run for a while; its first minute is missing."""
        now_s, chance = time.time(), self._chance
        for back_s in range(KEPT_S - 60, 0, -EVERY_S):
            figures = {}
            for key, now in figures_now(gateway).items():
                queue = (
                    max(0, round(chance.gauss(9, 3))) if key == ("chat", "stable") and 240 < back_s < 500 else now.queue_depth
                )
                ready = 1 if key == ("chat", "stable") and back_s > 420 else now.ready
                running = max(0, round(chance.gauss(now.running, 1.5)))
                figures[key] = Figures(now.weight, ready, queue, running)
            timeline.add(figures, now_s=now_s - back_s)


SERVE = SimpleNamespace(
    applications={
        name: SimpleNamespace(
            status=SimpleNamespace(value=status),
            message=message,
            deployments={"D": SimpleNamespace(replica_states=states, message="")},
        )
        for name, status, message, states in (
            ("router", "RUNNING", "", {"RUNNING": 2}),
            ("rollouts", "RUNNING", "", {"RUNNING": 1}),
            ("llm.chat.stable", "DEPLOYING", "one replica waits for a node with 1 GPU", {"RUNNING": 2, "STARTING": 1}),
            ("llm.chat.canary", "RUNNING", "", {"RUNNING": 1}),
            ("llm.mail.stable", "RUNNING", "", {"RUNNING": 1}),
            ("llm.mail.next", "RUNNING", "", {"RUNNING": 1}),
            ("embedder.minilm", "RUNNING", "", {"RUNNING": 1}),
        )
    }
)


@contextmanager
def running(platform: ConsolePlatform) -> Iterator[ConsolePlatform]:
    """Run a platform."""
    platform.start()
    try:
        yield platform
    finally:
        platform.stop()
