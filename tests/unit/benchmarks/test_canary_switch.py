from __future__ import annotations

import pytest

from benchmarks.canary_switch.__main__ import row, split
from benchmarks.canary_switch.open_loop import Answered
from benchmarks.canary_switch.switch import Switch, is_misrouted, owners_of, replica_pids

BEFORE = owners_of(split({"stable": 90, "canary": 10}))
AFTER = owners_of(split({"stable": 10, "canary": 90}))
BEGUN_S, ENDED_S = 10.0, 12.0


def answered(variant: str, *, sent_s: float, ended_s: float | None) -> Answered:
    """Return a chat of a conversation that the change moves from stable to canary."""
    session = next(s for s in map(str, range(1000)) if (BEFORE[bucket(s)], AFTER[bucket(s)]) == ("stable", "canary"))
    return Answered(sent_s, session, status=200, variant=variant, ended_s=ended_s)


def bucket(session: str) -> int:
    return Answered(0.0, session).bucket


@pytest.mark.parametrize(
    ("answer", "is_wrong"),
    [
        pytest.param(answered("stable", sent_s=8.0, ended_s=9.0), False, id="old-owner-before"),
        pytest.param(answered("canary", sent_s=8.0, ended_s=9.0), True, id="new-owner-before"),
        pytest.param(answered("stable", sent_s=11.0, ended_s=11.5), False, id="old-owner-meanwhile"),
        pytest.param(answered("stable", sent_s=13.0, ended_s=13.5), True, id="old-owner-after"),
        pytest.param(answered("canary", sent_s=13.0, ended_s=13.5), False, id="new-owner-after"),
        pytest.param(answered("stable", sent_s=13.0, ended_s=None), False, id="failed"),
    ],
)
def test_a_chat_is_misrouted_only_when_it_is_clear_who_owned_it(answer: Answered, is_wrong: bool) -> None:
    assert is_misrouted(answer, (BEFORE, AFTER), begun_s=BEGUN_S, ended_s=ENDED_S) is is_wrong


def test_processes_are_listed_by_application() -> None:
    replicas = {"replicas": [{"pid": 1}, {"pid": 2}, {"pid": None}]}
    assert replica_pids({"router": {"deployments": {"Router": replicas}}}) == {"router": frozenset({1, 2})}


def test_a_row_has_the_figures_of_its_change() -> None:
    seen = Switch({"stable": 90, "canary": 10}, 0.5, 0.75, 0.1, 400, 0, 0, ("llm.chat.canary",))
    assert row(seen) == "| 90/10 | 0.50 | 0.75 | 0.10 | 400 | 0 | 0 | 1 |"
