from __future__ import annotations

import pytest
from pydantic import ValidationError

from serve_app.config_router import OutlierEjectionConfig
from serve_app.pool import Lease, ReplicaPool, Target
from serve_app.rollout.telemetry import Outcome
from tests.unit.serve_app.fakes import FakeClock, entry

STABLE = Target("chat", "stable", 100)
CONFIG = OutlierEjectionConfig(consecutive_failures=2, base_s=2, max_s=10, max_ejected_ratio=0.5)
FAILED = Outcome.SERVER_ERROR


class Seen:
    """A pool whose replicas answer as a test says."""

    def __init__(self, *replica_ids: str, config: OutlierEjectionConfig = CONFIG) -> None:
        self.clock = FakeClock()
        self.pool = ReplicaPool(clock=self.clock)
        self.pool.limit_ejections(config)
        self.pool.update([entry(r) for r in replica_ids], is_complete=True)
        self.ids = replica_ids

    def lease(self, replica_id: str) -> Lease | None:
        others = [r for r in self.ids if r != replica_id]
        lease = self.pool.try_lease(STABLE, prefix="k", exclude=others)
        if lease is not None and lease.replica_id != replica_id:
            lease.release()
            return None
        return lease

    def ends(self, replica_id: str, *outcomes: Outcome) -> None:
        for outcome in outcomes:
            lease = self.lease(replica_id)
            assert lease is not None
            self.pool.judge(lease, outcome)
            lease.release()

    def left_alone_s(self, replica_id: str) -> float:
        """Return after how long a replica that is ejected takes a request again, which has then ended unjudged."""
        assert replica_id in self.pool.ejected()
        began_s = self.clock.now_s
        while (lease := self.lease(replica_id)) is None:
            self.clock.now_s += 1
        lease.release()
        return self.clock.now_s - began_s


@pytest.mark.parametrize("outcome", [FAILED, Outcome.TIMEOUT, Outcome.BROKEN])
def test_failures_in_a_row_eject(outcome: Outcome) -> None:
    seen = Seen("r1", "r2")
    seen.ends("r1", outcome, Outcome.OK, outcome)
    assert seen.pool.ejected() == {}
    seen.ends("r1", outcome)
    assert (seen.pool.ejected(), seen.pool.ejected_by_variant()) == ({"r1": outcome}, {STABLE[:2]: 1})
    assert seen.pool.ejections == {("chat", "stable", outcome): 1}


@pytest.mark.parametrize("outcome", [Outcome.REJECTED, Outcome.OK])
def test_a_refusal_of_the_request_is_a_success_of_the_replica(outcome: Outcome) -> None:
    seen = Seen("r1", "r2")
    seen.ends("r1", FAILED, outcome, FAILED)
    assert seen.pool.ejected() == {}


@pytest.mark.parametrize("outcome", [Outcome.CANCELLED, Outcome.ABANDONED])
def test_a_client_that_leaves_says_nothing(outcome: Outcome) -> None:
    seen = Seen("r1", "r2")
    seen.ends("r1", FAILED, outcome, FAILED)
    assert seen.pool.ejected() == {"r1": FAILED}


def test_each_time_in_a_row_is_twice_as_long_up_to_a_bound() -> None:
    seen = Seen("r1", "r2")
    seen.ends("r1", FAILED, FAILED)
    times = [seen.left_alone_s("r1")]
    for _ in range(3):
        seen.ends("r1", FAILED)  # the one request that it is tried with
        times.append(seen.left_alone_s("r1"))
    assert times == [2, 4, 8, 10]


@pytest.mark.parametrize(("healthy_s", "expected_s"), [(10, 4), (11, 2)], ids=["relapse", "forgotten"])
def test_the_history_is_forgotten_after_a_while(healthy_s: float, expected_s: float) -> None:
    seen = Seen("r1", "r2")
    seen.ends("r1", FAILED, FAILED)
    seen.left_alone_s("r1")
    seen.ends("r1", Outcome.OK)
    seen.clock.now_s += healthy_s
    seen.ends("r1", FAILED, FAILED)
    assert seen.left_alone_s("r1") == expected_s


def test_on_trial_a_replica_takes_one_request_at_a_time() -> None:
    seen = Seen("r1", "r2")
    seen.ends("r1", FAILED, FAILED)
    seen.left_alone_s("r1")
    probe = seen.lease("r1")
    assert probe is not None
    assert seen.lease("r1") is None
    seen.pool.judge(probe, Outcome.CANCELLED)
    probe.release()  # its client left: the place is free for another
    probe = seen.lease("r1")
    assert probe is not None
    seen.pool.judge(probe, Outcome.OK)
    assert seen.lease("r1") is not None
    assert seen.lease("r1") is not None


def test_an_answer_that_has_begun_ends_the_trial_and_not_the_row_of_failures() -> None:
    seen = Seen("r1", "r2")
    seen.ends("r1", FAILED, FAILED)
    seen.left_alone_s("r1")
    for _ in range(2):
        lease = seen.lease("r1")
        assert lease is not None
        seen.pool.begin(lease)
        seen.pool.judge(lease, Outcome.BROKEN)
        lease.release()
    assert seen.left_alone_s("r1") == 4


