from __future__ import annotations

import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from serve_app.cli import app
from serve_app.commands import keys
from serve_app.config_auth import ApiKeyConfig
from serve_app.credentials import KeyRing
from serve_app.errors import CommandError
from serve_app.key_file import parse_keys, read_keys

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


def manta(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["keys", *map(str, arguments)])


def test_a_key_is_printed_once_and_its_record_opens_for_it(file: Path) -> None:
    result = manta("create", "ann", "--file", file)
    assert result.exit_code == 0
    key = result.stdout.strip()
    (record,) = read_keys(file)
    assert KeyRing([record]).find(key) == record
    assert key not in file.read_text()


def test_without_a_file_the_record_is_printed() -> None:
    result = manta("create", "ann")
    text, _, key = result.stdout.strip().rpartition("\n")
    (record,) = parse_keys(text, name="printed")
    assert KeyRing([record]).find(key) == record


def test_every_option_reaches_the_record(file: Path) -> None:
    limits = ["--requests-per-minute", 30, "--tokens-per-minute", 600, "--concurrent-requests", 4, "--priority", 9]
    lists = ["--models", "chat,docs", "--collections", "books"]
    more = ["--tenant", "acme", "--admin", "--expires", "2130-01-31T00:00:00Z"]
    assert manta("create", "ann", *limits, *lists, *more, "--file", file).exit_code == 0
    (record,) = read_keys(file)
    assert record == ApiKeyConfig(
        name="ann",
        tenant="acme",
        hash=record.hash,
        models=("chat", "docs"),
        collections=("books",),
        admin=True,
        requests_per_minute=30,
        tokens_per_minute=600,
        concurrent_requests=4,
        priority=9,
        expires_at=datetime(2130, 1, 31, tzinfo=UTC),
    )


def test_only_its_owner_may_read_the_file_and_others_keep_their_records(file: Path) -> None:
    manta("create", "ann", "--file", file)
    before = read_keys(file)
    manta("create", "bob", "--file", file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert read_keys(file)[:1] == before
    assert os.listdir(file.parent) == ["keys.yaml"]


def test_a_link_to_the_file_stays_a_link(file: Path, tmp_path: Path) -> None:
    file.symlink_to(tmp_path / "real.yaml")
    (tmp_path / "real.yaml").write_text("keys: []\n")
    manta("create", "ann", "--file", file)
    assert file.is_symlink()
    assert [key.name for key in read_keys(tmp_path / "real.yaml")] == ["ann"]


def test_a_name_that_is_taken_is_refused(file: Path) -> None:
    manta("create", "ann", "--file", file)
    text = file.read_text()
    with pytest.raises(CommandError, match="has a key named 'ann' already"):
        keys.create("ann", {}, file=file, expires=None)
    assert file.read_text() == text


def test_a_file_that_cannot_be_read_is_not_overwritten(file: Path) -> None:
    file.write_text("keys: 3\n")
    with pytest.raises(CommandError, match="keys: expected a list"):
        keys.create("ann", {}, file=file, expires=None)
    assert file.read_text() == "keys: 3\n"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be written: no such file or directory"):
        keys.create("ann", {}, file=tmp_path / "gone" / "keys.yaml", expires=None)


def test_a_write_that_fails_leaves_nothing_behind(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("serve_app.commands.keys.os.replace", fail)
    with pytest.raises(CommandError, match="no space left"):
        keys.create("ann", {}, file=file, expires=None)
    assert os.listdir(file.parent) == []


@pytest.mark.parametrize(
    ("name", "options", "field", "more"),
    [("Ann", {}, "name", ""), ("ann", {"models": ("A",)}, "models[0]", " or MODEL:ADAPTER,")],
)
def test_a_wrong_field_is_named(name: str, options: dict[str, object], field: str, more: str) -> None:
    with pytest.raises(CommandError) as caught:
        keys.create(name, options, file=None, expires=None)
    assert str(caught.value).startswith(f"{field}: use lower-case letters, digits and inner `-`,{more} got '")


@pytest.mark.parametrize("option", ["--models", "--collections"])
def test_an_empty_list_is_explained(option: str) -> None:
    result = manta("create", "ann", option, "")
    assert isinstance(result.exception, CommandError)
    assert str(result.exception).startswith(f"{option[2:]}[0]: ")
    assert "tuple" not in str(result.exception)


@pytest.mark.parametrize(
    ("text", "until"),
    [
        ("90d", datetime(2030, 4, 1, tzinfo=UTC)),
        ("12h", datetime(2030, 1, 1, 12, tzinfo=UTC)),
        ("2w", datetime(2030, 1, 15, tzinfo=UTC)),
        ("30m", datetime(2030, 1, 1, 0, 30, tzinfo=UTC)),
        ("2030-02-01T01:00:00+01:00", datetime(2030, 2, 1, tzinfo=UTC)),
    ],
)
def test_a_key_may_expire(file: Path, text: str, until: datetime) -> None:
    keys.create("ann", {}, file=file, expires=text, now=lambda: NOW)
    assert read_keys(file)[0].expires_at == until


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("soon", "write 90d"),
        ("2030-02-01", "time zone"),
        ("-1d", "write 90d"),
        ("0d", "expired already"),
        ("2029-12-31T23:59:59Z", "expired already; give a time to come"),
        ("999999w", "too far away"),
    ],
)
def test_a_wrong_expiry_is_explained(text: str, why: str) -> None:
    with pytest.raises(CommandError, match=why):
        keys.create("ann", {}, file=None, expires=text, now=lambda: NOW)


def test_a_revoked_key_is_gone_and_the_others_stay(file: Path) -> None:
    for name in ("ann", "bob"):
        manta("create", name, "--file", file)
    assert manta("revoke", "ann", "--file", file).exit_code == 0
    assert [key.name for key in read_keys(file)] == ["bob"]
    manta("revoke", "bob", "--file", file)
    assert yaml.safe_load(file.read_text()) == {"keys": []}


def test_a_key_that_is_not_there_cannot_be_revoked(file: Path) -> None:
    manta("create", "ann", "--file", file)
    with pytest.raises(CommandError, match="no key named 'bob'; it has ann"):
        keys.revoke("bob", file)
    with pytest.raises(CommandError, match="no such file"):
        keys.revoke("bob", file.with_name("gone.yaml"))


def test_the_list_says_what_keys_may_do(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    keys.create("ann", {"models": ("chat",), "requests_per_minute": 30}, file=file, expires="1h", now=lambda: NOW)
    keys.create("bob", {"admin": True, "collections": ()}, file=file, expires=None)
    capsys.readouterr()
    keys.show(file, now=lambda: datetime(2031, 1, 1, tzinfo=UTC))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert rows == [
        ["ann", "ann", "chat", "all", "30", "-", "-", "5", "2030-01-01 01:00 UTC (expired)"],
        ["bob (admin)", "bob", "all", "none", "-", "-", "-", "5", "never"],
    ]
