"""What must hold whatever becomes of messages and Routers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.limits.bucket import MINUTE_S
from serve_app.limits.holding import GRANT_S
from serve_app.limits.ledger import SILENT_S
from tests.unit.serve_app.limits.escrow import World, caller

ROUTERS = 3
OUTCOMES = st.sampled_from(["ok", "ok", "ok", "lost", "unanswered", "late"])
ROUTER = st.integers(0, ROUTERS - 1)
STEPS = st.one_of(
    st.tuples(st.just("request"), ROUTER, OUTCOMES, st.integers(1, 20)),
    st.tuples(st.just("request"), ROUTER, OUTCOMES, st.integers(1, 20)),
    st.tuples(st.just("release"), ROUTER),
    st.tuples(st.just("exchange"), ROUTER, OUTCOMES),
    st.tuples(st.just("pass"), st.sampled_from([0.01, 0.3, 1.0, 2.5])),
    st.tuples(st.just("deliver"), st.integers(0, 3)),
    st.tuples(st.just("die"), ROUTER),
)


def run(world: World, steps: list[tuple[Any, ...]]) -> Iterator[None]:
    """Do the steps; yield after each."""
    for action, *arguments in steps:
        if action == "request":
            i, outcome, want = arguments
            world.request(i, outcome=outcome, want=want)
        elif action == "exchange":
            i, outcome = arguments
            world.exchange(i, outcome=outcome)
        else:
            do = {"release": world.release, "pass": world.wait, "deliver": world.deliver, "die": world.die}
            do[action](*arguments)
        for i in range(ROUTERS):  # the ledger takes a Router that is silent for so long as gone, so it must be
            if world.clock.now_s - world.heard_s[i] >= SILENT_S:
                world.die(i)
        yield


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=80), st.sampled_from([1, 5, 30, 600]))
def test_no_window_sees_more_requests_than_the_limit_and_what_flows_in(steps: list[tuple[Any, ...]], limit: int) -> None:
    world = World(caller(requests_per_minute=limit), routers=ROUTERS)
    for _ in run(world, steps):
        pass
    times = world.admitted_s
    for first, last in combinations(range(len(times)), 2):
        window_s = times[last] - times[first]
        assert last - first + 1 <= limit + (window_s + GRANT_S) * limit / MINUTE_S + 1e-6


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=80), st.sampled_from([1, 2, 7]))
def test_no_moment_sees_more_open_requests_than_the_limit(steps: list[tuple[Any, ...]], limit: int) -> None:
    world = World(caller(concurrent_requests=limit), routers=ROUTERS)
    for _ in run(world, steps):
        assert world.is_open() <= limit


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(ROUTER, st.sampled_from([0.0, 0.1, 1.0, 3.0])), max_size=200), st.sampled_from([5, 30, 600]))
def test_routers_that_are_all_alone_admit_no_more_than_flows_in(steps: list[tuple[int, float]], limit: int) -> None:
    world = World(caller(requests_per_minute=limit), routers=ROUTERS)
    start_s = world.clock.now_s
    for book in world.books:
        book.lost("gone")
    for i, pause_s in steps:
        world.request(i)
        world.clock.now_s += pause_s
        assert len(world.admitted_s) <= (world.clock.now_s - start_s) * limit / MINUTE_S + 1e-6


@settings(max_examples=50, deadline=None)
@given(st.sampled_from([5, 30, 600]), st.integers(1, 4))
def test_all_of_the_limit_can_be_used(limit: int, routers: int) -> None:
    world = World(caller(requests_per_minute=limit), routers=routers)
    assert world.burst(2 * limit + routers) == limit
