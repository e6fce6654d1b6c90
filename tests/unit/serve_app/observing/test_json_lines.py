from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_app.observing.json_lines import JsonLines, Losses, RotatingLines, json_line, open_lines, rfc3339
from tests.unit.serve_app.fakes import FakeClock
from tests.unit.serve_app.observing.lines import kept_lines

NAME = "manta.test_lines"
LOG = logging.getLogger(NAME)


@pytest.fixture(autouse=True)
def _logger_is_left_as_it_was() -> Iterator[None]:
    with kept_lines(NAME):
        yield


class Gate(logging.Handler):
    """A disk that hangs until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.is_open, self.has_one = threading.Event(), threading.Event()
        self.written: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.has_one.set()
        self.is_open.wait(10)
        self.written.append(record.getMessage())


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord(NAME, logging.INFO, "", 0, text, None, None)


def test_lines_come_out_as_they_went_in_and_nothing_else_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "serve" / "x.jsonl"
    lines = open_lines(NAME, path, file_bytes=10_000, files=2)
    for i in range(100):
        LOG.info(json_line({"i": i, "text": "100 %s\n\u2028é"}))
    lines.close()
    assert [json.loads(line)["i"] for line in path.read_text("ascii").splitlines()] == list(range(100))
    assert capsys.readouterr() == ("", "")


def test_a_full_file_is_renamed_and_the_oldest_deleted(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    lines = open_lines(NAME, path, file_bytes=1000, files=3)
    for i in range(200):
        LOG.info(json_line({"i": i, "pad": "x" * 80}))
    lines.close()
    files = [path, tmp_path / "x.jsonl.1", tmp_path / "x.jsonl.2"]
    assert sorted(tmp_path.iterdir()) == files
    kept = [json.loads(line)["i"] for file in reversed(files) for line in file.read_text().splitlines()]
    assert kept == list(range(kept[0], 200))
    assert all(file.stat().st_size <= 1000 for file in files)


def test_a_disk_that_hangs_stops_nobody_and_costs_lines_that_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    gate, clock = Gate(), FakeClock()
    lines = JsonLines(gate, losses=Losses(NAME, clock=clock), most_waiting=3)
    lines.handle(record("first"))
    assert gate.has_one.wait(10)
    for i in range(10):
        lines.handle(record(f"{i}"))
    assert lines.losses.count == 7
    assert [r.getMessage() for r in caplog.records] == [
        f"lines of {NAME} are lost, 1 so far: they come faster than they can be written"
    ]
    clock.now_s += 61
    lines.handle(record("late"))
    assert caplog.records[-1].getMessage().startswith(f"lines of {NAME} are lost, 8 so far")
    gate.is_open.set()
    lines.close()
    assert gate.written == ["first", "0", "1", "2"]


def test_a_file_that_cannot_be_written_is_said_once_and_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.jsonl"
    path.mkdir()
    losses = Losses(NAME, clock=FakeClock())
    target = RotatingLines(path, file_bytes=1000, files=2, lost=losses.add)
    for i in range(5):
        target.handle(record(f"{i}"))
    assert losses.count == 5
    assert ["cannot be written" in r.getMessage() for r in caplog.records] == [True]
    assert capsys.readouterr().err == ""


def test_without_a_file_lines_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    lines = open_lines(NAME, None, file_bytes=1, files=1)
    LOG.info(json_line({"a": 1}))
    lines.close()
    assert capsys.readouterr().err == '{"a":1}\n'


def test_times_are_utc_to_the_millisecond() -> None:
    assert rfc3339(1_700_000_000.1239) == "2023-11-14T22:13:20.123Z"
