"""The process that lets vLLM check engines: what it is asked, and what becomes of its answer or its end."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from serve_app.commands import engine_checks
from serve_app.commands.engine_checks import CheckFailedError, Report
from serve_app.config import PlatformConfig

ANSWER = """
import json, sys
request = json.load(sys.stdin)
for engine in request["engines"]:
    assert set(engine) == {"source", "engine", "has_accelerator"}
results = [
    {"problems": [{"field": ["engine", "dtype"], "message": "no"}], "unchecked": []}
    if engine["engine"].get("dtype") == "float16" else {"problems": [], "unchecked": ["kernels"]}
    for engine in request["engines"]
]
json.dump({"vllm": "0.29.0", "results": results}, sys.stdout)
"""


def config(*variants: dict[str, Any]) -> PlatformConfig:
    first, *others = ({"name": f"v{i}", "source": "org/model", "weight": 0, **v} for i, v in enumerate(variants))
    model = {"name": "chat", "variants": [{**first, "weight": 100}, *others]}
    return PlatformConfig.model_validate({"models": [model]})


def command(tmp_path: Path, program: str) -> tuple[str, ...]:
    file = tmp_path / "checker.py"
    file.write_text(program, encoding="utf-8")
    return sys.executable, str(file)


def test_alike_engines_are_asked_about_once_and_simulated_ones_never() -> None:
    made = config({}, {"engine": {"kind": "simulated"}}, {"accelerator": "L40S"}, {"engine": {"dtype": "auto"}})
    asked = [(subject["has_accelerator"], places) for subject, places in engine_checks.subjects(made)]
    here = ("models", 0, "variants")
    assert asked == [(False, ((*here, 0), (*here, 3))), (True, ((*here, 2),))]


def test_only_what_differs_from_the_defaults_is_sent() -> None:
    subject, _ = engine_checks.subjects(config({"engine": {"max_num_seqs": 8, "dtype": "auto"}}))[0]
    assert subject == {"source": "org/model", "engine": {"max_num_seqs": 8}, "has_accelerator": False}


def test_the_answer_is_told_for_every_variant_it_stands_for(tmp_path: Path) -> None:
    bad = {"engine": {"dtype": "float16"}}
    report = engine_checks.check(config({}, bad, {"accelerator": "L40S"}, bad), command=command(tmp_path, ANSWER))
    here = ("models", 0, "variants")
    assert report == Report(
        "0.29.0",
        problems=tuple(((*here, i, "engine", "dtype"), "no") for i in (1, 3)),
        unchecked=((((*here, 0), (*here, 2)), "kernels"),),
    )


@pytest.mark.parametrize(
    ("program", "why"),
    [
        pytest.param("import sys; sys.exit('out of memory')", r"exit code 1: out of memory$", id="fails"),
        pytest.param("import os; os.kill(os.getpid(), 9)", r"ended with signal 9$", id="killed"),
        pytest.param("print('hello')", r"gave no answer$", id="no-json"),
        pytest.param("print('{}')", r"cannot be read$", id="other-json"),
        pytest.param("""print('{"vllm": "1", "results": []}')""", r"cannot be read$", id="too-few-results"),
        pytest.param(
            """print('{"vllm": "1", "results": [{"problems": [{}], "unchecked": []}]}')""", r"cannot be read$", id="no-field"
        ),
    ],
)
def test_a_checker_that_does_not_answer_is_no_success(tmp_path: Path, program: str, why: str) -> None:
    with pytest.raises(CheckFailedError, match=why):
        engine_checks.check(config({}), command=command(tmp_path, program))


def test_a_checker_that_hangs_is_ended(tmp_path: Path) -> None:
    hangs = command(tmp_path, "import signal; signal.pause()")
    with pytest.raises(CheckFailedError, match="has not answered within 0 s"):
        engine_checks.check(config({}), command=hangs, timeout_s=0.2)


def test_the_command_is_a_module_of_the_deployments() -> None:
    assert json.dumps(engine_checks.COMMAND[1:]) == '["-m", "deployments.llm.check_engine"]'
