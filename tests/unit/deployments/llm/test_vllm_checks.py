"""How a configuration is checked; vLLM's own part of it is tested end to end (tests/e2e/test_validate_engines.py)."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.llm import vllm_checks
from deployments.llm.vllm_args import ArgumentsError
from deployments.llm.vllm_checks import ELSEWHERE, NO_FILES, Findings, Subject, check
from serve_app.config import EngineConfig

Check = Callable[..., Findings]


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Check:
    """Return a check in which vLLM is a function that builds, on a machine without accelerators."""

    @contextlib.contextmanager
    def platform_of(subject: Subject) -> Iterator[bool]:
        yield subject.has_accelerator

    def run(error: Exception | None = None, *, is_on_gpu: bool = False, source: str = str(tmp_path), **engine: Any) -> Findings:
        def build(*_: object) -> None:
            if error is not None:
                raise error

        monkeypatch.setattr(vllm_checks, "parse_args", lambda arguments: argparse.Namespace(**arguments))
        monkeypatch.setattr(vllm_checks, "platform_of", platform_of)
        monkeypatch.setattr(vllm_checks, "_build", build)
        monkeypatch.setattr(vllm_checks, "_NAMES", (("load_format", lambda: ["auto", "dummy"], ""), PARSER))
        return check(Subject(source, EngineConfig.model_validate(engine), is_on_gpu))

    return run


PARSER = ("tool_call_parser", lambda: ["hermes"], "tool_parser_plugin")


def test_what_vllm_builds_is_accepted(checked: Check) -> None:
    assert checked() == Findings()


def test_what_vllm_raises_is_a_problem(checked: Check) -> None:
    assert checked(ValueError("max_model_len is too large"), max_model_len=64) == Findings(
        [(("engine", "max_model_len"), "max_model_len is too large")]
    )


def test_what_the_parser_refuses_and_names_that_vllm_lacks_are_told_together(
    checked: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(arguments: object) -> argparse.Namespace:
        raise ArgumentsError([("seed", "no number"), ("max_lora_rank", "not one of them")])

    checked()
    monkeypatch.setattr(vllm_checks, "parse_args", refuse)
    assert check(Subject("org/model", EngineConfig(load_format="dumy"), False)) == Findings(
        [
            (("engine", "engine_args", "seed"), "no number"),
            (("engine", "lora", "max_rank"), "not one of them"),
            (("engine", "load_format"), "vLLM knows no 'dumy', did you mean `dummy`?"),
        ]
    )


def test_a_name_that_vllm_lacks_is_told_before_anything_is_built(checked: Check) -> None:
    assert checked(ValueError("x"), load_format="dumy").problems == [
        (("engine", "load_format"), "vLLM knows no 'dumy', did you mean `dummy`?")
    ]
    assert checked(load_format="DUMMY") == Findings()


def test_a_plugin_may_bring_a_parser_that_vllm_lacks(checked: Check) -> None:
    plugin = {"engine_args": {"tool_parser_plugin": "/plugins/mine.py"}}
    assert len(checked(tool_call_parser="mine").problems) == 1
    assert checked(tool_call_parser="mine", **plugin) == Findings()


def test_a_machine_without_the_accelerator_cannot_know_its_kernels(checked: Check) -> None:
    error = ValueError("quantization is not supported")
    assert checked(error, is_on_gpu=True, quantization="fp8") == Findings(
        [], ["engine.quantization: on this machine vLLM says: quantization is not supported", ELSEWHERE]
    )
    assert len(checked(error, quantization="fp8").problems) == 1


def test_what_every_platform_refuses_is_a_problem_of_an_accelerators_variant_too(checked: Check) -> None:
    findings = checked(ValueError("max_model_len is too large"), is_on_gpu=True, max_model_len=64)
    assert (len(findings.problems), findings.unchecked) == (1, [ELSEWHERE])
    assert len(checked(ValueError("Cannot find the config file for awq"), is_on_gpu=True, quantization="awq").problems) == 1


def test_files_that_are_not_here_are_not_checked_and_that_is_said(checked: Check, tmp_path: Path) -> None:
    draft = {"model": "org/draft", "num_speculative_tokens": 2}
    assert checked(source="org/model").unchecked == [NO_FILES]
    assert checked(source=str(tmp_path / "gone")).unchecked == [NO_FILES]
    assert checked(speculative=draft).unchecked == [NO_FILES]
    assert checked(tokenizer="org/tokens").unchecked == [NO_FILES]
    assert checked(tokenizer=str(tmp_path)) == Findings()
