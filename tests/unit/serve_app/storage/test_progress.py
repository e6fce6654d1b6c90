from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console

from serve_app.storage.progress import LoggedProgress, Progress, ProgressCounter
from serve_app.storage.terminal import shown


def test_what_is_sent_again_is_not_counted_twice() -> None:
    seen: list[Progress] = []
    counter = ProgressCounter(10, seen.append)
    for count in (6, -4, 3, 3):
        counter.add_or_expect(count)
    assert [progress.done_bytes for progress in seen] == [0, 6, 6, 8]


def test_the_log_has_a_line_every_tenth(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ray.serve")
    report = LoggedProgress("s3://b/p")
    for done in (0, 1, 10, 15, 20):
        report(Progress(done << 20, 100 << 20))
    assert caplog.messages == ["downloaded 10.0 of 100.0 MiB of s3://b/p", "downloaded 20.0 of 100.0 MiB of s3://b/p"]


def test_without_a_terminal_there_is_a_line_every_tenth() -> None:
    console = Console(file=io.StringIO(), force_terminal=False)
    with shown(console, "pulling [x]") as report:
        for done in (0, 10, 11, 100):
            report(Progress(done * 10**6, 10**8))
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == "pulling [x]: 10.0 of 100.0 MB\npulling [x]: 100.0 of 100.0 MB\n"


def test_on_a_terminal_there_is_a_bar() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with shown(console, "pulling") as report:
        report(Progress(5 * 10**6, 10**7))
    assert isinstance(console.file, io.StringIO)
    assert "5.0/10.0 MB" in console.file.getvalue()
