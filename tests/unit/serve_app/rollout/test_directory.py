from __future__ import annotations

from dataclasses import replace

import pytest

from serve_app.contracts import EngineLoad, ReplicaState
from serve_app.rollout.directory import LOST_AFTER, Directory
from tests.unit.serve_app.fakes import entry

TTL_S = 5.0


def directory() -> Directory:
    made = Directory(ttl_s=TTL_S)
    made.heartbeat(entry("r1"), seq=2, now_s=0.0)
    return made


def test_entries_are_ordered_by_replica() -> None:
    made = directory()
    made.heartbeat(entry("r0"), seq=1, now_s=0.0)
    assert [e.replica_id for e in made.entries()] == ["r0", "r1"]


def test_a_heartbeat_with_news_is_a_new_version() -> None:
    made = directory()
    made.heartbeat(replace(entry("r1"), load=EngineLoad(running=1)), seq=3, now_s=1.0)
    assert (made.version, made.entries()[0].load.running) == (2, 1)


def test_a_heartbeat_without_news_is_no_new_version_but_keeps_the_entry_alive() -> None:
    made = directory()
    made.heartbeat(entry("r1"), seq=3, now_s=4.0)
    made.expire(now_s=9.0)
    assert (made.version, made.entries()) == (1, (entry("r1"),))


def test_a_late_heartbeat_is_dropped() -> None:
    made = directory()
    made.heartbeat(replace(entry("r1"), url="http://old"), seq=1, now_s=1.0)
    assert made.entries() == (entry("r1"),)


def test_a_heartbeat_after_the_goodbye_does_not_bring_the_replica_back() -> None:
    made = directory()
    made.remove("r1", now_s=1.0)
    made.heartbeat(entry("r1"), seq=3, now_s=1.1)
    assert (made.entries(), made.version) == ((), 2)


def test_a_goodbye_of_an_unknown_replica_is_no_news() -> None:
    made = directory()
    made.remove("r9", now_s=1.0)
    assert made.version == 1


def test_goodbyes_are_forgotten_in_the_end() -> None:
    made = directory()
    made.remove("r1", now_s=0.0)
    made.expire(now_s=11 * TTL_S)
    assert made._gone == {}


def test_a_silent_replica_expires_and_may_come_back() -> None:
    made = directory()
    made.expire(now_s=5.0)
    assert made.entries() == (entry("r1"),)
    made.expire(now_s=5.1)
    assert (made.entries(), made.version) == ((), 2)
    made.heartbeat(entry("r1"), seq=3, now_s=6.0)
    assert made.entries() == (entry("r1"),)


def test_draining_is_final_whatever_a_heartbeat_on_its_way_says() -> None:
    made = directory()
    made.drain("r1")
    made.heartbeat(entry("r1"), seq=3, now_s=1.0)
    assert ([e.state for e in made.entries()], made.version) == ([ReplicaState.DRAINING], 2)


def test_draining_twice_or_an_unknown_replica_is_no_news() -> None:
    made = directory()
    made.drain("r1")
    made.drain("r1")
    made.drain("r9")
    assert made.version == 2


def test_only_ready_replicas_of_the_variant_count_as_ready() -> None:
    made = directory()
    made.heartbeat(entry("r2"), seq=1, now_s=0.0)
    made.heartbeat(entry("c1", "canary"), seq=1, now_s=0.0)
    made.heartbeat(entry("o1", model="other"), seq=1, now_s=0.0)
    made.heartbeat(entry("s1", state=ReplicaState.STARTING), seq=1, now_s=0.0)
    made.drain("r2")
    assert [made.ready("chat", "stable", ""), made.ready("chat", "canary", ""), made.ready("chat", "gone", "")] == [1, 1, 0]


@pytest.mark.parametrize(
    ("state", "losses"),
    [(ReplicaState.STARTING, 1), (ReplicaState.READY, 1), (ReplicaState.DRAINING, 0)],
    ids=lambda value: str(value),
)
def test_a_replica_that_falls_silent_is_lost_unless_it_was_about_to_stop(state: ReplicaState, losses: int) -> None:
    made = Directory(ttl_s=TTL_S)
    made.heartbeat(entry("r1", state=state), seq=1, now_s=0.0)
    made.expire(now_s=TTL_S + 0.1)
    assert made.losses("chat", "stable", "") == 0  # it may speak again
    made.expire(now_s=TTL_S + 0.2 + LOST_AFTER * TTL_S)
    assert (made.losses("chat", "stable", ""), made.losses("chat", "canary", "")) == (losses, 0)


@pytest.mark.parametrize(
    ("state", "losses"),
    [(ReplicaState.STARTING, 1), (ReplicaState.READY, 0), (ReplicaState.DRAINING, 0)],
    ids=lambda value: str(value),
)
def test_a_replica_that_says_goodbye_is_lost_only_if_it_never_was_ready(state: ReplicaState, losses: int) -> None:
    made = Directory(ttl_s=TTL_S)
    made.heartbeat(entry("r1", state=state), seq=1, now_s=0.0)
    made.remove("r1", now_s=1.0)
    made.remove("r1", now_s=2.0)
    assert made.losses("chat", "stable", "") == losses


def test_a_silence_that_ends_is_no_loss() -> None:
    made = Directory(ttl_s=TTL_S)
    made.heartbeat(entry("r1"), seq=1, now_s=0.0)
    made.expire(now_s=TTL_S + 0.1)
    made.heartbeat(entry("r1"), seq=2, now_s=TTL_S + 1.0)
    made.expire(now_s=TTL_S + 2.0)
    assert (made.losses("chat", "stable", ""), made.ready("chat", "stable", "")) == (0, 1)


def test_replicas_of_another_build_count_neither_as_ready_nor_as_lost() -> None:
    made = Directory(ttl_s=TTL_S)
    made.heartbeat(replace(entry("old"), revision="1"), seq=1, now_s=0.0)
    made.heartbeat(replace(entry("new", state=ReplicaState.STARTING), revision="2"), seq=1, now_s=0.0)
    assert (made.ready("chat", "stable", "1"), made.ready("chat", "stable", "2")) == (1, 0)
    made.remove("new", now_s=1.0)
    assert (made.losses("chat", "stable", "1"), made.losses("chat", "stable", "2")) == (0, 1)
