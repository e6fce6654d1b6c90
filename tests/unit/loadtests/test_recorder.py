from __future__ import annotations

import pytest

from loadtests.outcomes import Outcome
from loadtests.recorder import Event, Recorder, slot_s
from loadtests.tally import Tally
from tests.unit.loadtests.fakes import BEGIN_S, failed, run_of, scenario, stream


def tally(*seen: object, **fields: object) -> Tally:
    return Tally.from_json(run_of(scenario(**fields), seen)["tally"])  # type: ignore[arg-type]  # exchanges


def test_durations_count_from_when_a_request_was_due() -> None:
    late = stream(1.0, ttft_s=2.0, sent_s=BEGIN_S + 2.5)  # sent 1.5 s late, so half a second was the platform's
    cell = tally(late).entries["chat"]
    assert cell.times["ttft"].mean_s == pytest.approx(2.0)
    assert cell.times["late"].mean_s == pytest.approx(1.5)
    assert cell.times["e2e"].mean_s == pytest.approx(2.2)


def test_gaps_and_their_mean_are_kept_apart() -> None:
    cell = tally(stream(0.0, gaps_s=(0.1, 0.1, 0.4))).entries["chat"]
    assert cell.times["gap"].count == 3
    assert cell.times["itl"].mean_s == pytest.approx(0.2)
    assert cell.times["longest_gap"].mean_s == pytest.approx(0.4)


def test_several_tokens_in_one_event_make_the_gap_between_tokens_smaller() -> None:
    cell = tally(stream(0.0, gaps_s=(0.3, 0.3), tokens=7)).entries["chat"]  # 7 tokens in 3 events
    assert cell.times["itl"].mean_s == pytest.approx(0.1)


def test_the_warm_up_is_counted_apart() -> None:
    made = tally(stream(-0.5), stream(0.5), stream(10.5))
    assert (made.warmup, made.entries["chat"].totals["requests"]) == (2, 1)


@pytest.mark.parametrize(
    ("outcome", "endless"),
    [(Outcome.TIMEOUT, 1), (Outcome.UNFINISHED, 1), (Outcome.SERVER_ERROR, 0), (Outcome.CONNECT, 0)],
)
def test_what_was_waited_for_in_vain_counts_as_endless(outcome: Outcome, endless: int) -> None:
    cell = tally(failed(1.0, outcome, status=503)).entries["chat"]
    assert [cell.times[kind].endless for kind in ("ttft", "e2e")] == [endless, endless]
    assert (dict(cell.outcomes), dict(cell.statuses)) == ({outcome: 1}, {"503": 1})
    assert dict(cell.messages) == {f"{outcome}: it failed": 1}


def test_tokens_count_when_they_came_and_answers_when_they_ended() -> None:
    made = tally(
        stream(1.2, ttft_s=1.0, gaps_s=(1.0, 1.0)), stream(3.0, stamps=(), tokens=5, is_stream=False, ended_s=BEGIN_S + 4.5)
    )
    assert {number: slot.tokens for number, slot in sorted(made.slots.items())} == {1: 0, 2: 1, 3: 1, 4: 6}
    assert {number: slot.ok for number, slot in made.slots.items() if slot.ok} == {4: 2}
    assert {number: slot.arrivals for number, slot in made.slots.items() if slot.arrivals} == {1: 1, 3: 1}


def test_stages_get_what_was_due_in_them() -> None:
    load = {"mode": "open", "shape": {"kind": "step", "levels": [1, 2]}}
    made = tally(stream(1.0), stream(4.9), stream(5.1), load=load)
    assert {number: cell.totals["requests"] for number, cell in made.stages.items()} == {0: 2, 1: 1}


def test_only_a_conversations_begin_tells_of_the_split() -> None:
    one = ("chat", "stable")
    made = tally(
        stream(0, variant=one),
        stream(1, variant=one, is_first=False),
        stream(2, variant=("chat", "canary"), is_first=False, has_flipped=True),
        failed(3, Outcome.SERVER_ERROR, variant=("chat", "canary")),
    )
    assert (made.shares[one].firsts, made.shares[one].stats.judged) == (1, 2)
    canary = made.shares["chat", "canary"]
    assert (canary.firsts, canary.flips, canary.stats.failures) == (0, 1, 1)


def test_locust_hears_of_requests_and_of_streams() -> None:
    told: list[Event] = []
    run_of(scenario(), [stream(0.0), failed(1.0, Outcome.RATE_LIMITED)], told=told)
    assert [(each.request_type, each.name, round(each.response_time)) for each in told] == [
        ("POST", "/v1/chat/completions", 700),
        ("TTFT", "chat", 500),
        ("ITL", "chat", 100),
        ("POST", "/v1/chat/completions", 1000),
    ]
    assert repr(told[-1].exception) == "rate_limited: it failed"


def test_taking_leaves_nothing() -> None:
    recorder = Recorder(scenario(), BEGIN_S, lambda _: None)
    recorder.record(stream(0.0))
    recorder.lag(0.01)
    assert recorder.take().lag.count == 1
    assert recorder.take().entries == {}


@pytest.mark.parametrize(("duration_s", "slot"), [(0.5, 0.5), (10, 1), (10.5, 1.05), (3600, 20)])
def test_a_run_has_whole_slots_and_not_too_many(duration_s: float, slot: float) -> None:
    assert slot_s(duration_s) == pytest.approx(slot)
