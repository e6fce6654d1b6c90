from __future__ import annotations

from dataclasses import replace

import pytest

from autoscaling.locust_history import Entry, Plateau
from autoscaling.tuning import Slo, TuningError, tune

SLO = Slo(ttft_s=1.0, itl_s=0.05)


def plateau(
    users: int, *, ttft_s: float = 0.2, itl_s: float = 0.03, rate: float = 4.0, whole_s: float | None = None
) -> Plateau:
    """Return 100 seconds of users who do not wait between requests, unless the whole response is given."""
    requests = int(100 * rate)
    first, gap, whole = (Entry(requests, 0, s, s, 2 * s) for s in (ttft_s, itl_s, whole_s or users / rate))
    return Plateau(users, 100.0, first, gap, whole)


def test_slots_are_the_most_users_that_kept_the_objectives() -> None:
    tuning = tune([plateau(4, rate=2.0), plateau(8), plateau(16, itl_s=0.08), plateau(32, ttft_s=3.0, itl_s=0.08)], SLO)
    assert tuning.proposal is not None
    assert (tuning.proposal.slots, tuning.proposal.throughput, tuning.proposal.service_s) == (8, 4.0, 2.0)
    assert [level.is_kept for level in tuning.levels] == [True, True, False, False]
    assert [level.reason for level in tuning.levels[1:]] == [
        "Every objective is kept.",
        "P95 of ITL is 0.08 s, over 0.05 s.",
        "P95 of TTFT is 3 s, over 1 s and p95 of ITL is 0.08 s, over 0.05 s.",
    ]
    assert tuning.warnings == ()


def test_so_many_may_wait_as_get_a_slot_within_what_the_objective_leaves() -> None:
    tuning = tune([plateau(8), plateau(16, itl_s=0.08)], SLO)
    assert tuning.proposal is not None
    assert tuning.proposal.target_queue_depth == 3  # 4 a second for 0.8 s
    assert tuning.proposal.reasons[1] == (
        "target_queue_depth: TTFT may take 1 s and takes 0.2 s (p95) without a queue, so a request may wait 0.8 s, "
        "in which 3.2 others get their slot; at least 1."
    )


def test_one_may_always_wait() -> None:
    tuning = tune([plateau(8, ttft_s=0.99)], SLO)
    assert tuning.proposal is not None
    assert tuning.proposal.target_queue_depth == 1


def test_load_is_shared_by_the_replicas() -> None:
    tuning = tune([plateau(8)], SLO, replicas=2)
    assert tuning.proposal is not None
    assert (tuning.proposal.slots, tuning.proposal.throughput, tuning.proposal.target_queue_depth) == (4, 2.0, 1)


def test_users_who_wait_between_requests_are_counted_by_littles_law() -> None:
    tuning = tune([plateau(100, whole_s=1.6)], SLO)  # 4 a second for 1.6 s: 6.4 at a time
    assert tuning.proposal is not None
    assert tuning.proposal.slots == 6


def test_users_are_requests_where_nothing_times_the_whole() -> None:
    tuning = tune([replace(plateau(8), answer=None)], SLO)
    assert tuning.proposal is not None
    assert tuning.proposal.slots == 8


def test_the_whole_response_is_judged_where_there_are_no_events() -> None:
    bare = [replace(plateau(users, whole_s=whole_s), first=None, gap=None) for users, whole_s in ((8, 2.0), (16, 4.0))]
    tuning = tune(bare, Slo(e2e_s=3.0))
    assert tuning.proposal is not None
    assert (tuning.proposal.slots, tuning.proposal.target_queue_depth) == (8, 4)
    assert tuning.levels[1].reason == "P95 of the whole response is 4 s, over 3 s."


def test_without_an_objective_for_waiting_no_depth_is_proposed() -> None:
    tuning = tune([plateau(8)], Slo(itl_s=0.05))
    assert tuning.proposal is not None
    assert tuning.proposal.target_queue_depth is None
    assert "left out" in tuning.proposal.reasons[1]


def test_failures_break_a_level() -> None:
    level = plateau(8)
    assert level.answer is not None
    tuning = tune([plateau(4), replace(level, answer=replace(level.answer, failures=20))], SLO)
    assert tuning.levels[1].reason == "5.0 % of the requests failed."


def test_a_run_that_never_broke_warns_that_capacity_is_unknown() -> None:
    [warning] = tune([plateau(8)], SLO).warnings
    assert warning == (
        "no objective broke at up to 8 users, so the replica may take more than is proposed: run again with more users."
    )


def test_less_than_a_request_per_replica_warns() -> None:
    tuning = tune([plateau(4), plateau(16, itl_s=0.08)], SLO, replicas=100)
    assert tuning.proposal is not None
    assert tuning.proposal.slots == 1
    assert tuning.warnings == (
        "4 users were 0.04 requests at a time on each replica, less than one, so `slots: 1` is a floor and no measurement: "
        "run again with more users, or check --replicas.",
    )


def test_a_run_that_broke_at_once_proposes_nothing() -> None:
    tuning = tune([plateau(8, ttft_s=3.0), plateau(16)], SLO)
    assert tuning.proposal is None
    assert tuning.warnings == (
        "even 8 users are too many: P95 of TTFT is 3 s, over 1 s. So run again with fewer users, or allow more time.",
    )


def test_a_noisy_run_counts_up_to_its_first_break_and_warns() -> None:
    tuning = tune([plateau(8), plateau(16, itl_s=0.08), plateau(32)], SLO)
    assert tuning.proposal is not None
    assert tuning.proposal.slots == 8
    assert tuning.warnings == (
        "objectives broke at 16 users and held again at 32: the run is noisy, so hold each level for longer.",
    )


@pytest.mark.parametrize(
    ("level", "slo", "message"),
    [
        pytest.param(
            replace(plateau(8), first=None), SLO, "TTFT is not known at 8 users: no rows of type TTFT: fire", id="ttft"
        ),
        pytest.param(replace(plateau(8), gap=None), SLO, "ITL is not known at 8 users: no rows of type ITL: fire", id="itl"),
        pytest.param(plateau(8, whole_s=0.1), Slo(e2e_s=1.0), "whole response is not known .* up to its headers", id="headers"),
        pytest.param(
            replace(plateau(8), first=None, answer=None), Slo(itl_s=1.0), "nothing counts the requests", id="uncounted"
        ),
    ],
)
def test_what_was_not_measured_is_named(level: Plateau, slo: Slo, message: str) -> None:
    with pytest.raises(TuningError, match=message):
        tune([level], slo)