def test_requests_from_before_an_ejection_make_it_no_longer() -> None:
    seen = Seen("r1", "r2")
    before = [seen.lease("r1") for _ in range(5)]
    for lease in before[:4]:
        assert lease is not None
        seen.pool.judge(lease, Outcome.UNREACHABLE)
    assert seen.left_alone_s("r1") == 2
    last = before[4]
    assert last is not None
    seen.pool.judge(last, Outcome.UNREACHABLE)  # while it is on trial
    assert seen.pool.ejected() == {}


def test_a_probe_that_ends_late_frees_no_place_of_the_next_one() -> None:
    seen = Seen("r1", "r2")
    seen.ends("r1", Outcome.UNREACHABLE)
    seen.left_alone_s("r1")
    first = seen.lease("r1")
    assert first is not None
    seen.pool.begin(first)
    seen.ends("r1", Outcome.UNREACHABLE)
    seen.left_alone_s("r1")
    assert seen.lease("r1") is not None
    first.release()
    assert seen.lease("r1") is None


def test_one_of_three_is_the_most_that_half_of_them_allows() -> None:
    seen = Seen("r1", "r2", "r3")
    seen.ends("r1", FAILED, FAILED)
    seen.ends("r2", FAILED, FAILED, FAILED)
    assert seen.pool.ejected() == {"r1": FAILED}


def test_the_only_replica_is_not_ejected_for_what_it_failed() -> None:
    seen = Seen("r1", config=CONFIG.model_copy(update={"max_ejected_ratio": 1.0}))
    seen.ends("r1", *[FAILED] * 9)
    assert seen.pool.ejected() == {}


def test_the_last_replica_is_not_ejected_while_the_others_cannot_be_reached() -> None:
    seen = Seen("r1", "r2")
    seen.ends("r2", Outcome.UNREACHABLE)
    seen.ends("r1", FAILED, FAILED, FAILED)
    assert seen.pool.ejected() == {"r2": "unreachable"}


def test_what_failed_is_taken_again_when_the_others_cannot_be_reached() -> None:
    seen = Seen("r1", "r2")
    seen.ends("r1", FAILED, FAILED)
    seen.ends("r2", Outcome.UNREACHABLE)
    assert seen.pool.can_take(*STABLE[:2])
    assert seen.pool.ejected() == {"r2": "unreachable"}


def test_all_may_be_left_alone_that_cannot_be_reached() -> None:
    seen = Seen("r1", "r2")
    seen.ends("r1", Outcome.UNREACHABLE)
    seen.ends("r2", Outcome.UNREACHABLE)
    assert (seen.pool.can_take(*STABLE[:2]), seen.pool.has_ready(*STABLE[:2])) == (False, True)
    seen.clock.now_s += 2
    assert seen.pool.can_take(*STABLE[:2])


def test_one_of_those_that_cannot_be_reached_is_tried_now_and_then_however_long_they_were_to_be_left_alone() -> None:
    seen = Seen("r1", "r2")
    for _ in range(6):  # an outage, after which both would be left alone as long as can be
        seen.clock.now_s += CONFIG.max_s
        for replica_id in ("r1", "r2"):
            seen.ends(replica_id, Outcome.UNREACHABLE)
    assert set(seen.pool.ejected()) == {"r1", "r2"}
    assert not seen.pool.can_take(*STABLE[:2])
    seen.clock.now_s += CONFIG.base_s
    probe = seen.pool.try_lease(STABLE, prefix="k")
    assert probe is not None
    assert seen.pool.try_lease(STABLE, prefix="k") is None  # one request at a time
    seen.pool.judge(probe, Outcome.UNREACHABLE)
    probe.release()
    assert not seen.pool.can_take(*STABLE[:2])
    seen.clock.now_s += CONFIG.base_s
    probe = seen.pool.try_lease(STABLE, prefix="k")
    assert probe is not None
    seen.pool.begin(probe)
    assert seen.pool.try_lease(STABLE, prefix="k") is not None


def test_a_lease_hears_that_its_replica_is_lost_once() -> None:
    seen = Seen("r1", "r2")
    lease, ended = seen.lease("r1"), seen.lease("r1")
    assert lease is not None
    assert ended is not None
    told: list[str] = []
    lease.on_lost = lambda: told.append("lost")
    ended.on_lost = lambda: told.append("ended")
    ended.release()
    seen.pool.update([entry("r2")], is_complete=False)
    assert not lease.is_lost
    seen.pool.update([entry("r2")], is_complete=True)
    seen.pool.update([], is_complete=True)
    assert (told, lease.is_lost, ended.is_lost) == (["lost"], True, False)
    seen.pool.update([entry("r1")], is_complete=True)
    seen.pool.judge(lease, Outcome.UNREACHABLE)  # says nothing about the one that has come back
    assert seen.pool.ejected() == {}


def test_a_replica_that_said_it_drains_is_not_lost_when_it_goes() -> None:
    seen = Seen("r1", "r2")
    lease = seen.lease("r1")
    assert lease is not None
    seen.pool.drain("r1")
    seen.pool.update([entry("r2")], is_complete=True)
    assert not lease.is_lost


def test_the_longest_time_is_no_shorter_than_the_first() -> None:
    with pytest.raises(ValidationError, match=r"max_s \(1\) must be at least base_s \(2\)"):
        OutlierEjectionConfig(base_s=2, max_s=1)
