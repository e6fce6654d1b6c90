from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.busy import SHORTEST_S, BusyShare
from tests.unit.deployments.clock import Clock

SECONDS = st.floats(0, 1000)


@pytest.mark.parametrize(
    ("used_s", "share"), [(0.0, 0.0), (0.5, 0.25), (2.0, 1.0), (6.0, 1.0)], ids=["idle", "quarter", "full", "threads"]
)
def test_the_share_is_of_one_core_since_the_last_look(used_s: float, share: float) -> None:
    cpu, clock = Clock(7.0), Clock()
    busy = BusyShare(cpu=cpu, clock=clock)
    clock.now_s += 10
    busy.take()
    clock.now_s += 2
    cpu.now_s += used_s
    assert busy.take() == share


def test_a_look_right_after_another_returns_the_same_and_loses_nothing() -> None:
    cpu, clock = Clock(0.0), Clock(0.0)
    busy = BusyShare(cpu=cpu, clock=clock)
    assert busy.take() == 0
    cpu.now_s, clock.now_s = 0.5, 1.0
    first = busy.take()
    cpu.now_s, clock.now_s = 0.55, 1.0 + SHORTEST_S / 2
    assert (first, busy.take()) == (0.5, 0.5)
    cpu.now_s, clock.now_s = 1.5, 2.0
    assert busy.take() == 1.0


@settings(deadline=None)
@given(st.lists(st.tuples(SECONDS, SECONDS), max_size=20))
def test_whatever_the_clocks_say_it_is_a_share(looks: list[tuple[float, float]]) -> None:
    cpu, clock = Clock(0.0), Clock(0.0)
    busy = BusyShare(cpu=cpu, clock=clock)
    for cpu.now_s, clock.now_s in looks:
        assert 0 <= busy.take() <= 1


def test_by_default_it_looks_at_this_process() -> None:
    assert 0 <= BusyShare().take() <= 1
