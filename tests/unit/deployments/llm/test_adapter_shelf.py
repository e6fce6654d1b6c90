from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections import deque
from collections.abc import Iterable

import pytest

from deployments.llm import adapter_shelf
from deployments.llm.adapter_shelf import RETRY_S, CannotLoad
from deployments.llm.engine import LoadedAdapter
from tests.unit.deployments.llm.shelves import Made, made, tag
from tests.unit.serve_app.fakes import turns, until


async def test_an_adapter_is_loaded_under_its_public_name_and_found_again() -> None:
    it = made()
    [place] = await it.hold("a")
    assert place.adapter == LoadedAdapter("a/v1", "chat:a", "r1-files-of-src:a")
    assert it.shelf.at_once(tag("a")) is place
    assert (it.engine.said, it.shelf.keys(), place.uses) == (["+a/v1"], ("a/v1",), 2)


async def test_many_that_ask_at_once_load_it_once() -> None:
    it = made(is_slow=True)
    asked = [it.ask("a") for _ in range(5)]
    await until(lambda: it.files.fetched)
    assert (it.shelf.at_once(tag("a")), it.shelf.keys()) == (None, ())
    it.files.may_fetch.set()
    assert len({id(place) for place in await asyncio.gather(*asked)}) == 1
    assert (it.files.fetched, it.engine.said) == (["src:a"], ["+a/v1"])


async def test_the_one_unused_for_longest_makes_room() -> None:
    it = made(2)
    await it.use("a", "b", "a", "c")
    await until(lambda: "-b/v1" in it.engine.said)
    assert it.engine.said == ["+a/v1", "+b/v1", "-b/v1", "+c/v1"]
    assert [(folder.path, folder.is_closed) for folder in it.files.folders] == [
        ("src:a", False),
        ("src:b", True),
        ("src:c", False),
    ]
    assert it.watcher.heard == [("ok", 1), ("ok", 2), ("gone", 1), ("ok", 2)]


async def test_one_with_a_request_in_flight_stays() -> None:
    it = made(2)
    await it.hold("a")
    await it.use("b", "c", "d")
    assert it.engine.said == ["+a/v1", "+b/v1", "-b/v1", "+c/v1", "-c/v1", "+d/v1"]


async def test_while_all_are_in_use_the_next_waits_for_one() -> None:
    it = made(1)
    [held] = await it.hold("a")
    waiting = it.ask("b")
    await turns(20)
    assert not waiting.done()
    it.shelf.give_back(held)
    assert (await waiting).tag.key == "b/v1"
    assert (it.engine.said, it.engine.most) == (["+a/v1", "-a/v1", "+b/v1"], 1)


async def test_one_that_is_always_in_use_makes_room_in_the_end() -> None:
    it = made(1)
    [first] = await it.hold("a")
    other = it.ask("b")
    await turns()
    assert it.shelf.at_once(tag("a")) is None  # new requests of it wait behind the other one
    again = it.ask("a")
    await turns(20)
    assert (other.done(), again.done()) == (False, False)
    it.shelf.give_back(first)
    place = await other
    assert not again.done()
    it.shelf.give_back(place)
    assert (await again).tag.key == "a/v1"


async def test_when_the_one_that_waited_has_left_the_others_requests_go_on() -> None:
    it = made(1)
    await it.hold("a")
    other = it.ask("b")
    await turns()
    again = it.ask("a")
    await turns()
    assert not again.done()
    other.cancel()
    assert (await again).tag.key == "a/v1"
    assert it.engine.said == ["+a/v1"]


async def test_a_place_is_not_handed_to_one_that_was_cancelled_in_the_same_turn() -> None:
    it = made(1)
    [held] = await it.hold("a")
    first, second = it.ask("b"), it.ask("c")
    await turns()
    first.cancel()
    it.shelf.give_back(held)
    assert (await second).tag.key == "c/v1"


async def test_who_waits_for_what_is_here_is_not_held_up_by_who_needs_room() -> None:
    it = made(2)
    await it.hold("a", "b", "b")
    waiting = it.ask("c")  # a has fewer requests, so it is to make room
    await turns()
    assert (await it.hold("b"))[0].uses == 3
    assert not waiting.done()


