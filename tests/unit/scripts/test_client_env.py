from __future__ import annotations

from pathlib import Path

import pytest

from scripts.client_env import REQUIREMENTS, main


class Terminal:
    """Notes commands; the one at ``fails_at`` fails."""

    def __init__(self, home: Path, *, fails_at: int | None = None) -> None:
        self.commands: list[list[str]] = []
        self._home = home
        self._fails_at = fails_at

    def run(self, command: list[str]) -> int:
        self._home.mkdir(exist_ok=True)
        self.commands.append(command)
        return 1 if len(self.commands) == self._fails_at else 0


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "clients"


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    path = tmp_path / "requirements.txt"
    path.write_text("one==1\n", encoding="utf-8")
    return path


def test_a_second_run_does_nothing(home: Path, requirements: Path) -> None:
    first, second = Terminal(home), Terminal(home)
    assert main(home, requirements, run=first.run) == 0
    assert main(home, requirements, run=second.run) == 0
    assert [command[2] for command in first.commands] == ["venv", "pip"]
    assert second.commands == []


def test_other_requirements_make_it_anew(home: Path, requirements: Path) -> None:
    main(home, requirements, run=Terminal(home).run)
    (home / "left-over").touch()
    requirements.write_text("one==2\n", encoding="utf-8")
    again = Terminal(home)
    assert main(home, requirements, run=again.run) == 0
    assert len(again.commands) == 2
    assert not (home / "left-over").exists()


@pytest.mark.parametrize("fails_at", [1, 2])
def test_what_was_cut_short_is_made_again(home: Path, requirements: Path, fails_at: int) -> None:
    assert main(home, requirements, run=Terminal(home, fails_at=fails_at).run) == 1
    again = Terminal(home)
    assert main(home, requirements, run=again.run) == 0
    assert len(again.commands) == 2


def test_every_requirement_is_pinned() -> None:
    lines = [line.partition("#")[0].strip() for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines()]
    assert all("==" in line for line in lines if line)
