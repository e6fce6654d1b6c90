from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serve_app.config import AuthConfig
from serve_app.observing.audit import NAME
from serve_app.observing.audit_keys import keys_digest
from tests.unit.deployments.test_keys import auth_by, started, write
from tests.unit.serve_app.fakes import document, snapshot
from tests.unit.serve_app.observing.lines import KeptLines, kept_lines
from tests.unit.serve_app.test_key_file import text_of
from tests.unit.serve_app.test_view import ANN


@pytest.fixture
def lines() -> Iterator[KeptLines]:
    with kept_lines(NAME) as kept:
        yield kept


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "keys.yaml"
    made.write_text(text_of(ANN))
    return made


def told(lines: KeptLines) -> list[tuple[str, str, str]]:
    found: list[dict[str, Any]] = lines.read
    lines.raw.clear()
    return [(line["event"], line["actor"], line["subject"]) for line in found]


async def test_a_router_that_starts_tells_which_keys_it_has(path: Path, lines: KeptLines) -> None:
    started(path)
    [line] = lines.read
    assert (line["event"], line["after"]) == ("keys.loaded", {"keys_count": 1, "digest": keys_digest((ANN,))})


async def test_without_a_file_there_is_nothing_to_tell(lines: KeptLines) -> None:
    started(None)
    assert told(lines) == []


async def test_a_file_that_changes_is_told_key_by_key_and_one_that_does_not_is_not(path: Path, lines: KeptLines) -> None:
    _, follower = started(path)
    told(lines)
    write(path, text_of(ANN.model_copy(update={"requests_per_minute": 5})))
    await follower.poll()
    assert told(lines) == [("limits.changed", "keys_file", "ann")]
    write(path, "keys: []\n")
    await follower.poll()
    assert told(lines) == [("key.removed", "keys_file", "ann")]
    await follower.poll()
    assert told(lines) == []


async def test_a_file_that_cannot_be_used_changes_nothing_and_tells_nothing(path: Path, lines: KeptLines) -> None:
    _, follower = started(path)
    told(lines)
    write(path, "keys: [")
    await follower.poll()
    assert told(lines) == []


async def test_another_document_with_the_same_file_tells_nothing(path: Path, lines: KeptLines) -> None:
    made, follower = started(path)
    told(lines)
    made.update(snapshot(routing=document(auth=AuthConfig(keys_file=str(path)), embedders=()), version=2))
    follower.apply()
    assert told(lines) == []


async def test_a_document_without_a_file_takes_its_keys_away(path: Path, lines: KeptLines) -> None:
    made, follower = started(path)
    told(lines)
    made.update(auth_by(None, version=2))
    follower.apply()
    await follower.poll()
    assert told(lines) == [("key.removed", "keys_file", "ann")]
