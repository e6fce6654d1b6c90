"""`manta validate` and what vLLM says of the engines."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from serve_app.commands import validate
from serve_app.commands.engine_checks import CheckFailedError, Report
from serve_app.config import PlatformConfig
from serve_app.errors import CommandError

DOCUMENT = """\
models:
  - name: chat
    variants:
      - {name: stable, source: org/model}
      - name: canary
        source: org/next
        weight: 0
        engine:
          quantization: aqw
"""
PLACE = ("models", 0, "variants", 1)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("serve_app.commands.engine_checks.is_installed", lambda: True)
    path = tmp_path / "p.yaml"
    path.write_text(DOCUMENT, encoding="utf-8")
    return path


def never(config: PlatformConfig) -> Report:
    raise AssertionError("nothing is to be checked")


def test_what_vllm_refuses_is_told_like_every_problem(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem = ((*PLACE, "engine", "quantization"), "vLLM knows no 'aqw', did you mean `awq`?")
    with pytest.raises(typer.Exit) as caught:
        validate.run(file, check_files=True, check=lambda config: Report("0.29.0", (problem,), ()))
    printed = capsys.readouterr()
    assert (caught.value.exit_code, printed.out) == (1, "")
    assert printed.err.splitlines() == [
        "vLLM checks 2 different engines; this may take a minute (--no-engines leaves it out)",
        f"{file}:9: models[0].variants[1].engine.quantization: vLLM knows no 'aqw', did you mean `awq`?",
        f"1 problem in {file}",
    ]


def test_what_vllm_accepts_is_said_and_so_is_what_it_could_not_check(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    validate.run(file, check_files=True, check=lambda config: Report("0.29.0", (), (((PLACE,), "no such accelerator"),)))
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == f"{file}: valid; vLLM 0.29.0 accepts 2 different engines"
    assert printed.err.splitlines()[1:] == [f"{file}: models[0].variants[1]: not checked: no such accelerator"]


def test_a_check_that_fails_is_a_warning_and_no_success(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def check(config: PlatformConfig) -> Report:
        raise CheckFailedError("it ended with signal 9")

    validate.run(file, check_files=True, check=check)
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == f"{file}: valid; the engines were not checked"
    assert printed.err.splitlines()[1:] == [f"{file}: warning: the engines could not be checked: it ended with signal 9"]


def test_the_engines_can_be_left_out(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    validate.run(file, check_files=True, engines=False, check=never)
    printed = capsys.readouterr()
    assert (printed.out.splitlines()[-1], printed.err) == (f"{file}: valid", "")


def test_a_document_without_an_engine_of_vllms_does_not_wait_for_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("embedders: [{name: e, source: org/embedder}]", encoding="utf-8")
    validate.run(file, check_files=True, engines=True, check=never)
    assert capsys.readouterr().err == ""


def test_without_vllm_the_engines_are_not_checked_and_that_is_said(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_app.commands.engine_checks.is_installed", lambda: False)
    validate.run(file, check_files=True, check=never)
    printed = capsys.readouterr()
    assert (printed.out.splitlines()[-1], printed.err) == (
        f"{file}: valid",
        "the engines are not checked: vLLM is not installed here\n",
    )
    with pytest.raises(CommandError, match="not installed here"):
        validate.run(file, check_files=True, engines=True, check=never)
