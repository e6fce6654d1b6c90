from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import yaml

from serve_app.config_error import ConfigError
from serve_app.key_file import KeyFile, parse_keys
from tests.unit.serve_app.test_view import ANN, BOB


def text_of(*keys: object) -> str:
    return yaml.safe_dump({"keys": [key.model_dump(mode="json") for key in keys]})  # type: ignore[attr-defined]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "keys.yaml"
    made.write_text(text_of(ANN))
    return made


def test_keys_are_read_from_the_file(path: Path) -> None:
    assert KeyFile(path).keys == (ANN,)


def test_an_empty_list_is_a_list_that_lets_nobody_in(path: Path) -> None:
    path.write_text("keys: []\n")
    assert KeyFile(path).keys == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "keys.yaml: the file is empty"),
        ("{}", "keys.yaml:1: keys: required, but missing"),
        ("keys:\n- name: A\n  hash: x\n", "keys.yaml:2: keys[0].name: use lower-case letters, digits and inner `-`, got 'A'"),
        ("keys:\n- name: a\n  hash: manta_a_x\n", "keys.yaml:3: keys[0].hash: expected `sha256:<salt>:<digest>`"),
        ("keys:\n- name: a\n  requests_per_minut: 3\n", "did you mean `requests_per_minute`?"),
        ("keys: [", "no valid YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_record_and_field(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_keys(text, name="keys.yaml")
    assert problem in str(caught.value)
    assert "manta_a_x" not in str(caught.value)  # a key pasted there must not reach a log


def test_a_name_may_stand_there_once() -> None:
    with pytest.raises(ConfigError, match="'ann' is used more than once"):
        parse_keys(text_of(ANN, ANN), name="keys.yaml")


def test_a_name_of_the_configuration_may_not_stand_in_the_file(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"keys\[0\].name: 'ann' is in `auth.keys` too"):
        KeyFile(path, taken=["ann"])


def test_a_field_that_stands_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="stands here twice"):
        parse_keys("keys: []\nkeys: []\n", name="keys.yaml")


def test_a_missing_file_refuses_to_start(path: Path) -> None:
    path.unlink()
    with pytest.raises(ConfigError, match="no such file"):
        KeyFile(path)


def test_changed_content_is_taken_even_at_the_same_time_of_change(path: Path) -> None:
    file = KeyFile(path)
    before = path.stat()
    assert not file.poll()
    path.write_text(text_of(BOB))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.poll(), file.keys) == (True, (BOB,))


def test_a_link_that_points_elsewhere_is_followed_as_kubernetes_swaps_secrets(tmp_path: Path) -> None:
    for name, key in (("one", ANN), ("two", BOB)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "keys.yaml").write_text(text_of(key))
    data, link = tmp_path / "..data", tmp_path / "keys.yaml"
    data.symlink_to("one")
    link.symlink_to("..data/keys.yaml")
    file = KeyFile(link)
    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").rename(data)
    assert (file.poll(), file.keys) == (True, (BOB,))


def test_another_spelling_of_the_same_keys_is_no_news(path: Path) -> None:
    file = KeyFile(path)
    path.write_text(f"# a comment\n{path.read_text()}")
    assert (file.poll(), file.keys) == (False, (ANN,))


@pytest.mark.parametrize("content", [None, "keys: 3", text_of(ANN, ANN)], ids=["gone", "wrong", "twice"])
def test_a_bad_file_keeps_the_last_good_keys_and_is_reported_once(
    path: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    file = KeyFile(path)
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with caplog.at_level(logging.ERROR, logger="ray.serve"):
        assert [file.poll() for _ in range(3)] == [False] * 3
    assert file.keys == (ANN,)
    assert caplog.text.count("stay in force") == 1
    path.write_text(text_of(ANN, BOB))
    assert file.poll()
    assert [key.name for key in file.keys] == ["ann", "bob"]


def test_a_bad_file_is_reported_again_after_it_was_good(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = KeyFile(path)
    good = path.read_text()
    with caplog.at_level(logging.ERROR, logger="ray.serve"):
        for text in ("keys: 3", good, "keys: 3"):
            path.write_text(text)
            file.poll()
    assert caplog.text.count("stay in force") == 2
