"""`manta ingest` that is killed, runs twice at a time, or meets a full disk: a rerun brings what one clean run does."""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit.serve_app.ingest.crash_lab import (
    Driver,
    Ended,
    State,
    best_in,
    built_faults,
    copied,
    driver,
    found_in,
    require_whole,
    state_of,
    write_first,
    write_second,
)
from tests.unit.serve_app.ingest.ingest_driver import Order

RANDOM_KILLS = 30
RACES = 10


@dataclass(frozen=True, slots=True)
class Stage:
    """One ingest: what it reads, where it starts from, and what a clean run makes of it."""

    sources: Path
    before: Path
    old: State
    new: State
    hits: Mapping[str, list[str]]
    best: list[tuple[str, str]]


@pytest.fixture(scope="module")
def run() -> Iterator[Driver]:
    with driver() as running:
        yield running


@pytest.fixture(scope="module")
def stages(run: Driver, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stage]:
    """The first ingest of a folder, and the next one after its files changed, went and came."""
    folder = tmp_path_factory.mktemp("clean")
    sources = {"first": write_first(folder / "a"), "second": write_second(folder / "b")}
    made: dict[str, Stage] = {}
    old: State = {}
    before = folder / "nothing"
    for name, source in sources.items():
        after = copied(before, folder / f"after-{name}")
        assert run(Order(str(source), str(after))).code == 0
        new = asyncio.run(state_of(after))
        found, best = asyncio.run(found_in(after)), asyncio.run(best_in(after))
        made[name] = Stage(source, before, old, new, found, best)
        before, old = after, new
    return made


def require_mended(run: Driver, stage: Stage, store: Path) -> None:
    """Fail unless what an interrupted run left can be searched, has no half document, and a rerun completes it."""
    left = asyncio.run(state_of(store))
    require_whole(left, stage.old, stage.new)
    if left:
        asyncio.run(found_in(store))
    again = run(Order(str(stage.sources), str(store)))
    assert (again.code, again.said if again.code else "") == (0, "")
    assert asyncio.run(state_of(store)) == stage.new
    assert asyncio.run(found_in(store)) == stage.hits


def break_at_every(run: Driver, stage: Stage, store: Path, *, order: Order, stride: int = 1) -> int:
    """Break runs at one step after the other until one comes through; return how many were broken."""
    for broken in itertools.count():
        copied(stage.before, store)
        at = broken * stride
        ended = run(Order(str(stage.sources), str(store), at=at, of=order.of, kind=order.kind, prune=order.prune))
        if ended.code == 0:
            assert asyncio.run(state_of(store)) == stage.new
            return broken
        assert ended.was_killed or (order.kind == "disk-full" and "disk is full" in ended.said), ended
        require_mended(run, stage, store)
    raise AssertionError("never reached")


def test_a_clean_run_is_found_passage_by_passage(stages: dict[str, Stage]) -> None:
    for stage in stages.values():
        assert stage.best == [(name, name) for name, _ in stage.best]


def test_a_rerun_completes_a_second_ingest_that_was_killed_before_any_commit(
    run: Driver, stages: dict[str, Stage], tmp_path: Path
) -> None:
    assert break_at_every(run, stages["second"], tmp_path / "lance", order=Order("", "")) > 3


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["before", "after"])
@pytest.mark.parametrize("name", ["first", "second"])
def test_a_rerun_completes_what_was_killed_around_any_commit(
    run: Driver, stages: dict[str, Stage], tmp_path: Path, name: str, kind: str
) -> None:
    assert break_at_every(run, stages[name], tmp_path / "lance", order=Order("", "", kind=kind)) > 3


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """A driver whose children can be broken at any change of a file."""
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("breaking single changes of files needs a C compiler (cc)")
    with driver(preload=built_faults(tmp_path_factory.mktemp("faults"), compiler)) as running:
        yield running


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", ["before", "after", "disk-full"])
@pytest.mark.parametrize("name", ["first", "second"])
def test_a_rerun_completes_what_broke_at_any_change_of_a_file(
    faulty: Driver, stages: dict[str, Stage], tmp_path: Path, name: str, kind: str
) -> None:
    order = Order("", "", of="files", kind=kind)
    assert break_at_every(faulty, stages[name], tmp_path / "lance", order=order, stride=7) > 10


