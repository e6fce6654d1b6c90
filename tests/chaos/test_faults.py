"""Parts that die, freeze or lie under load, and what clients see of it."""

from __future__ import annotations

import time

import pytest

from tests.chaos.cluster import HEAD, ChaosCluster
from tests.chaos.faults import (
    BACK_WITHIN_S,
    LIES,
    PARTS,
    Note,
    cut_off,
    is_in_control,
    is_replaced,
    lying,
    out_of_descriptors,
    rollouts_free_worker,
    spread,
    store_away,
    terminate,
    two_copies,
    watched,
)
from tests.chaos.processes import frozen, kill
from tests.chaos.steady import Effect, SteadyLoad, wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

DETECTED_S, RECOVERED_S = 5.0, 10.0
DRAINED_WITHIN_S = 180.0


@pytest.mark.parametrize("part", PARTS)
def test_a_replica_that_is_killed_costs_no_request_that_had_not_begun(
    cluster: ChaosCluster, load: SteadyLoad, note: Note, part: str
) -> None:
    app, deployment = PARTS[part]
    before = set(cluster.running(app, deployment))
    began_s = kill(cluster.find(f"{app}:{deployment}")[0])
    back_s = wait_until(lambda: is_replaced(cluster, app, deployment, before), within_s=BACK_WITHIN_S)
    effect = watched(load, f"{part} killed", began_s=began_s, back_s=back_s, note=note)
    # Their successors load PyTorch, which takes all of a small machine for a while.
    assert_nothing_lost(effect, is_timed=part not in {"Retriever", "Embedder"})


@pytest.mark.parametrize(
    ("part", "title", "node"),
    [
        ("Serve controller", "ServeController", HEAD),
        ("HAProxy", "haproxy -db", "w1"),
        ("proxy manager", "HAProxyManager", "w1"),
    ],
)
def test_a_part_of_serve_that_is_killed_costs_no_request_that_had_not_begun(
    cluster: ChaosCluster, load: SteadyLoad, note: Note, part: str, title: str, node: str
) -> None:
    before = cluster.find(title, node=node)
    began_s = kill(before[-1])  # the last: HAProxy's older processes only end their streams
    back_s = wait_until(lambda: any(p not in before for p in cluster.find(title, node=node)), within_s=BACK_WITHIN_S)
    effect = watched(load, f"{part} killed", began_s=began_s, back_s=back_s, note=note)
    assert effect.failed == 0, effect


@pytest.mark.parametrize("part", PARTS)
def test_a_replica_that_is_frozen_costs_no_request(cluster: ChaosCluster, load: SteadyLoad, note: Note, part: str) -> None:
    app, deployment = PARTS[part]
    victim = cluster.find(f"{app}:{deployment}")[0]
    began_s = time.monotonic()
    with frozen(victim):
        time.sleep(20)
    effect = watched(load, f"{part} frozen for 20 s", began_s=began_s, back_s=time.monotonic(), note=note)
    assert effect.failed == 0, effect


@pytest.mark.parametrize("lie", LIES)
def test_a_replica_that_misbehaves_is_told_apart(cluster: ChaosCluster, load: SteadyLoad, note: Note, lie: str) -> None:
    began_s = time.monotonic()
    with lying(cluster, lie):
        time.sleep(20)
    effect = watched(load, f"one LLM replica {lie} for 20 s", began_s=began_s, back_s=time.monotonic(), note=note)
    assert not [end for end in effect.ends if end.endswith(("failed", "silent"))], effect


def test_file_descriptors_that_run_out_in_a_router_are_survived(cluster: ChaosCluster, load: SteadyLoad, note: Note) -> None:
    victim = cluster.find("router:Router")[0]
    began_s = time.monotonic()
    with out_of_descriptors(victim):
        time.sleep(10)
    effect = watched(load, "Router out of file descriptors for 10 s", began_s=began_s, back_s=time.monotonic(), note=note)
    assert not [end for end in effect.ends if end.endswith("silent")], effect
    assert victim.is_running()


def test_a_disk_that_is_full_costs_no_request(cluster: ChaosCluster, load: SteadyLoad, note: Note) -> None:
    began_s = time.monotonic()
    with cluster.disk.full():
        time.sleep(20)
    effect = watched(load, "disk of all nodes full for 20 s", began_s=began_s, back_s=time.monotonic(), note=note)
    assert effect.failed == effect.broken == 0, effect


