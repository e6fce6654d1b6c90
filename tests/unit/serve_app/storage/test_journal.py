from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.storage.journal import Journal, JournalHead, progress_of

HEAD = JournalHead(block_bytes=10, total_bytes=35, boot="this")


def write(path: Path) -> None:
    journal = Journal(path, HEAD)
    for file, block in ((0, 0), (0, 2), (1, 0)):
        journal.add(file, block, 10)
    journal.close()


def done(path: Path, head: JournalHead = HEAD) -> dict[int, set[int]]:
    journal = Journal(path, head)
    journal.close()
    return {file: set(blocks) for file, blocks in journal.done.items()}


def test_what_was_noted_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    write(tmp_path / "journal")
    assert done(tmp_path / "journal") == done(tmp_path / "journal") == {0: {0, 2}, 1: {0}}


def test_what_was_forgotten_is_not(tmp_path: Path) -> None:
    write(tmp_path / "journal")
    journal = Journal(tmp_path / "journal", HEAD)
    journal.forget(0)
    journal.add(0, 1, 10)
    journal.close()
    assert done(tmp_path / "journal") == {0: {1}, 1: {0}}


@pytest.mark.parametrize("tail", ["1 2 10", "1", "x y z\n", "\0\0\0\n"], ids=["no-end", "half", "no-numbers", "holes"])
def test_a_line_that_was_cut_counts_nothing_and_spoils_none(tmp_path: Path, tail: str) -> None:
    write(tmp_path / "journal")
    with (tmp_path / "journal").open("a") as file:
        file.write(tail)
    journal = Journal(tmp_path / "journal", HEAD)
    journal.add(1, 1, 5)
    journal.close()
    assert done(tmp_path / "journal") == {0: {0, 2}, 1: {0, 1}}


@pytest.mark.parametrize(
    "head",
    [
        JournalHead(block_bytes=20, total_bytes=35, boot="this"),
        JournalHead(block_bytes=10, total_bytes=35, boot="another"),
    ],
    ids=["other-blocks", "other-start-of-the-machine"],
)
def test_a_journal_of_another_kind_is_begun_anew(tmp_path: Path, head: JournalHead) -> None:
    write(tmp_path / "journal")
    assert done(tmp_path / "journal", head) == {}


def test_how_far_it_is_can_be_read_by_others(tmp_path: Path) -> None:
    assert progress_of(tmp_path / "journal") is None
    write(tmp_path / "journal")
    assert progress_of(tmp_path / "journal") == (30, 35)
    (tmp_path / "journal").write_text("nonsense")
    assert progress_of(tmp_path / "journal") is None
