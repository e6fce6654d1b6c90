from __future__ import annotations

from dataclasses import replace

import numpy as np

from autoscaling.observation import Observation
from autoscaling.simulation.fleet import Fleet
from autoscaling.simulation.latency import LatencyModel
from autoscaling.simulation.replica import NEVER, State
from autoscaling.simulation.requests import NOT_YET, Requests
from autoscaling.simulation.trace import Trace

# Each request: one step of 1 s for its prompt and first token, then one second per token.
MODEL = LatencyModel(step_s=1.0, step_s_per_sequence=0.0, prefill_s_per_token=0.0, slots=2, max_batched_tokens=8, startup_s=5.0)


def fleet_of(
    arrivals_s: list[float], *, tokens: int = 4, ready: int = 1, max_leases: int = 4, model: LatencyModel = MODEL
) -> Fleet:
    count = len(arrivals_s)
    trace = Trace("t", np.array(arrivals_s, dtype=float), np.ones(count, dtype=int), np.full(count, tokens), 100.0)
    return Fleet(Requests(trace), model, ready=ready, max_leases=max_leases)


def states(fleet: Fleet) -> list[str]:
    return [replica.state.value for replica in fleet.replicas]


def test_a_replica_that_is_asked_for_serves_after_its_start_time() -> None:
    fleet = fleet_of([])
    fleet.advance(2.0)
    fleet.scale(3)
    fleet.advance(6.5)
    assert (fleet.ready, fleet.alive, fleet.target) == (1, 3, 3)
    fleet.advance(7.0)
    assert (fleet.ready, fleet.alive, fleet.target) == (3, 3, 3)


def test_fewer_replicas_cancels_those_that_start_newest_first_then_drains_the_least_loaded() -> None:
    fleet = fleet_of([0.0, 0.1, 0.2], ready=2)
    fleet.advance(0.5)
    fleet.scale(3)
    fleet.advance(1.5)
    fleet.scale(4)
    fleet.scale(3)
    assert states(fleet) == ["ready", "ready", "starting", "gone"]
    fleet.scale(1)
    open_requests = [replica.open for replica in fleet.replicas]
    assert (states(fleet)[2:], sorted(states(fleet)[:2])) == (["gone", "gone"], ["draining", "ready"])
    assert fleet.replicas[open_requests.index(1)].state is State.DRAINING
    assert (fleet.ready, fleet.alive) == (1, 2)


def test_a_cancelled_replica_never_serves() -> None:
    fleet = fleet_of([])
    fleet.scale(2)
    fleet.scale(1)
    fleet.advance(50.0)
    assert (states(fleet), fleet.lifespans()) == (["ready", "gone"], [(0.0, NEVER), (0.0, 0.0)])


def test_an_idle_replica_is_gone_at_once_and_a_draining_one_after_all_it_has_is_done() -> None:
    fleet = fleet_of([0.0, 0.0, 0.0, 20.0])  # two run, one waits in the replica
    fleet.advance(2.5)
    fleet.scale(0)
    fleet.advance(30.0)
    assert fleet.lifespans() == [(0.0, 8.0)]
    assert fleet._requests.finished_s == [4.0, 5.0, 8.0, NOT_YET]
    assert (fleet.finished, fleet.arrived, fleet.alive, fleet.observe().held) == (3, 4, 0, 1)


def test_what_no_replica_may_take_is_held_in_order_and_handed_over_as_places_free_up() -> None:
    fleet = fleet_of([0.0, 0.1, 0.2, 0.3, 0.4], tokens=2, max_leases=2)
    fleet.advance(0.5)
    assert fleet.observe() == Observation(
        now_s=0.5, target=1, ready=1, waiting=1, held=3, running=1, arrived=5, slots=2, kv_cache_usage=0.5
    )
    fleet.advance(100.0)
    assert fleet._requests.started_s == sorted(fleet._requests.started_s)
    assert fleet._requests.finished_s == [2.0, 3.0, 5.0, 6.0, 8.0]  # handed over as a step begins: in the next one


def test_held_requests_go_to_a_replica_as_soon_as_it_is_ready() -> None:
    fleet = fleet_of([1.0, 2.0], ready=0)
    fleet.advance(3.0)
    assert (fleet.observe().held, fleet.observe().kv_cache_usage) == (2, 0.0)
    fleet.scale(1)
    fleet.advance(20.0)
    assert fleet._requests.started_s == [8.0, 9.0]


def test_a_draining_replica_is_not_in_the_load_that_is_seen() -> None:
    fleet = fleet_of([0.0, 0.1], ready=2)
    fleet.advance(1.0)
    assert (fleet.observe().open, fleet.observe().ready) == (2, 2)
    fleet.scale(1)
    assert (fleet.observe().open, fleet.observe().ready) == (1, 1)


def test_cache_use_is_the_share_of_reserved_tokens_where_the_cache_has_a_limit() -> None:
    fleet = fleet_of([0.0], ready=2, model=replace(MODEL, kv_tokens=10))
    fleet.advance(0.5)
    assert fleet.observe().kv_cache_usage == 0.25  # 1 + 4 of 10 tokens in one of two replicas
