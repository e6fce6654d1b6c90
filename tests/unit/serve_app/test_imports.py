"""What a command may cost before it does anything: no engine, no Ray, little CPU."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
HEAVY = ("torch", "vllm", "ray", "transformers", "sentence_transformers", "lancedb", "pyarrow", "grpc", "boto3", "numpy")
REPORT = """
import sys
code, names = sys.argv[1:3]  # the code may replace sys.argv
try:
    exec(code)
except SystemExit as exit:
    assert not exit.code, exit.code
print([name for name in names.split(",") if name in sys.modules], file=sys.stderr)
"""
COMMAND = "import sys; sys.argv[:] = ['manta', *{!r}]; from serve_app.cli import main; main()"
COMMANDS = {
    "help": ["--help"],
    "validate": ["validate", "--no-files", "--no-engines", "platform.yaml"],
    "schema": ["schema"],
    "version": ["version"],
}


def heavy_imports_of(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", REPORT, code, ",".join(HEAVY)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr
    return result.stderr.strip()


def test_a_heavy_import_would_be_noticed() -> None:
    assert heavy_imports_of("import numpy") == "['numpy']"


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert (
        heavy_imports_of("import serve_app, serve_app.config, serve_app.contracts, serve_app.errors, serve_app.loading") == "[]"
    )


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS.keys())
def test_a_command_that_starts_nothing_loads_nothing_heavy(arguments: list[str]) -> None:
    assert heavy_imports_of(COMMAND.format(arguments)) == "[]"


def test_help_answers_within_a_second_of_cpu() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "serve_app.cli", "--help"], cwd=ROOT, capture_output=True, check=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0
