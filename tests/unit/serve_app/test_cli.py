"""The command line: exit codes, and what goes to which stream."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from serve_app import cli
from serve_app.commands.schema import platform_schema
from serve_app.config import PlatformConfig

ROOT = Path(__file__).parents[3]
VALID = """\
models:
  - name: chat
    variants:
      - {name: stable, source: org/model, weight: 90, accelerator: L40S, engine: {tensor_parallel_size: 2}}
      - {name: canary, source: org/next, weight: 10, engine: {kind: simulated}, autoscaling: {max_replicas: 4}}
embedders:
  - {name: minilm, source: org/embedder}
pipelines:
  - name: docs
    versions:
      - {name: v1, embedder: minilm, collection: py, prompt: '{{ question }}', model: chat}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "p.yaml"
    path.write_text(VALID, encoding="utf-8")
    return path


def manta(*arguments: str | Path) -> Any:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def test_validate_prints_a_line_per_part(file: Path) -> None:
    result = manta("validate", "--no-engines", file)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "model chat: stable 90 % = org/model on 2 x 1 L40S, replicas 1; "
        "canary 10 % = org/next (simulated) on 1 x 1 CPU, replicas 1 to 4",
        "embedder minilm: org/embedder on CPU",
        "pipeline docs: v1 100 % = py by minilm, top 5, answered by chat",
        f"{file}: valid",
    ]


def test_validate_prints_problems_on_stderr_and_fails(file: Path) -> None:
    file.write_text("modles: []\nrouter: {replicas: 0}\n", encoding="utf-8")
    result = manta("validate", file)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        f"{file}:1: unknown field `modles`, did you mean `models`?",
        f"{file}:2: router.replicas: must be at least 1, got 0",
        f"2 problems in {file}",
    ]


def test_validate_can_leave_files_unchecked(file: Path) -> None:
    file.write_text(VALID.replace("org/model", "./gone"), encoding="utf-8")
    failed = manta("validate", file)
    assert (failed.exit_code, failed.stderr.splitlines()[-1]) == (1, f"1 problem in {file}")
    assert manta("validate", "--no-files", "--no-engines", file).exit_code == 0


def test_render_prints_the_schema_that_apps_builds(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build_schema(config: PlatformConfig, *, http_port: int, grpc_port: int) -> dict[str, object]:
        ports = {"http_options": {"port": http_port}, "grpc_options": {"port": grpc_port}}
        return {**ports, "applications": [{"name": model.name} for model in config.models]}

    apps = ModuleType("serve_app.apps")
    apps.build_schema = build_schema  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "serve_app.apps", apps)
    result = manta("render", file, "--http-port", "8100", "--grpc-port", "9100")
    ports = "http_options:\n  port: 8100\ngrpc_options:\n  port: 9100\n"
    assert (result.exit_code, result.stdout) == (0, f"{ports}applications:\n- name: chat\n")


def test_render_refuses_a_wrong_configuration_before_it_builds(file: Path) -> None:
    file.write_text("models: 3", encoding="utf-8")
    assert manta("render", file).exit_code == 1


def test_schema_prints_a_valid_json_schema() -> None:
    result = manta("schema")
    schema = json.loads(result.stdout)
    Draft202012Validator.check_schema(schema)
    assert (result.exit_code, schema) == (0, platform_schema())


def test_the_json_schema_accepts_the_demo_platform_and_refuses_a_typo() -> None:
    document = yaml.safe_load((ROOT / "platform.yaml").read_text(encoding="utf-8"))
    validator = Draft202012Validator(platform_schema())
    assert list(validator.iter_errors(document)) == []
    document["models"][0]["variants"][0]["wieght"] = 1
    assert ["wieght" in error.message for error in validator.iter_errors(document)] == [True]


def test_version_is_that_of_the_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.commands.version.version", lambda _: "1.2.3")
    assert manta("version").stdout == "1.2.3\n"


def test_a_checkout_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("serve_app.commands.version.version", missing)
    assert manta("version").stdout == "unknown (not installed)\n"


def test_main_runs_the_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["manta", "--help"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 0
    assert "validate" in capsys.readouterr().out
