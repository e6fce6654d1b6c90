from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serve_app.contracts import EngineLoad, ReplicaEntry, ReplicaState
from serve_app.outliers import DRAINING, Standing
from serve_app.replica_set import KEEP_TOGETHER, MAX_ARCS, Balance, Replica, ReplicaSet
from serve_app.ring import point_of
from serve_app.rollout.telemetry import FAILURES, Outcome
from tests.unit.serve_app.fakes import FakeClock

PREFIX = Balance()
POINTS = [point_of(f"key {i}") for i in range(200)]
MANY = 10**6


def entry(replica_id: str, *, state: ReplicaState = ReplicaState.READY, **load: Any) -> ReplicaEntry:
    return ReplicaEntry(replica_id, "chat", "stable", f"http://{replica_id}", state, EngineLoad(**load))


def replicas(*entries: ReplicaEntry, max_leases: int = MANY, clock: FakeClock | None = None) -> ReplicaSet:
    made = ReplicaSet(clock=clock or FakeClock(), on_place=lambda: None)
    made.limit(max_leases)
    for each in entries:
        made.add(each)
    return made


def of_size(count: int, **load: Any) -> ReplicaSet:
    return replicas(*(entry(f"r{i}", **load) for i in range(count)))


def eject(made: ReplicaSet, replica: Replica) -> None:
    """Find a replica unreachable: for two seconds, the first time."""
    assert made.judge(replica, Outcome.UNREACHABLE, made.take(replica))
    made.give_back(replica)


def taken(made: ReplicaSet, point: int, balance: Balance = PREFIX) -> str:
    replica = made.choose(point, balance)
    assert replica is not None
    made.take(replica)
    return replica.entry.replica_id


def clockwise_of(made: ReplicaSet) -> list[str]:
    return [made._by_seat[seat].entry.replica_id for seat in made._ring.walk(POINTS[0])]


def test_a_prefix_stays_together_up_to_the_bound_and_spills_along_the_ring() -> None:
    made = of_size(10)
    clockwise = clockwise_of(made)
    assert [taken(made, POINTS[0]) for _ in range(3 * KEEP_TOGETHER)] == [
        r for r in clockwise[:3] for _ in range(KEEP_TOGETHER)
    ]


def test_the_bound_is_a_multiple_of_the_mean_load() -> None:
    assert of_size(4).bound(1.25) == KEEP_TOGETHER
    assert of_size(4, open_requests=8).bound(1.25) == pytest.approx(1.25 * 33 / 4)
    assert replicas().bound(1.25) == KEEP_TOGETHER


def test_what_waits_in_an_engine_counts_once_more() -> None:
    made = replicas(entry("r1", open_requests=5, waiting=3), entry("r2", open_requests=7))
    assert {r.entry.replica_id: made.load(r) for r in made.replicas.values()} == {"r1": 8, "r2": 7}
    made.refresh(made.replicas["r1"], entry("r1", open_requests=5))
    assert taken(made, POINTS[0], Balance("least_loaded")) == "r1"


@pytest.mark.parametrize("balance", [PREFIX, Balance("least_loaded")], ids=["prefix", "least-loaded"])
def test_load_is_even(balance: Balance) -> None:
    made = of_size(20)
    chosen = Counter(taken(made, point_of(f"{i}"), balance) for i in range(400))
    assert max(chosen.values()) <= (25 if balance is PREFIX else 20)


def test_random_is_uniform_and_ignores_load() -> None:
    made = replicas(*(entry(f"r{i}", open_requests=100 * i) for i in range(4)))
    chosen = Counter(taken(made, POINTS[0], Balance("random")) for _ in range(4000))
    assert all(900 < count < 1100 for count in chosen.values())


def test_equally_loaded_replicas_share_what_the_ring_has_no_place_for() -> None:
    made = of_size(8)
    assert len({taken(made, point, Balance("least_loaded")) for point in POINTS[:8]}) == 8


@pytest.mark.parametrize("balance", [PREFIX, Balance("least_loaded"), Balance("random")], ids=lambda b: b.choice)
def test_excluded_replicas_are_the_last_resort(balance: Balance) -> None:
    made = of_size(3)
    for point in POINTS:
        found = made.choose(point, balance, ["r0", "r9", "r0", "r1"])
        assert found is made.replicas["r2"]
    assert made.choose(POINTS[0], balance, ["r0", "r1", "r2"]) is not None
    assert len(made._index.opened) == 3


def test_after_a_few_arcs_the_least_loaded_is_taken() -> None:
    made = of_size(60, open_requests=2)
    clockwise = clockwise_of(made)
    for name, load in [*((name, 20) for name in clockwise[:MAX_ARCS]), (clockwise[-1], 1)]:
        made.refresh(made.replicas[name], entry(name, open_requests=load))
    assert taken(made, POINTS[0]) == clockwise[-1]


def test_a_prefix_comes_back_when_the_ejection_of_its_replica_ends() -> None:
    clock = FakeClock()
    made = replicas(*(entry(f"r{i}") for i in range(5)), clock=clock)
    own, following = [made.replicas[name] for name in clockwise_of(made)[:2]]
    eject(made, own)
    assert made.choose(POINTS[0], PREFIX) is following
    clock.now_s += 1
    assert made.choose(POINTS[0], PREFIX) is following
    clock.now_s += 1
    assert made.choose(POINTS[0], PREFIX) is own


def test_a_higher_limit_opens_full_replicas() -> None:
    made = replicas(entry("r1"), max_leases=1)
    assert (taken(made, POINTS[0]), made.choose(POINTS[0], PREFIX)) == ("r1", None)
    made.limit(2)
    assert taken(made, POINTS[0]) == "r1"


