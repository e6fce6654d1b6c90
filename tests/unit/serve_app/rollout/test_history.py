from __future__ import annotations

from collections import Counter
from dataclasses import asdict

from serve_app.rollout.gates import Reading, Verdict
from serve_app.rollout.history import MOST, Decision, History, decision
from serve_app.rollout.plan import Phase, Progress
from serve_app.rollout.table import Share

PROGRESS = Progress(
    name="chat",
    phase=Phase.RUNNING,
    shares=(Share(variant="stable", weight=90), Share(variant="canary", weight=10)),
    declared={"stable": 100, "canary": 0},
    revisions={},
    step=0,
    started_s=1.0,
    step_since_s=2.0,
    reason="the variant is ready",
)


def made(at_s: float = 1.0, *, name: str = "chat", action: str = "advanced") -> Decision:
    return decision(action, PROGRESS.model_copy(update={"name": name}), before={"stable": 100}, at_s=at_s)


def test_a_decision_says_what_was_decided_and_by_which_numbers() -> None:
    reading = Reading("error_rate", Verdict.WAIT, "10 of 50 requests", attempts=10)
    found = decision("advanced", PROGRESS, before={"stable": 100, "canary": 0}, at_s=3.0, readings=[asdict(reading)])
    assert found == Decision(
        at_s=3.0,
        name="chat",
        action="advanced",
        phase=Phase.RUNNING,
        step=0,
        weights={"stable": 90, "canary": 10},
        before={"stable": 100, "canary": 0},
        reason="the variant is ready",
        readings=({**asdict(reading), "verdict": "wait"},),
    )


def test_a_decision_survives_its_way_as_json() -> None:
    reading = asdict(Reading("error_rate", Verdict.ROLL_BACK, "bad", observed_rate=0.5, threshold_s=1e9))
    found = decision("rolled_back", PROGRESS, before={}, at_s=3.0, readings=[reading])
    assert Decision.model_validate_json(found.model_dump_json()) == found


def test_decisions_on_one_come_oldest_first() -> None:
    history = History([made(1.0), made(2.0, name="docs"), made(3.0)])
    assert [each.at_s for each in history.of("chat")] == [1.0, 3.0]


def test_decisions_on_all_come_oldest_first() -> None:
    history = History([made(3.0), made(2.0, name="docs"), made(4.0)])
    assert [each.at_s for each in history.all()] == [2.0, 3.0, 4.0]


def test_nobody_decided_on_what_is_unknown() -> None:
    assert (History().of("chat"), History().actions("chat")) == ([], Counter())


def test_the_oldest_decisions_on_one_are_dropped_but_counted() -> None:
    history = History([made(0.5, name="docs"), *(made(float(i)) for i in range(MOST + 5))])
    assert ([each.at_s for each in history.of("chat")][:1], len(history.of("chat")), len(history.of("docs"))) == (
        [5.0],
        MOST,
        1,
    )
    assert (history.actions("chat"), history.count) == (Counter(advanced=MOST + 5), MOST + 6)