async def test_waiting_for_room_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter_shelf, "MOST_WAIT_S", 0.01)
    it = made(1)
    await it.hold("a")
    with pytest.raises(CannotLoad, match="no other adapter made room"):
        await it.shelf.take(tag("b"))
    assert it.shelf.at_once(tag("a")) is not None


async def test_what_cannot_be_fetched_is_told_to_all_and_not_tried_again_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    it = made(broken=("src:a",), is_slow=True)
    asked = [it.ask("a") for _ in range(3)]
    await until(lambda: it.files.fetched)
    it.files.may_fetch.set()
    with caplog.at_level(logging.WARNING, logger="ray.serve"):
        ended = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(each) for each in ended] == [CannotLoad] * 3
    assert "adapter a/v1 of chat cannot be loaded: no src:a" in caplog.text
    with pytest.raises(CannotLoad):
        await it.shelf.take(tag("a"))
    assert (it.files.fetched, it.watcher.heard) == (["src:a"], [("failed", 0)])
    it.files.broken.clear()
    it.clock.now_s += RETRY_S
    await it.use("a")
    assert it.shelf.keys() == ("a/v1",)


async def test_what_the_engine_refuses_lets_its_folder_go_and_leaves_its_place_to_others() -> None:
    it = made(1)
    it.engine.broken.add("a/v1")
    with pytest.raises(CannotLoad):
        await it.shelf.take(tag("a"))
    assert it.files.folders[0].is_closed
    await it.use("b")
    assert it.engine.said == ["+b/v1"]


async def test_those_who_waited_for_one_that_fails_hear_of_it() -> None:
    it = made(1, broken=("src:b",))
    [held] = await it.hold("a")
    asked = [it.ask("b"), it.ask("b"), it.ask("a")]
    await turns()
    it.shelf.give_back(held)
    ended = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(each) for each in ended[:2]] == [CannotLoad] * 2
    assert not isinstance(ended[2], BaseException)


async def test_a_load_goes_on_when_who_asked_has_left() -> None:
    it = made(is_slow=True)
    asked = it.ask("a")
    await until(lambda: it.files.fetched)
    asked.cancel()
    await asyncio.wait([asked])
    it.files.may_fetch.set()
    await until(it.shelf.keys)
    assert (await it.hold("a"))[0].uses == 1


async def test_another_revision_is_loaded_anew_and_the_old_one_goes_when_it_is_unused() -> None:
    it = made(4)
    [old] = await it.hold("a")
    new = await it.shelf.take(tag("a", "r2"))
    assert (new.adapter.digest, it.shelf.keys()) == ("r2-files-of-src:a", ("a/v1",))
    await turns(20)
    assert it.engine.said == ["+a/v1", "+a/v1"]
    it.shelf.give_back(old)
    await until(lambda: len(it.engine.loaded) == 1)
    assert it.engine.loaded == [new.adapter]
    assert it.shelf.at_once(tag("a", "r2")) is new


async def test_an_unused_old_revision_goes_at_once() -> None:
    it = made(4)
    await it.use("a")
    await it.shelf.take(tag("a", "r2"))
    await until(lambda: it.engine.said == ["+a/v1", "+a/v1", "-a/v1"])


async def load_of_an_old_revision_nobody_waits_for(it: Made) -> tuple[asyncio.Task[None], threading.Event]:
    """Return the load of a revision whose only request has left after the next one was loaded, and what it waits for."""
    asked = it.ask("a")
    await until(lambda: it.files.fetched)
    load, may_go_on = next(iter(it.shelf._places.values())).loading, it.files.may_fetch
    assert load is not None
    it.files.may_fetch = threading.Event()
    it.files.may_fetch.set()
    await it.shelf.take(tag("a", "r2"))
    asked.cancel()
    await asyncio.wait([asked])
    return load, may_go_on


async def test_an_old_revision_that_loads_after_its_last_request_has_left_goes_again() -> None:
    it = made(is_slow=True)
    load, may_go_on = await load_of_an_old_revision_nobody_waits_for(it)
    may_go_on.set()
    await load
    await until(lambda: it.engine.said == ["+a/v1", "+a/v1", "-a/v1"])
    await until(lambda: not it.shelf._tasks)
    assert [adapter.digest for adapter in it.engine.loaded] == ["r2-files-of-src:a"]
    assert [folder.is_closed for folder in it.files.folders] == [False, True]
    assert list(it.shelf._places) == [("a/v1", "r2")]


