from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.object_storage.__main__ import Size, fill, served, table
from benchmarks.object_storage.contestants import CONTESTANTS, settle


def test_ratios_are_taken_within_a_round_and_then_their_median() -> None:
    ours, theirs = list(CONTESTANTS)[:2]
    lines = table({ours: [100.0, 300.0, 200.0], theirs: [50.0, 100.0, 200.0]}).splitlines()
    assert lines[2:] == [
        f"| {ours} | 200 (100 to 300) | - |",
        f"| {theirs} | 100 (50 to 200) | 2.00 (1.00 to 3.00)x |",
    ]


def test_every_way_brings_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(name, "")  # so that they are put back
    (tmp_path / "source").mkdir()
    with served():
        store = fill(Size(shards=2, shard_bytes=100_000), tmp_path / "source")
        for number, download in enumerate(CONTESTANTS.values()):
            (tmp_path / str(number)).mkdir()
            download(store, tmp_path / str(number))
        settle()
    wanted = {path.name: path.read_bytes() for path in (tmp_path / "source").iterdir()}
    for number in range(len(CONTESTANTS)):
        found = (path for path in (tmp_path / str(number)).rglob("*") if path.name in wanted)
        assert {path.name: path.read_bytes() for path in found} == wanted
