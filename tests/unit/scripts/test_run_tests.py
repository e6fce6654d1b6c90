from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts import run_tests
from scripts.run_tests import GROUPS, Outcome

ROOT = Path(__file__).resolve().parents[3]


def test_the_report_ends_with_pytests_own_summary_lines() -> None:
    outcomes = [
        Outcome(GROUPS["unit"], True, 31.4, "== 2 passed in 30.1s =="),
        Outcome(GROUPS["integration"], False, 660.0, "== 1 failed in 9s ==", "left processes behind: raylet"),
    ]
    assert run_tests.report(outcomes).splitlines() == [
        "unit         passed      31 s",
        "integration  FAILED     660 s  left processes behind: raylet",
        "== 2 passed in 30.1s ==",
        "== 1 failed in 9s ==",
    ]


@pytest.mark.parametrize(
    ("line", "is_kept"),
    [
        pytest.param("==== 3 passed in 0.12s ====\n", True, id="passed"),
        pytest.param("== 1 failed, 2 passed, 1 warning in 75.00s (0:01:15) ==\n", True, id="long"),
        pytest.param("no tests ran in 0.01s\n", True, id="empty"),
        pytest.param("FAILED tests/unit/test_a.py::test_b\n", False, id="failure-line"),
    ],
)
def test_pytests_summary_is_told_from_other_lines(line: str, is_kept: bool, capsys: pytest.CaptureFixture[str]) -> None:
    kept: list[str] = []
    run_tests.relay([line], kept.append)
    assert (kept == [line.strip()], capsys.readouterr().out) == (is_kept, line)


def test_the_limits_of_make_test_end_before_ci_ends_it() -> None:
    groups = ("unit", "integration", "main-job")
    assert f"$(TESTS) {' '.join(groups)}\n" in (ROOT / "Makefile").read_text()
    [ci_limit_s] = re.findall(r"MANTA_CI_LIMIT_S:-(\d+)", (ROOT / ".ci" / "run").read_text())
    setup_s = 20 * 60
    assert sum(GROUPS[name].limit_s for name in groups) + setup_s <= int(ci_limit_s)