def test_a_vector_store_that_is_away_costs_questions_only_and_is_back_at_once(
    cluster: ChaosCluster, load: SteadyLoad, note: Note
) -> None:
    began_s = time.monotonic()
    with store_away(cluster):
        time.sleep(10)
    back_s = time.monotonic()
    effect = watched(load, "vector store away for 10 s", began_s=began_s, back_s=back_s, note=note)
    assert {end.split(":")[0] for end in effect.ends if not end.endswith(":ok")} == {"question"}, effect
    refusals = {record.status for record in load.records(began_s, back_s) if record.end == "failed"}
    assert refusals == {503}, effect  # away, not empty
    assert effect.broken == 0, effect
    assert effect.recovered_s <= back_s - began_s + RECOVERED_S, effect


def test_a_worker_that_is_cut_off_and_comes_back_costs_only_what_it_had(
    cluster: ChaosCluster, load: SteadyLoad, note: Note
) -> None:
    spread(cluster, load)
    began_s = time.monotonic()
    with cut_off(cluster, "w2"):
        time.sleep(15)
    effect = watched(load, "worker cut off for 15 s", began_s=began_s, back_s=time.monotonic(), note=note)
    assert effect.failed == 0, effect


def test_a_worker_that_is_lost_costs_only_what_it_had(cluster: ChaosCluster, load: SteadyLoad, note: Note) -> None:
    spread(cluster, load)
    lost = rollouts_free_worker(cluster)
    began_s = time.monotonic()
    cluster.lose(lost)
    time.sleep(30)
    cluster.start(lost)
    back_s = wait_until(lambda: all(len(cluster.running(*part)) >= 2 for part in two_copies()), within_s=BACK_WITHIN_S)
    effect = watched(load, "worker node lost", began_s=began_s, back_s=back_s, note=note)
    assert_nothing_lost(effect, is_timed=False)


def test_a_worker_that_is_lost_is_made_up_for_before_its_successors_are_there(
    cluster: ChaosCluster, load: SteadyLoad, note: Note
) -> None:
    spread(cluster, load)
    lost = rollouts_free_worker(cluster)
    [controller] = cluster.find("ServeController", node=HEAD)
    # Their successors would load PyTorch on the machine that all of this shares: with its controller frozen, Serve starts none.
    with frozen(controller):
        began_s = time.monotonic()
        cluster.lose(lost)
        effect = watched(load, "worker node lost, nothing starts in its place", began_s=began_s, back_s=began_s, note=note)
    # Or the dead node would be taken for the one that joins.
    wait_until(lambda: len(cluster.living()) < len(cluster.nodes), within_s=60)
    cluster.start(lost)
    wait_until(lambda: all(len(cluster.running(*part)) >= 2 for part in two_copies()), within_s=BACK_WITHIN_S)
    assert_nothing_lost(effect)


def test_a_worker_that_is_drained_costs_nothing(cluster: ChaosCluster, load: SteadyLoad, note: Note) -> None:
    spread(cluster, load)
    began_s = time.monotonic()
    terminate(cluster, "w2", within_s=DRAINED_WITHIN_S)
    cluster.start("w2")
    back_s = wait_until(lambda: all(len(cluster.running(*part)) >= 2 for part in two_copies()), within_s=BACK_WITHIN_S)
    effect = watched(load, "worker node drained (SIGTERM)", began_s=began_s, back_s=back_s, note=note)
    assert effect.failed == effect.broken == 0, effect


def test_a_redis_that_restarts_is_not_noticed_by_traffic(cluster: ChaosCluster, load: SteadyLoad, note: Note) -> None:
    spread(cluster, load)
    began_s = time.monotonic()
    cluster.stop_redis()
    time.sleep(5)
    cluster.start_redis()
    time.sleep(15)
    cluster.revive(HEAD)  # Ray ends a head whose Redis is away
    back_s = wait_until(lambda: is_in_control(cluster), within_s=BACK_WITHIN_S)
    effect = watched(load, "Redis restarted", began_s=began_s, back_s=back_s, note=note)
    assert effect.failed == effect.broken == 0, effect


def test_a_head_that_is_lost_is_not_noticed_by_traffic(cluster: ChaosCluster, load: SteadyLoad, note: Note) -> None:
    spread(cluster, load)
    began_s = time.monotonic()
    cluster.lose(HEAD)
    time.sleep(10)
    cluster.start(HEAD)
    back_s = wait_until(lambda: is_in_control(cluster), within_s=BACK_WITHIN_S)
    effect = watched(load, "head lost, restarted after 10 s", began_s=began_s, back_s=back_s, note=note)
    assert effect.failed == effect.broken == 0, effect
    assert effect.back_s <= 10 + 60, effect


def assert_nothing_lost(effect: Effect, *, is_timed: bool = True) -> None:
    """What had not begun to be answered was answered, and soon."""
    assert effect.failed == 0, effect
    assert effect.refused == 0, effect
    if is_timed:
        assert effect.detected_s <= DETECTED_S, effect
        assert effect.recovered_s <= RECOVERED_S, effect
