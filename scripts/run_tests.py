"""Runs groups of tests one after the other: `.venv/bin/python scripts/run_tests.py unit integration main-job`.

Every group is its own pytest with a time limit. No process that a group started outlives it: this program adopts the
orphans (Linux subreaper), ends what is left, and counts leftovers as a failure of the group.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import re
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, NoReturn

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 20.0
NOT_EVERYWHERE = "not (chart or chaos or gpu or slow)"
MATRIX = f"matrix and {NOT_EVERYWHERE}"
CHART = "chart and not (chaos or gpu or slow)"
NO_ENGINE = "not (e2e or vllm or chart or chaos or gpu or slow)"
SLOW = "slow and not (e2e or vllm or chart or chaos or gpu)"
SUMMARY = re.compile(r".*\b(?:passed|failed|errors?|skipped|deselected|no tests ran)\b.* in [\d.]+s\b")
# What Ray may need to take down after its driver left.
SETTLE_S = 10.0


@dataclasses.dataclass(frozen=True)
class Group:
    """One pytest run. Folders decide what belongs to it; markers only keep out what this machine may not have."""

    name: str
    paths: tuple[str, ...]
    markers: str
    limit_s: float


@dataclasses.dataclass(frozen=True)
class Outcome:
    group: Group
    is_passed: bool
    wall_s: float
    summary: str
    note: str = ""


GROUPS = {
    group.name: group
    for group in (
        Group("unit", ("tests/unit",), NO_ENGINE, limit_s=1_000),
        Group("integration", ("tests/integration",), NO_ENGINE, limit_s=1_600),
        Group("main-job", ("tests/e2e/test_main_job.py",), NOT_EVERYWHERE, limit_s=1_000),
        # A platform of two engines: the one of the other end-to-end tests has to be gone before it starts.
        Group("e2e", ("tests/e2e",), "not (matrix or chart or chaos or gpu)", limit_s=7_200),
        Group("slow", ("tests/unit", "tests/integration"), SLOW, limit_s=3_600),
        Group("chart", ("tests/chart",), CHART, limit_s=600),
        Group("chaos", ("tests/chaos",), "chaos and not (vllm or gpu)", limit_s=3_600),
        Group("soak", ("tests/chaos/test_soak.py",), "chaos and not (vllm or gpu)", limit_s=9_000),
        Group("matrix", ("tests/e2e/test_clients.py", "tests/e2e/test_parity.py"), MATRIX, limit_s=3_600),
    )
}


def main() -> int:
    args, pytest_args = parse_args()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGTERM, stop)
    outcomes = []
    try:
        for name in args.groups:
            print(f"\n>>> {name}: at most {GROUPS[name].limit_s:.0f} s", flush=True)
            outcomes.append(run_group(GROUPS[name], pytest_args))
    except KeyboardInterrupt:
        end_descendants(settle_s=SETTLE_S)
        return 130
    finally:
        end_descendants(settle_s=0.0)
    print("\n" + report(outcomes), flush=True)
    return 0 if all(outcome.is_passed for outcome in outcomes) else 1


def parse_args() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description="Run groups of tests; arguments not named here go to pytest.")
    parser.add_argument("groups", nargs="+", choices=sorted(GROUPS))
    return parser.parse_known_args()


def stop(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(143)


def run_group(group: Group, pytest_args: Sequence[str]) -> Outcome:
    started_s = time.monotonic()
    command = [sys.executable, "-m", "pytest", *group.paths, "-m", group.markers, *pytest_args]
    pytest = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace", preexec_fn=die_with_parent)
    summaries: list[str] = []
    # A thread, because a process that pytest left behind may keep the pipe open.
    reader = threading.Thread(target=relay, args=(pytest.stdout or (), summaries.append), daemon=True)
    reader.start()
    note = ""
    try:
        pytest.wait(timeout=group.limit_s)
    except subprocess.TimeoutExpired:
        note = f"stopped after its limit of {group.limit_s:.0f} s"
        end_tree(pytest.pid)
    left = end_descendants(settle_s=SETTLE_S)
    reader.join(timeout=GRACE_S)
    note = note or (f"left processes behind: {', '.join(left)}" if left else "")
    summary = summaries[-1] if summaries else f"no summary from pytest for {group.name}"
    return Outcome(group, pytest.wait() == 0 and not note, time.monotonic() - started_s, summary, note)


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def relay(lines: Iterable[str], keep: Callable[[str], object]) -> None:
    """Print every line as it comes, and keep pytest's summary lines."""
    for line in lines:
        print(line, end="", flush=True)
        if SUMMARY.match(line):
            keep(line.rstrip())


def end_tree(pid: int) -> None:
    try:
        root = psutil.Process(pid)
        end([root, *root.children(recursive=True)])
    except psutil.NoSuchProcess:
        return


def end_descendants(*, settle_s: float) -> list[str]:
    """Wait for our descendants to leave, end the rest, and return the names of those that had to be ended."""
    _, left = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=settle_s)
    names = sorted({name_of(process) for process in left} - {""})
    end(left)
    return names


def name_of(process: psutil.Process) -> str:
    """Return a short name, or nothing for a process that has ended already."""
    try:
        return "" if process.status() == psutil.STATUS_ZOMBIE else process.name()
    except psutil.NoSuchProcess:
        return ""


def end(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        process.terminate()
    _, stubborn = psutil.wait_procs(processes, timeout=GRACE_S)
    for process in stubborn:
        process.kill()


def report(outcomes: Sequence[Outcome]) -> str:
    """Return one line per group, then pytest's own summary lines, which end the output."""
    return "\n".join([*map(row, outcomes), *(outcome.summary for outcome in outcomes)])


def row(outcome: Outcome) -> str:
    verdict = "passed" if outcome.is_passed else "FAILED"
    return f"{outcome.group.name:<12} {verdict}  {outcome.wall_s:6.0f} s  {outcome.note}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
