"""A shelf over a fake engine and fake files, and requests that hold what is on it."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field

from deployments.llm.adapter_files import Folder
from deployments.llm.adapter_shelf import AdapterShelf, Place, World
from deployments.llm.engine import LoadedAdapter
from serve_app.config import LoraEngineConfig
from serve_app.contracts import AdapterTag
from tests.unit.serve_app.fakes import FakeClock


@dataclass
class FakeFolder:
    """A folder that knows whether it was let go."""

    path: str
    is_closed: bool = False

    def close(self) -> None:
        self.is_closed = True


@dataclass
class FakeFiles:
    """Hands out folders; ``broken`` sources cannot be had. Each fetch waits until it ``may_fetch``."""

    broken: set[str] = field(default_factory=set)
    fetched: list[str] = field(default_factory=list)
    folders: list[FakeFolder] = field(default_factory=list)
    may_fetch: threading.Event = field(default_factory=threading.Event)

    def fetch(self, source: str) -> Folder:
        self.fetched.append(source)
        assert self.may_fetch.wait(10)
        if source in self.broken:
            raise OSError(f"no {source}")
        self.folders.append(FakeFolder(source))
        return self.folders[-1]


@dataclass
class FakeAdapters:
    """An engine that writes down what comes and goes; ``broken`` adapters do not fit its model."""

    said: list[str] = field(default_factory=list)
    loaded: list[LoadedAdapter] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    most: int = 0

    async def load(self, adapter: LoadedAdapter, folder: str) -> None:
        await asyncio.sleep(0)
        if adapter.key in self.broken:
            raise ValueError("does not fit")
        self.said.append(f"+{adapter.key}")
        self.loaded.append(adapter)
        self.most = max(self.most, len(self.loaded))

    async def unload(self, adapter: LoadedAdapter) -> None:
        await asyncio.sleep(0)
        self.said.append(f"-{adapter.key}")
        self.loaded.remove(adapter)


@dataclass
class FakeWatcher:
    """Writes down what it hears."""

    heard: list[tuple[str, int]] = field(default_factory=list)

    def loaded(self, outcome: str, count: int) -> None:
        self.heard.append((outcome, count))

    def unloaded(self, count: int) -> None:
        self.heard.append(("gone", count))


@dataclass
class Made:
    """A shelf and all around it."""

    shelf: AdapterShelf
    engine: FakeAdapters
    files: FakeFiles
    clock: FakeClock
    watcher: FakeWatcher

    async def hold(self, *keys: str) -> list[Place]:
        """Return places that are held."""
        return [await self.shelf.take(tag(key)) for key in keys]

    async def use(self, *keys: str) -> None:
        """Use adapters, one after the other."""
        for key in keys:
            self.shelf.give_back(await self.shelf.take(tag(key)))

    def ask(self, key: str) -> asyncio.Task[Place]:
        """Ask for an adapter in a task of its own."""
        return asyncio.create_task(self.shelf.take(tag(key)))


def tag(key: str, revision: str = "r1") -> AdapterTag:
    """Return a tag whose source is ``src:<adapter>``."""
    return AdapterTag(f"{key}/v1", f"src:{key}", revision)


def made(max_loaded: int = 2, *, broken: tuple[str, ...] = (), is_slow: bool = False) -> Made:
    """Return a shelf with room for so many adapters."""
    engine, files, clock, watcher = FakeAdapters(), FakeFiles(broken=set(broken)), FakeClock(), FakeWatcher()
    if not is_slow:
        files.may_fetch.set()
    world = World(fetch=files.fetch, check=lambda folder, _: f"files-of-{folder}", clock=clock)
    room = LoraEngineConfig(max_loras=1, max_loaded=max_loaded)
    return Made(AdapterShelf(engine, model="chat", room=room, world=world, watcher=watcher), engine, files, clock, watcher)