async def test_an_old_revision_that_fails_after_its_last_request_has_left_is_told_and_forgotten(
    caplog: pytest.LogCaptureFixture,
) -> None:
    it = made(is_slow=True)
    load, may_go_on = await load_of_an_old_revision_nobody_waits_for(it)
    it.files.broken.add("src:a")
    may_go_on.set()
    with caplog.at_level(logging.WARNING, logger="ray.serve"):
        await load
    assert "adapter a/v1 of chat cannot be loaded: no src:a" in caplog.text
    assert (list(it.shelf._places), it.engine.said) == ([("a/v1", "r2")], ["+a/v1"])
    assert it.watcher.heard == [("ok", 1), ("failed", 1)]


async def test_an_old_revision_that_still_loads_keeps_its_place_until_it_has_gone() -> None:
    it = made(2, is_slow=True)
    load, may_go_on = await load_of_an_old_revision_nobody_waits_for(it)
    other = it.ask("b")
    await turns(20)
    assert it.files.fetched == ["src:a", "src:a"]
    may_go_on.set()
    await load
    assert ((await other).tag.key, it.engine.most) == ("b/v1", 2)


async def test_an_engine_that_cannot_unload_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    it = made(1)
    await it.use("a")
    it.engine.loaded.clear()
    with caplog.at_level(logging.ERROR, logger="ray.serve"):
        await it.use("b")
    assert ("could not be unloaded" in caplog.text, it.shelf.keys()) == (True, ("b/v1",))


async def test_closing_ends_loads() -> None:
    it = made(is_slow=True)
    asked = it.ask("a")
    await until(lambda: it.files.fetched)
    closing = asyncio.create_task(it.shelf.close())
    await turns()
    it.files.may_fetch.set()
    await closing
    with pytest.raises(CannotLoad):
        await asked
    assert it.engine.said == []


class ByChance(threading.Event):
    """Lets fetches go on one by one, in any order."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.waiting: list[threading.Event] = []
        self._chance = chance

    def wait(self, timeout: float | None = None) -> bool:
        self.waiting.append(gate := threading.Event())
        return gate.wait(timeout)

    def let_one_go_on(self) -> None:
        if self.waiting:
            self.waiting.pop(self._chance.randrange(len(self.waiting))).set()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("max_loaded", [1, 2, 4])
async def test_whatever_comes_every_request_gets_its_adapter_and_none_is_taken_from_it(seed: int, max_loaded: int) -> None:
    it = made(max_loaded)
    chance = random.Random(seed)  # noqa: S311
    it.files.may_fetch = files = ByChance(chance)

    async def one(key: str, revision: str) -> None:
        place = await it.shelf.take(tag(key, revision))
        try:
            for _ in range(chance.randrange(6)):
                assert (place.version, place.adapter in it.engine.loaded) == ((f"{key}/v1", revision), True)
                await asyncio.sleep(0)
        finally:
            it.shelf.give_back(place)

    def have_ended(tasks: Iterable[asyncio.Task[None]]) -> bool:
        files.let_one_go_on()
        return all(task.done() for task in tasks)

    running: list[asyncio.Task[None]] = []
    for _ in range(400):
        if chance.random() < 0.4:
            key = chance.choice("aaaabc")
            running.append(asyncio.create_task(one(key, chance.choice(("r1", "r2")) if key == "a" else "r1")))
        if chance.random() < 0.3 and (unfinished := [task for task in running if not task.done()]):
            chance.choice(unfinished).cancel()
        if chance.random() < 0.2:
            files.let_one_go_on()
            await asyncio.sleep(0.0005)  # its thread needs more than turns
        await asyncio.sleep(0)
    await until(lambda: have_ended(running))
    ended = await asyncio.gather(*running, return_exceptions=True)
    assert {type(each) for each in ended} <= {type(None), asyncio.CancelledError}
    await until(lambda: have_ended(list(it.shelf._tasks)))
    await turns(20)
    places = list(it.shelf._places.values())
    assert (it.engine.most <= max_loaded, it.shelf._line) == (True, deque())
    assert all(place.is_loaded and not place.uses for place in places)
    assert len({place.tag.key for place in places}) == len(places)  # of each version only the newest stays
    assert {place.adapter for place in places} == set(it.engine.loaded)
    assert sum(not folder.is_closed for folder in it.files.folders) == len(places)
