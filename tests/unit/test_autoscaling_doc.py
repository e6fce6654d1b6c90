from __future__ import annotations

import ast
import re
from pathlib import Path

import typer.main
import yaml

from benchmarks.latency_model.__main__ import parse
from serve_app.cli import app
from serve_app.config_scaling import AutoscalingConfig

DOC = (Path(__file__).resolve().parents[2] / "docs/autoscaling.md").read_text(encoding="utf-8")
TARGET = re.search(r"^## Choosing the target\n(.*?)(?=^## |\Z)", DOC, re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    assert TARGET is not None
    return re.findall(rf"^```{language}\n(.*?)^```", TARGET[1], re.MULTILINE | re.DOTALL)


def test_the_locustfile_is_python_and_tells_what_tune_reads() -> None:
    [locustfile] = blocks("python")
    ast.parse(locustfile)
    assert 'self.tell("TTFT"' in locustfile
    assert 'self.tell("ITL"' in locustfile


def test_the_settings_are_valid() -> None:
    [settings] = blocks("yaml")
    assert AutoscalingConfig.model_validate(yaml.safe_load(settings)["autoscaling"]).slots == 16


def test_the_commands_take_their_options() -> None:
    lines = [line.removeprefix("$ ").split() for block in blocks("console") for line in block.splitlines()]
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    checked = []
    for line in lines:
        if line[0] == "manta":
            command = group.commands[line[1]]
            assert {word for word in line if word.startswith("--")} <= {o for p in command.params for o in p.opts}
            checked.append(line[1])
    [study] = [line for line in lines if "benchmarks.latency_model" in line]
    assert parse(study[3:]).slots == 64
    assert checked == ["tune", "simulate"]
