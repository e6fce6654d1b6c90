from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import setup_env
from scripts.setup_plan import Venv

SCRIPT = Path(setup_env.__file__)


def test_a_folder_that_is_no_environment_is_not_runnable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup_env, "VENV", tmp_path)
    assert setup_env.inspect_venv() == Venv(exists=True, is_runnable=False, python=None)


def test_an_environment_whose_python_is_gone_is_not_runnable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup_env, "VENV", tmp_path)
    (tmp_path / "pyvenv.cfg").write_text("version = 3.11.7\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(tmp_path / "gone")
    assert setup_env.inspect_venv() == Venv(exists=True, is_runnable=False, python="3.11")


def test_sizes_count_files_below_and_no_link_targets(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "file").write_bytes(b"\0" * (3 * 2**20))
    (tmp_path / "link").symlink_to(tmp_path / "below" / "file")
    assert setup_env.size_mb(tmp_path) == 3


def test_a_library_that_no_machine_has_does_not_load() -> None:
    assert not setup_env.is_loadable("libmanta-does-not-exist.so.1")


@pytest.mark.parametrize("script", ["setup_env.py", "setup_plan.py"])
def test_the_set_up_parses_on_python_3_8(script: str) -> None:
    import ast

    ast.parse((SCRIPT.parent / script).read_text(), feature_version=(3, 8))


def test_an_unknown_device_is_refused_in_one_line() -> None:
    answer = subprocess.run([sys.executable, str(SCRIPT), "--device", "tpu"], capture_output=True, text=True, check=False)
    assert (answer.returncode, "invalid choice: 'tpu'" in answer.stderr) == (2, True)


def test_pythons_that_do_not_start_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "python3.12"
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    (tmp_path / "python3.11").symlink_to(os.path.realpath(sys.executable))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [found.path for found in setup_env.other_interpreters()] == [str(tmp_path / "python3.11")]