def test_a_seat_that_passes_to_another_replica_takes_nothing_of_the_old_one_along() -> None:
    clock = FakeClock()
    made = replicas(entry("old"), clock=clock)
    assert taken(made, POINTS[0]) == "old"
    old = made.replicas["old"]
    eject(made, old)
    made.remove(old)
    new = made.add(entry("new"))
    clock.now_s += 2  # the ejection of the old one ends
    made.give_back(old)
    assert (new.seat, made.load(new), taken(made, POINTS[0])) == (old.seat, 0, "new")


def lines_of(act: Callable[[], object]) -> int:
    """Return how many lines of Python run."""
    count = 0

    def trace(_frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("choice", ["prefix", "least_loaded", "random"])
def test_a_decision_among_many_takes_no_more_steps_than_among_few(choice: Any) -> None:
    def decide(made: ReplicaSet) -> None:
        for point in POINTS:
            replica = made.choose(point, Balance(choice))
            assert replica is not None
            made.take(replica)
            made.give_back(replica)

    few, many = of_size(2, open_requests=4), of_size(1000, open_requests=4)
    for made in (few, many):
        made.choose(0, PREFIX)  # sorts the ring
    assert lines_of(lambda: decide(many)) <= 1.1 * lines_of(lambda: decide(few))


class Changes(RuleBasedStateMachine):
    """Whatever happens, the sums agree with a recount and no choice goes over the bound."""

    MAX_LEASES = 4

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.set = replicas(max_leases=self.MAX_LEASES, clock=self.clock)
        self.leases: list[tuple[Replica, int]] = []
        self.joined = 0

    @rule(count=st.integers(1, 5), open_requests=st.integers(0, 5))
    def join(self, count: int, open_requests: int) -> None:
        for _ in range(count):
            self.joined += 1
            self.set.add(entry(f"r{self.joined}", open_requests=open_requests))

    @precondition(lambda self: self.set.replicas)
    @rule(data=st.data(), state=st.sampled_from(ReplicaState), load=st.integers(0, 9), waiting=st.integers(0, 3))
    def report(self, data: st.DataObject, state: ReplicaState, load: int, waiting: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.set.replicas)))
        self.set.refresh(self.set.replicas[name], entry(name, state=state, open_requests=load, waiting=waiting))

    @precondition(lambda self: self.set.replicas)
    @rule(data=st.data(), way=st.sampled_from(["leave", "eject"]))
    def lose(self, data: st.DataObject, way: str) -> None:
        replica = self.set.replicas[data.draw(st.sampled_from(sorted(self.set.replicas)))]
        if way == "leave":
            self.set.remove(replica)
        else:
            self.set.leave(replica, self.clock() + 2)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), outcome=st.sampled_from([Outcome.OK, *FAILURES, Outcome.CANCELLED]), times=st.integers(1, 5))
    def judge(self, data: st.DataObject, outcome: Outcome, times: int) -> None:
        replica, number = data.draw(st.sampled_from(self.leases))
        if replica.is_known:
            for _ in range(times):
                self.set.judge(replica, outcome, number)

    @rule(seconds=st.sampled_from([0.5, 2]))
    def wait(self, seconds: float) -> None:
        self.clock.now_s += seconds

    @rule(key=st.integers(0, 9), choice=st.sampled_from(["prefix", "least_loaded"]), excluded=st.booleans())
    def lease(self, key: int, choice: Any, *, excluded: bool) -> None:
        exclude = sorted(self.set.replicas)[:2] if excluded else []
        replica = self.set.choose(POINTS[key], Balance(choice), exclude)
        able = [r for r in self.set.replicas.values() if self._may_take(r) and r.leases < self.MAX_LEASES]
        assert (replica is None) == (not able)
        if replica is None:
            return
        assert replica in able
        preferred = [r for r in able if r.entry.replica_id not in exclude] or able
        assert replica in preferred
        room = math.ceil(self.set.bound(PREFIX.factor))
        self.leases.append((replica, self.set.take(replica)))
        load = self.set.load
        assert load(replica) <= max(room, 1 + min(load(r) - (r is replica) for r in preferred))
        probes = [number for r, number in self.leases if r is replica and number == replica.probe]
        assert len(probes) == (replica.health.standing is Standing.ON_TRIAL)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.set.give_back(*self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1))))

    @invariant()
    def sums_do_not_drift(self) -> None:
        can_take = self.set.can_take()
        counted = [r for r in self.set.replicas.values() if self._is_counted(r)]
        held = Counter(id(replica) for replica, _ in self.leases)
        assert all(r.leases == held[id(r)] for r in self.set.replicas.values())
        assert all(self.set.load(r) == r.leases + r.others + r.entry.load.waiting for r in self.set.replicas.values())
        assert (self.set._counted, self.set._total) == (len(counted), sum(map(self.set.load, counted)))
        ready = [r for r in self.set.replicas.values() if r.is_ready]
        assert (can_take, self.set.has_ready()) == (any(map(self._may_take, ready)), bool(ready))
        # What requests failed never takes the last replica away.
        assert counted or all(r.health.reason in (DRAINING, Outcome.UNREACHABLE) for r in ready)

    def _is_counted(self, replica: Replica) -> bool:
        return replica.is_ready and replica.health.standing is Standing.TRUSTED

    def _may_take(self, replica: Replica) -> bool:
        on_trial = replica.health.standing is Standing.ON_TRIAL and not replica.probe
        return replica.is_ready and (on_trial or self._is_counted(replica))


TestChanges = Changes.TestCase
TestChanges.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
