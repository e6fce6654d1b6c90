from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from deployments import keys as keys_module
from deployments.keys import KeyFollower, follow_keys
from deployments.router import follow
from serve_app.config import AuthConfig
from serve_app.config_error import ConfigError
from serve_app.contracts import DirectorySnapshot
from serve_app.errors import Unauthenticated
from serve_app.gateway import Gateway
from tests.unit.serve_app.fakes import document, gateway, snapshot, turns, until
from tests.unit.serve_app.test_key_file import text_of
from tests.unit.serve_app.test_view import ANN, ANN_KEY, BOB, BOB_KEY


def auth_by(path: Path | None, *, version: int = 1) -> DirectorySnapshot:
    auth = AuthConfig(keys=(BOB,), keys_file=None if path is None else str(path))
    return snapshot(routing=document(auth=auth), version=version)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "keys.yaml"
    made.write_text(text_of(ANN))
    return made


def started(path: Path | None) -> tuple[Gateway, KeyFollower]:
    made = gateway()
    made.update(auth_by(path))
    return made, KeyFollower(made)


def write(path: Path, text: str) -> None:
    path.write_text(text)


def knows(made: Gateway, key: str) -> bool:
    try:
        return made.view.authenticate(None, key) is not None
    except Unauthenticated:
        return False


def test_the_keys_of_the_file_are_in_force_from_the_start(path: Path) -> None:
    made, _ = started(path)
    assert (knows(made, ANN_KEY), knows(made, BOB_KEY)) == (True, True)


def test_a_missing_file_refuses_to_start(path: Path) -> None:
    path.unlink()
    with pytest.raises(ConfigError, match="no such file"):
        started(path)


async def test_a_changed_file_is_followed(path: Path) -> None:
    made, follower = started(path)
    write(path, "keys: []\n")
    await follower.poll()
    assert (knows(made, ANN_KEY), knows(made, BOB_KEY)) == (False, True)
    write(path, text_of(ANN))
    await follower.poll()
    assert knows(made, ANN_KEY)


async def test_no_request_sees_a_new_routing_document_without_its_keys(path: Path) -> None:
    made, follower = started(path)
    news = [auth_by(path, version=2)]
    seen: list[bool] = []

    async def watch(epoch: str, version: int) -> DirectorySnapshot:
        if not news:
            await asyncio.Event().wait()
        return news.pop()

    following = asyncio.create_task(follow(made, watch, on_news=follower.apply))
    before = made.view
    for _ in range(30):
        await asyncio.sleep(0)
        seen.append(knows(made, ANN_KEY))
    assert made.version == ("e", 2)
    following.cancel()
    await asyncio.wait([following])
    assert all(seen)
    made.update(snapshot(routing=document(auth=AuthConfig(keys_file=str(path)), embedders=()), version=3))
    assert made.view is not before
    follower.apply()
    assert (knows(made, ANN_KEY), knows(made, BOB_KEY)) == (True, False)


async def test_a_document_that_names_another_file_has_its_keys(path: Path, tmp_path: Path) -> None:
    made, follower = started(path)
    other = tmp_path / "other.yaml"
    made.update(auth_by(other, version=2))
    follower.apply()
    assert (knows(made, ANN_KEY), knows(made, BOB_KEY)) == (False, True)
    other.write_text(text_of(ANN))
    await follower.poll()
    assert knows(made, ANN_KEY)


async def test_a_document_may_stop_naming_a_file(path: Path) -> None:
    made, follower = started(path)
    made.update(auth_by(None, version=2))
    follower.apply()
    await follower.poll()
    assert (knows(made, ANN_KEY), knows(made, BOB_KEY)) == (False, True)


async def test_the_file_is_polled_for_ever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "POLL_S", 0.0)
    made, follower = started(path)
    following = asyncio.create_task(follow_keys(follower))
    await turns()
    write(path, "keys: []\n")
    await until(lambda: not knows(made, ANN_KEY))
    assert not following.done()
    following.cancel()
    await asyncio.wait([following])
