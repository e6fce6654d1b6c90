import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.data_path.accounting import Account, Ledger, Point, Process, cpu_at, parse_stat, pss_bytes, role_of

# Burns CPU itself, and in a child of its own that ends between two looks at the process table.
BURNER = """
import subprocess, sys, time
def burn(seconds):
    while time.process_time() < seconds:
        pass
if sys.argv[1:]:
    burn(float(sys.argv[1]))
else:
    subprocess.run([sys.executable, "-S", __file__, "0.2"], check=True)
    burn(0.4)
    print("burnt", flush=True)
    time.sleep(60)
"""


def process(pid: int, parent: int = 1, cpu_s: float = 0.0, children_cpu_s: float = 0.0) -> Process:
    return Process(pid, parent, 100 + pid, cpu_s, children_cpu_s, rss_bytes=1000, threads=1)


def table(*processes: Process) -> dict[int, Process]:
    return {one.pid: one for one in processes}


def test_costs_of_a_real_process_hold_its_cpu_and_that_of_its_ended_child(tmp_path: Path) -> None:
    script = tmp_path / "burner.py"
    script.write_text(BURNER)
    root = subprocess.Popen([sys.executable, "-S", str(script)], stdout=subprocess.PIPE)
    try:
        begun = time.monotonic()
        with Account({"router": [root.pid]}, detail_after_s=0.0, every_s=0.05) as account:
            assert root.stdout is not None
            root.stdout.readline()
        cost = account.costs(begun - 1, time.monotonic())["router"]
    finally:
        root.kill()
        root.communicate()
    assert 0.5 <= cost.cpu_s <= 0.9  # 0.4 and 0.2, and what Python takes to start, less what came before the first look
    assert cost.rss_peak_bytes >= cost.rss_after_bytes > 2**20
    assert cost.pss_after_bytes is None or 2**18 < cost.pss_after_bytes <= cost.rss_peak_bytes
    assert cost.threads_peak >= 1
    assert cost.fds_after is not None
    assert cost.fds_after >= 3


def test_root_that_is_gone_is_an_error_and_not_free() -> None:
    root = subprocess.Popen([sys.executable, "-S", "-c", ""])
    root.wait()
    with pytest.raises(ProcessLookupError, match="'router'"), Account({"router": [root.pid]}):
        pass


def test_descendant_named_under_another_role_counts_there() -> None:
    tree = table(process(10), process(11, 10), process(12, 11), process(13, 12), process(99))
    roots = {10: "control", 12: "router"}
    assert {pid: role_of(pid, tree, roots) for pid in tree} == {
        10: "control",
        11: "control",
        12: "router",
        13: "router",
        99: None,
    }


def test_ended_child_is_counted_once_whether_or_not_it_was_seen() -> None:
    ledger = Ledger({"router": [10]})
    ledger.add(table(process(10, cpu_s=1.0)), at=0.0)
    ledger.add(table(process(10, cpu_s=1.0), process(11, 10, cpu_s=0.5)), at=1.0)
    # 11 used 0.1 more after it was seen last; a child that was never seen used 0.3.
    point = ledger.add(table(process(10, cpu_s=1.0, children_cpu_s=0.6 + 0.3)), at=2.0)
    assert point.cpu_s == {"router": pytest.approx(0.9)}


def test_child_that_nobody_waited_for_keeps_what_was_seen_of_it() -> None:
    ledger = Ledger({"router": [10]})
    ledger.add(table(process(10, cpu_s=1.0)), at=0.0)
    ledger.add(table(process(10, cpu_s=1.0), process(11, 10, cpu_s=0.5)), at=1.0)
    assert ledger.add(table(process(10, cpu_s=1.0)), at=2.0).cpu_s == {"router": pytest.approx(0.5)}


def test_ended_child_of_another_role_leaves_its_parent_nothing() -> None:
    ledger = Ledger({"control": [10], "router": [11]})
    ledger.add(table(process(10), process(11, 10)), at=0.0)
    ledger.add(table(process(10), process(11, 10, cpu_s=2.0)), at=1.0)
    point = ledger.add(table(process(10, children_cpu_s=2.0)), at=2.0)
    assert point.cpu_s == {"control": pytest.approx(0.0), "router": pytest.approx(2.0)}


def test_orphan_stays_its_roles() -> None:
    ledger = Ledger({"router": [10]})
    ledger.add(table(process(10), process(11, 10), process(12, 11)), at=0.0)
    point = ledger.add(table(process(10), process(12, 1, cpu_s=0.7)), at=1.0)
    assert point.cpu_s == {"router": pytest.approx(0.7)}
    assert (point.rss_bytes, point.threads) == ({"router": 2000}, {"router": 2})


def test_process_with_the_id_of_an_ended_one_is_another() -> None:
    ledger = Ledger({"router": [10]})
    ledger.add(table(process(10), process(11, 10)), at=0.0)
    stranger = replace(process(11, 1, cpu_s=5.0), started=9999)
    assert ledger.add(table(process(10), stranger), at=1.0).cpu_s == {"router": 0.0}


def test_name_with_spaces_and_brackets_does_not_shift_the_fields() -> None:
    fields = ["S", "7", *["0"] * 9, "200", "50", "30", "20", "0", "0", "4", "0", "555", "0", "3", *["0"] * 20]
    found = parse_stat(f"42 (ray::Idle) (x) {' '.join(fields)}")
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    assert found == Process(42, 7, 555, 250 / ticks, 50 / ticks, 3 * page, 4)


def test_cpu_between_two_points_is_on_the_line_between_them() -> None:
    points = [Point(at, {"router": cpu_s}, {}, {}) for at, cpu_s in ((10.0, 0.0), (11.0, 1.0), (12.0, 3.0))]
    assert [cpu_at(points, "router", at) for at in (9.0, 10.5, 11.5, 12.0, 13.0)] == [0.0, 0.5, 2.0, 3.0, 3.0]


def test_pss_is_read_from_the_rollup(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "smaps_rollup").write_text("00-ff ---p 0 0 0 [rollup]\nRss:   900 kB\nPss:   12 kB\nPss_Anon:  3 kB\n")
    assert pss_bytes(7, tmp_path) == 12 * 1024
