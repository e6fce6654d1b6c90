"""AdapterShelf: the LoRA adapters that a replica keeps in memory; who is unused for longest makes room."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from deployments.llm.adapter_files import Folder, check_files, fetch
from deployments.llm.adapter_metrics import AdapterWatcher, NoAdapterMetrics
from deployments.llm.engine import AdapterEngine, LoadedAdapter
from serve_app.config import LoraEngineConfig
from serve_app.config_fields import public_name
from serve_app.contracts import AdapterTag

logger = logging.getLogger("ray.serve")

MOST_WAIT_S = 600.0  # for an adapter that some other one has to make room for
RETRY_S = 30.0  # what could not be loaded is not tried again this long: each try costs a download, and some other's place

Version = tuple[str, str]  # (key, revision)


class CannotLoad(Exception):
    """The adapter is not here and cannot be now; the log says why."""


@dataclass(eq=False, slots=True)
class Place:
    """A place on the shelf, and the requests that use what is there. Give it back when one has ended."""

    tag: AdapterTag
    adapter: LoadedAdapter
    uses: int = 0
    folder: Folder | None = None
    is_loaded: bool = False
    has_failed: bool = False
    is_closing: bool = False  # some other adapter waits for the place: its own new requests wait behind that one
    is_old: bool = False  # another revision of the same version has come
    number: int = 0  # of its load: later ones are of newer revisions
    loading: asyncio.Task[None] | None = None

    @property
    def version(self) -> Version:
        """Which version this is, and of which making."""
        return self.tag.key, self.tag.revision


@dataclass(eq=False, slots=True)
class _Waiter:
    tag: AdapterTag
    place: asyncio.Future[Place]


@dataclass(frozen=True, slots=True)
class World:
    """What a shelf needs of the world."""

    fetch: Callable[[str], Folder] = fetch  # an adapter's folder by its source
    check: Callable[[str, int], str] = check_files  # a digest of a folder's files; raises for what the engine cannot run
    clock: Callable[[], float] = time.monotonic


WORLD = World()


class AdapterShelf:
    """Loads each adapter once, however many ask for it. Single-threaded: every method runs on the replica's event loop."""

    def __init__(
        self,
        engine: AdapterEngine,
        *,
        model: str,
        room: LoraEngineConfig,
        world: World = WORLD,
        watcher: AdapterWatcher | None = None,
    ) -> None:
        self._engine = engine
        self._model = model
        self._room = room
        self._world = world
        self._watcher = watcher or NoAdapterMetrics()
        self._places: OrderedDict[Version, Place] = OrderedDict()  # the latest used comes last
        self._line: deque[_Waiter] = deque()
        self._failed: dict[Version, float] = {}  # and when it may be tried again
        self._turn = asyncio.Lock()  # of the engine: what goes leaves it before what comes
        self._tasks: set[asyncio.Task[None]] = set()
        self._begun = 0  # loads, ever
        self._is_closed = False

    def keys(self) -> tuple[str, ...]:
        """Return the versions in memory that requests find there, each once."""
        return tuple(sorted({place.tag.key for place in self._places.values() if place.is_loaded}))

    def at_once(self, tag: AdapterTag) -> Place | None:
        """Return the place of an adapter that is in memory, or None when ``take`` would wait."""
        place = self._places.get((tag.key, tag.revision))
        if place is None or not place.is_loaded or place.is_closing:
            return None
        self._use(place)
        return place

    async def take(self, tag: AdapterTag) -> Place:
        """Return the place of an adapter, loaded, and held until it is given back. Raises CannotLoad."""
        if self._has_failed(tag):
            raise CannotLoad(tag.key)
        place = self._enter(tag) if not self._line else None
        if place is None:
            place = await self._line_up(tag)
        try:
            if place.loading is not None:
                await asyncio.wait([place.loading])  # which goes on when this request ends: others may wait for it too
        except BaseException:
            self.give_back(place)
            raise
        if place.has_failed:
            self.give_back(place)
            raise CannotLoad(tag.key)
        return place

    def give_back(self, place: Place) -> None:
        """Count one request less."""
        place.uses -= 1
        self._drop_old(place)
        if self._line:
            self._serve()

    async def close(self) -> None:
        """End all loads."""
        self._is_closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _has_failed(self, tag: AdapterTag) -> bool:
        return self._world.clock() < self._failed.get((tag.key, tag.revision), 0.0)

    def _use(self, place: Place) -> None:
        place.uses += 1
        self._places.move_to_end(place.version)

    def _enter(self, tag: AdapterTag) -> Place | None:
        """Return a place for one more request of the adapter; None when it must wait for others to make room."""
        place = self._places.get((tag.key, tag.revision))
        if place is None:
            if len(self._places) >= self._room.max_loaded and not self._evict():
                return None
            place = self._begin(tag)
        elif place.is_closing:
            return None
        self._use(place)
        return place

    def _evict(self) -> bool:
        """Let the adapter go that is unused for longest; whether there is one."""
        idle = next((place for place in self._places.values() if place.is_loaded and not place.uses), None)
        if idle is not None:
            self._drop(idle)
        return idle is not None

    def _drop(self, place: Place) -> None:
        if self._places.get(place.version) is place:
            del self._places[place.version]
            self._start(self._unload(place))

    def _drop_old(self, place: Place) -> None:
        """Let a place go that is old and unused. One that still loads stays until it has: the engine gets it all the same."""
        if place.is_old and place.is_loaded and not place.uses:
            self._drop(place)

    def _begin(self, tag: AdapterTag) -> Place:
        adapter = LoadedAdapter(tag.key, public_name(self._model, tag.key.partition("/")[0]), tag.revision)
        self._begun += 1
        place = self._places[tag.key, tag.revision] = Place(tag, adapter, number=self._begun)
        place.loading = self._start(self._load(place))
        return place

    async def _load(self, place: Place) -> None:
        began_s = self._world.clock()
        try:
            place.folder = await asyncio.to_thread(self._world.fetch, place.tag.source)
            path = place.folder.path
            files = await asyncio.to_thread(self._world.check, path, self._room.max_rank)
            place.adapter = LoadedAdapter(place.adapter.key, place.adapter.public_name, f"{place.tag.revision}-{files}")
            async with self._turn:
                await self._engine.load(place.adapter, path)
        except BaseException as err:
            self._fail(place)
            if not isinstance(err, Exception):
                raise
            logger.warning("adapter %s of %s cannot be loaded: %s", place.tag.key, self._model, err)
        else:
            place.is_loaded = True
            self._failed.pop(place.version, None)
            logger.info("adapter %s of %s is loaded, in %.1f s", place.tag.key, self._model, self._world.clock() - began_s)
            self._retire_others(place)
            self._drop_old(place)
        finally:
            place.loading = None
            self._watcher.loaded("ok" if place.is_loaded else "failed", len(self.keys()))
            self._serve()

    def _fail(self, place: Place) -> None:
        place.has_failed = True
        now_s = self._world.clock()
        self._failed = {version: until_s for version, until_s in self._failed.items() if until_s > now_s}
        self._failed[place.version] = now_s + RETRY_S
        self._places.pop(place.version, None)
        if place.folder is not None:
            place.folder.close()

    def _retire_others(self, place: Place) -> None:
        """Let other revisions of the same version go, as soon as no request uses them."""
        for other in list(self._places.values()):
            if other.number < place.number and other.tag.key == place.tag.key:
                other.is_old = True
                self._drop_old(other)

    async def _unload(self, place: Place) -> None:
        try:
            async with self._turn:
                await self._engine.unload(place.adapter)
            logger.info("adapter %s of %s made room", place.tag.key, self._model)
        except Exception:
            logger.exception("adapter %s of %s could not be unloaded", place.tag.key, self._model)
        finally:
            if place.folder is not None:
                place.folder.close()
            self._watcher.unloaded(len(self.keys()))

    async def _line_up(self, tag: AdapterTag) -> Place:
        waiter = _Waiter(tag, asyncio.get_running_loop().create_future())
        self._line.append(waiter)
        self._serve()
        try:
            async with asyncio.timeout(MOST_WAIT_S):
                return await waiter.place
        except BaseException as err:
            self._leave(waiter)
            if isinstance(err, TimeoutError):
                raise CannotLoad(f"{tag.key}: no other adapter made room in {MOST_WAIT_S:g} s") from err
            raise

    def _leave(self, waiter: _Waiter) -> None:
        if waiter in self._line:
            self._line.remove(waiter)
            self._serve()
        # Cancelled between being handed a place and taking it.
        elif waiter.place.done() and not waiter.place.cancelled() and waiter.place.exception() is None:
            self.give_back(waiter.place.result())

    def _serve(self) -> None:
        """Hand places to those who wait, in their order.

        While some adapter needs room, one of the others takes no new requests: else one that is always in use would never
        make any.
        """
        if self._is_closed:
            return
        needs_room = self._serve_line()
        loaded = [place for place in self._places.values() if place.is_loaded]
        closing = next((place for place in loaded if place.is_closing), None)
        if needs_room and closing is None and loaded:
            min(loaded, key=lambda place: place.uses).is_closing = True  # the first to be free, as it seems
        elif closing is not None and not needs_room:
            closing.is_closing = False
            self._serve_line()

    def _serve_line(self) -> bool:
        """Hand out what can be; whether somebody still needs room. Who waits for what is here is not held up by that."""
        needs_room = False
        for waiter in list(self._line):
            is_here = (waiter.tag.key, waiter.tag.revision) in self._places
            if waiter.place.done():  # it was cancelled, and has had no turn yet to leave the line
                self._line.remove(waiter)
            elif self._has_failed(waiter.tag):
                self._line.remove(waiter)
                waiter.place.set_exception(CannotLoad(waiter.tag.key))
            elif (is_here or not needs_room) and (place := self._enter(waiter.tag)) is not None:
                self._line.remove(waiter)
                waiter.place.set_result(place)
            elif not is_here:
                needs_room = True
        return needs_room

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
