"""Reading YAML: data, lines, and bounds."""

from __future__ import annotations

import time

import pytest

from serve_app.yaml_document import YamlProblem, read_yaml


def problem(text: str) -> tuple[int | None, str]:
    with pytest.raises(YamlProblem) as caught:
        read_yaml(text)
    return caught.value.line, caught.value.message


def test_every_field_and_item_has_its_line() -> None:
    document = read_yaml("a:\n  - x: 1\n  -\n    y: 2\nb: >\n  text\n")
    assert document.data == {"a": [{"x": 1}, {"y": 2}], "b": "text\n"}
    assert document.lines == {("a",): 1, ("a", 0): 2, ("a", 0, "x"): 2, ("a", 1): 4, ("a", 1, "y"): 4, ("b",): 5}


def test_the_line_of_what_is_not_written_is_that_of_its_surroundings() -> None:
    document = read_yaml("\na:\n  b: 1\n")
    assert [document.line_of(path) for path in [("a", "b"), ("a", "zzz", 3), ("zzz",), ()]] == [3, 2, 1, 1]


def test_scalars_are_those_that_json_knows() -> None:
    text = "a: 2026-01-01\nb: yes\nc: 1e+06\nd: 1_000\ne: ~\nf: '1'\ng: 1.5\nh: -2E3\n"
    assert read_yaml(text).data == {
        "a": "2026-01-01", "b": True, "c": 1e6, "d": 1000, "e": None, "f": "1", "g": 1.5, "h": -2000.0
    }  # fmt: skip


def test_aliases_and_merges_work_and_own_fields_win() -> None:
    text = "base: &b {x: 1, y: 1}\nother: &o {y: 2, z: 2}\nall: {z: 3, <<: [*b, *o]}\none:\n  <<: *b\n  x: 9\nsame: *b\n"
    data = read_yaml(text).data
    assert (data["all"], data["one"], data["same"]) == ({"x": 1, "y": 1, "z": 3}, {"x": 9, "y": 1}, {"x": 1, "y": 1})


def test_the_line_of_a_field_that_overrides_a_merge_is_its_own() -> None:
    assert read_yaml("base: &b {x: 1}\none:\n  x: 2\n  <<: *b\n").lines["one", "x"] == 3


def test_duplicate_and_nameless_keys_are_kept_as_problems() -> None:
    assert read_yaml("a: 1\nb: 2\na: 3\n7: x\n[c]: y\n").problems == [
        (("a",), 3, "`a` stands here twice, first on line 1"),
        ((), 4, "field names are text, got `7`; put quotes around it"),
        ((), 5, "field names are text, got a list or mapping; put quotes around it"),
    ]


BAD = {
    "empty": ("", None, "the file is empty; `manta schema` prints what may stand in it"),
    "comments-only": ("# x\n", None, "the file is empty; `manta schema` prints what may stand in it"),
    "a-list": ("\n- a\n", 2, "expected fields such as `models:` at the top level"),
    "a-word": ("models", 1, "expected fields such as `models:` at the top level"),
    "tab": ("a:\n\tb: 1\n", 2, "a tab stands where YAML takes only spaces"),
    "at-sign": (
        "a: @x",
        1,
        "no valid YAML: while scanning for the next token, found character '@' that cannot start any token; "
        "put quotes around text that starts with it",
    ),
    "colon-in-text": (
        "a: b: c",
        1,
        "no valid YAML: mapping values are not allowed here; "
        "check the indentation, and put quotes around text that contains `: `",
    ),
    "open-bracket": (
        "a: [1,\nb: 2\n",
        3,
        "no valid YAML: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'",
    ),
    "two-documents": (
        "a: 1\n---\nb: 2\n",
        2,
        "no valid YAML: expected a single document in the stream, but found another document; "
        "keep one document and remove the other `---` part",
    ),
    "unknown-alias": ("a: *b", 1, "no valid YAML: found undefined alias 'b'"),
    "python-object": (
        "a: 1\nb: !!python/object:os.system x",
        2,
        "the tag !!python/object:os.system is not supported; write the plain value",
    ),
    "own-tag": ("a: !x 1", 1, "the tag !x is not supported; write the plain value"),
    "no-number": ("a: !!int x", 1, "'x' is not a valid !!int"),
    "no-truth": ("a: !!bool x", 1, "'x' is not a valid !!bool"),
    "control-character": ("a: 1\nb: \x07", 2, "the character '\\x07' is not allowed in YAML"),
    "merge-of-a-word": ("a: {<<: x}", 1, "`<<` takes a mapping or a list of mappings"),
    "alias-of-itself": ("a: &a\n  b: *a\n", 1, "an alias contains itself, or aliases nest too deep"),
    "deep": (f"a: {'[' * 40}{']' * 40}", 1, "nested deeper than 32 levels"),
    "bottomless": (f"a: {'[' * 20_000}", 1, "nested deeper than 32 levels"),
    "too-long": ("a" * 262_145, None, "the text has 262,145 characters, at most 262,144 are read"),
}


@pytest.mark.parametrize(("text", "line", "message"), BAD.values(), ids=BAD.keys())
def test_what_is_no_document_is_refused_with_its_line(text: str, line: int | None, message: str) -> None:
    assert problem(text) == (line, message)


BOMBS = {
    "aliases": "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)),
    "merges": "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 12)),
    "merge-of-itself": "a: &a {<<: *a}\n",
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS.keys())
def test_an_alias_bomb_costs_a_moment_only(text: str) -> None:
    started = time.process_time()
    _, message = problem(text)
    assert message.startswith(("more than 20,000 values", "a mapping merges itself"))
    assert time.process_time() - started < 5.0