async def ended_under_readers(run: Driver, stage: Stage, order: Order) -> tuple[Ended, int]:
    """Return how a run ended, and how often somebody looked meanwhile and saw whole documents and answers."""
    run.begin(order)
    running = asyncio.create_task(asyncio.to_thread(run.end))
    looks = 0
    while not running.done():
        seen = await state_of(order.store)
        require_whole(seen, stage.old, stage.new)
        if seen:
            await found_in(order.store)
        looks += 1
    return await running, looks


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_readers_of_a_run_that_is_killed_at_any_time_see_whole_documents(
    run: Driver, stages: dict[str, Stage], tmp_path: Path
) -> None:
    chance = random.Random(7)  # noqa: S311  (when to kill)
    killed = looks = 0
    for i in range(RANDOM_KILLS):
        stage = stages[chance.choice(["first", "second"])]
        store = copied(stage.before, tmp_path / str(i))
        order = Order(str(stage.sources), str(store), lives_s=chance.uniform(0.02, 1.5))
        ended, looked = asyncio.run(ended_under_readers(run, stage, order))
        killed, looks = killed + ended.was_killed, looks + looked
        assert ended.was_killed or ended.code == 0, ended
        require_mended(run, stage, store)
    assert killed > RANDOM_KILLS // 3
    assert looks > killed


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["first", "second"])
def test_of_two_runs_at_a_time_one_may_be_killed(run: Driver, stages: dict[str, Stage], tmp_path: Path, name: str) -> None:
    chance, stage = random.Random(11), stages[name]  # noqa: S311  (when to kill)
    with driver() as rival:
        for i in range(RACES):
            store = copied(stage.before, tmp_path / str(i))
            rival.begin(Order(str(stage.sources), str(store), lives_s=chance.uniform(0.1, 2.5) if i % 2 else None))
            run.begin(Order(str(stage.sources), str(store)))
            survivor, other = run.end(), rival.end()
            assert (survivor.code, survivor.said if survivor.code else "") == (0, "")
            assert other.code == 0 or other.was_killed, other
            assert asyncio.run(state_of(store)) == stage.new
            require_mended(run, stage, store)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_runs_over_two_versions_of_the_files_leave_one_version_of_each(
    run: Driver, stages: dict[str, Stage], tmp_path: Path
) -> None:
    old, new = stages["first"], stages["second"]
    with driver() as rival:
        for i in range(RACES):
            store = tmp_path / str(i)
            rival.begin(Order(str(old.sources), str(store), prune=False))
            run.begin(Order(str(new.sources), str(store), prune=False))
            assert (run.end().code, rival.end().code) == (0, 0)
            require_whole(asyncio.run(state_of(store)), old.new, new.new)
            assert run(Order(str(new.sources), str(store))).code == 0
            assert asyncio.run(state_of(store)) == new.new


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None:
        pytest.skip("a disk of its own needs the mount command")
    made = subprocess.run([mount, "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(folder)], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip("a disk of its own needs the right to mount one (root)")
    yield folder
    subprocess.run([umount, str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_named_and_a_rerun_with_more_space_completes(
    run: Driver, stages: dict[str, Stage], tmp_path: Path, small_disk: Path
) -> None:
    stage = stages["first"]
    ended = run(Order(str(stage.sources), str(small_disk / "lance")))
    assert ended.failed_in_plain_words, ended
    assert "the disk is full" in ended.said
    assert "free space" in ended.said
    require_mended(run, stage, copied(small_disk / "lance", tmp_path / "more-space"))
