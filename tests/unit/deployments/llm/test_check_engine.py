"""The plumbing of the process that checks engines; what vLLM says is tested end to end."""

from __future__ import annotations

import io
import json
import os
from types import SimpleNamespace

import pytest

from deployments.llm import check_engine, vllm_checks
from deployments.llm.vllm_checks import Findings, Subject


def findings(subject: Subject) -> Findings:
    os.write(1, b"a library that prints\n")
    if subject.engine.dtype == "float16":
        return Findings([(("engine", "dtype"), "no")])
    return Findings(unchecked=[f"{subject.source} {subject.has_accelerator}"])


def test_it_answers_in_the_order_of_the_request_and_keeps_what_libraries_print_off_stdout(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    subject = {"source": "org/model", "has_accelerator": True}
    request = {"engines": [{**subject, "engine": {"dtype": "float16"}}, {**subject, "engine": {}}]}
    monkeypatch.setattr(vllm_checks, "check", findings)
    monkeypatch.setattr(check_engine, "build", lambda: ("0.29.0", False))
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(request)))
    for name in ("VLLM_LOGGING_LEVEL", "VLLM_NO_USAGE_STATS", "VLLM_CPU_KVCACHE_SPACE", "VLLM_TARGET_DEVICE"):
        monkeypatch.setenv(name, "1")  # put back afterwards
    before = os.dup(1)
    try:
        assert check_engine.main() == 0
    finally:
        os.dup2(before, 1)
        os.close(before)
    printed = capfd.readouterr()
    assert json.loads(printed.out)["results"] == [
        {"problems": [{"field": ["engine", "dtype"], "message": "no"}], "unchecked": []},
        {"problems": [], "unchecked": ["org/model True"]},
    ]
    assert "a library that prints" in printed.err


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        pytest.param({"vllm": "0.29.0"}, ("0.29.0", True), id="gpu"),
        pytest.param({"vllm-cpu": "0.29.0"}, ("0.29.0", False), id="cpu"),
        pytest.param({"vllm": "0.29.0+cpu"}, ("0.29.0+cpu", False), id="cpu-from-source"),
        pytest.param({}, ("", False), id="none"),
    ],
)
def test_the_build_of_vllm_is_told_by_what_is_installed(
    monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], expected: tuple[str, bool]
) -> None:
    def distributions(name: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(version=installed[name])] if name in installed else []

    monkeypatch.setattr(check_engine, "distributions", distributions)
    assert check_engine.build() == expected


def test_a_build_for_accelerators_is_checked_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_checks, "check", findings)
    monkeypatch.setattr(check_engine, "build", lambda: ("0.29.0", True))
    request = {"engines": [{"source": "org/model", "engine": {}, "has_accelerator": False}]}
    assert check_engine.run(request)["results"] == [{"problems": [], "unchecked": ["org/model True"]}]
