from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from autoscaling.simulation.latency import LatencyModel
from autoscaling.simulation.replica import Replica
from autoscaling.simulation.requests import Requests
from autoscaling.simulation.router import Router
from autoscaling.simulation.trace import Trace

NOTHING = Requests(Trace("empty", np.array([]), np.array([], dtype=int), np.array([], dtype=int), 1.0))


def replica_of(number: int, open_requests: int = 0) -> Replica:
    replica = Replica(number, 0.0, model=LatencyModel(), requests=NOTHING)
    replica.open = open_requests
    return replica


def router_of(*replicas: Replica, max_leases: int = 3) -> Router:
    router = Router(max_leases)
    for replica in replicas:
        router.add(replica)
    return router


def pick(router: Router) -> int | None:
    if (replica := router.pick()) is None:
        return None
    replica.open += 1
    return replica.number


def test_requests_go_to_the_least_loaded_replica_until_all_are_full() -> None:
    router = router_of(replica_of(0, 2), replica_of(1, 0), replica_of(2, 1))
    assert [pick(router) for _ in range(3)] == [1, 1, 2]
    assert sorted(str(pick(router)) for _ in range(4)) == ["0", "1", "2", "None"]


def test_without_replicas_there_is_none_to_pick() -> None:
    assert pick(router_of()) is None


def test_a_removed_replica_gets_nothing_more() -> None:
    replicas = [replica_of(number) for number in range(3)]
    router = router_of(*replicas, max_leases=1)
    router.remove(replicas[0])
    assert [pick(router) for _ in range(3)] == [1, 2, None]


def test_the_least_loaded_come_first_to_be_removed() -> None:
    router = router_of(replica_of(0, 2), replica_of(1, 0), replica_of(2, 1))
    assert [replica.number for replica in router.least_loaded(2)] == [1, 2]
    assert [replica.number for replica in router.least_loaded(9)] == [1, 2, 0]
    assert router.least_loaded(0) == []


@given(st.integers(1, 4), st.integers(1, 5), st.lists(st.integers(-5, 5), max_size=60))
def test_it_always_picks_one_of_the_least_loaded(max_leases: int, count: int, moves: list[int]) -> None:
    replicas = [replica_of(number) for number in range(count)]
    router = router_of(*replicas, max_leases=max_leases)
    for move in moves:
        if move < 0:  # one replica finishes some of its requests
            replica = replicas[move % count]
            if finished := min(replica.open, -move):
                replica.open -= finished
                router.has_finished(replica, finished)
            continue
        least = min(replica.open for replica in replicas)
        picked = router.pick()
        assert (picked is None) == (least >= max_leases)
        if picked is not None:
            assert picked.open == least
            picked.open += 1
