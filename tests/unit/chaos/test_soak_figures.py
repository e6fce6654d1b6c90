"""What the soak calls a leak, and what it calls explained."""

from __future__ import annotations

import pytest

from tests.chaos.load import Record
from tests.chaos.soak import Happened, Samples, early_and_late, kind_of, unexplained

KILLED = Happened("Router killed", began_s=100.0, ended_s=101.0, explains=frozenset({"broken", "cut"}))


def request(end: str, *, began_s: float, ended_s: float) -> Record:
    return Record("chat", began_s, ended_s=ended_s, end=end)


@pytest.mark.parametrize(
    ("record", "is_explained"),
    [
        (request("ok", began_s=1.0, ended_s=2.0), True),
        (request("broken", began_s=99.5, ended_s=100.2), True),
        (request("cut", began_s=130.0, ended_s=130.5), True),
        (request("cut", began_s=131.5, ended_s=132.0), False),  # long after it
        (request("broken", began_s=98.0, ended_s=99.9), False),  # before it
        (request("failed", began_s=100.5, ended_s=101.0), False),
        (request("silent", began_s=100.5, ended_s=101.0), False),
        (request("refused", began_s=100.5, ended_s=101.0), False),
    ],
)
def test_only_what_a_fault_may_do_while_it_is_felt_is_explained(record: Record, is_explained: bool) -> None:
    assert (unexplained([record], [KILLED]) == []) is is_explained


def test_the_first_fifth_is_for_warming_up_and_single_peaks_do_not_count() -> None:
    values = [*(10.0,) * 10, *(50.0,) * 10, *(70.0,) * 20, *(60.0,) * 9, 900.0]
    assert early_and_late(values) == (50.0, 60.0)


def samples(name: str, values: list[float]) -> Samples:
    made = Samples()
    made.held["Router"][name] = values
    made.in_all = {"actors": [20.0] * 50, "shm_mib": [100.0] * 50, "processes": [40.0] * 50}
    return made


@pytest.mark.parametrize(
    ("name", "start", "end", "is_grown"),
    [
        ("rss_mib", 200.0, 229.0, False),
        ("rss_mib", 200.0, 235.0, True),
        ("fds", 100.0, 144.0, False),
        ("fds", 100.0, 150.0, True),
        ("threads", 30.0, 34.0, False),
        ("threads", 30.0, 40.0, True),
        ("fds", 120.0, 100.0, False),
    ],
)
def test_growth_beyond_what_is_allowed_is_told_by_the_part(name: str, start: float, end: float, *, is_grown: bool) -> None:
    made = samples(name, [start + (end - start) * max(0.0, min(1.0, (at - 15) / 30)) for at in range(50)])
    assert [line.split(":")[0] for line in made.grown()] == (["Router"] if is_grown else [])


def test_actors_and_shared_memory_that_stay_behind_are_told() -> None:
    made = samples("fds", [10.0] * 50)
    made.in_all["actors"] = [20.0] * 30 + [30.0] * 20
    made.in_all["shm_mib"] = [100.0] * 30 + [200.0] * 20
    assert made.grown() == ["actors 20.0 -> 30.0", "shm_mib 100.0 -> 200.0"]


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        ("ray::ServeReplica:router:Router.handle_request", "Router"),
        ("ray::HAProxyManager", "proxy manager"),
        ("/opt/bin/haproxy -db -f haproxy.cfg", "HAProxy"),
        ("ray::IDLE", "other"),
    ],
)
def test_processes_are_told_apart(title: str, kind: str) -> None:
    assert kind_of(title) == kind
