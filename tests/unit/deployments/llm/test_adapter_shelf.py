from __future__ import annotations

import asyncio
import logging
import random

import pytest

from deployments.llm import adapter_shelf
from deployments.llm.adapter_shelf import RETRY_S, CannotLoad
from deployments.llm.engine import LoadedAdapter
from tests.unit.deployments.llm.shelves import made, tag
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


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("max_loaded", [1, 2, 3])
async def test_whatever_comes_every_request_gets_its_adapter_and_none_is_taken_from_it(seed: int, max_loaded: int) -> None:
    it = made(max_loaded)
    chance = random.Random(seed)  # noqa: S311

    async def one(key: str) -> None:
        place = await it.shelf.take(tag(key))
        try:
            for _ in range(chance.randrange(6)):
                assert (place.tag.key, place.adapter in it.engine.loaded) == (f"{key}/v1", True)
                await asyncio.sleep(0)
        finally:
            it.shelf.give_back(place)

    running: list[asyncio.Task[None]] = []
    for _ in range(150):
        running.append(asyncio.create_task(one(chance.choice("abcd"))))
        if chance.random() < 0.1:
            running[chance.randrange(len(running))].cancel()
        await asyncio.sleep(0)
    async with asyncio.timeout(20):
        ended = await asyncio.gather(*running, return_exceptions=True)
    assert {type(each) for each in ended} <= {type(None), asyncio.CancelledError}
    await turns(20)
    assert it.engine.most <= max_loaded
    assert all(not place.uses for place in it.shelf._places.values())
    assert not it.shelf._line
