from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from serve_app.config_rollouts import GatesConfig
from serve_app.rollout.criteria import HANG_FEW, Criterion, Measure, criterion
from serve_app.rollout.gates import Baselines, Gate, GateTest, Look, Reading, Verdict, gates_of
from serve_app.rollout.histogram import GROWTH, Histogram
from serve_app.rollout.telemetry import Outcome, VariantStats, Waiting

ONLY_HANG = GatesConfig(error_rate=None)
TTFT = Gate("ttft_p95_ratio", Measure.TTFT, 1.5, 0.95)
ITL = Gate("itl_p95_ratio", Measure.ITL, 1.5, 0.95)
ERRORS = Gate("error_rate", Measure.ERRORS, 0.01)
HANG = Gate("hang", Measure.HANG, 4.0)


def histogram(durations_s: Sequence[float]) -> Histogram:
    made = Histogram()
    for each in durations_s:
        made.observe(each)
    return made


def stats(durations_s: Sequence[float] = (), *, failed: int = 0, timeouts: int = 0) -> VariantStats:
    """Return streams whose first byte, mean gap and end each came after the same time, and attempts that failed."""
    times = histogram(durations_s)
    counts = {Outcome.OK: times.total, Outcome.SERVER_ERROR: failed, Outcome.TIMEOUT: timeouts}
    return VariantStats(outcomes=Counter(counts), ttft=times, itl=times, e2e=times)


def spread(count: int) -> list[float]:
    return [0.1 + 0.3 * i / count for i in range(count)]


BASELINE = Baselines(stats(spread(2000)), stats(spread(200)))


def look(
    block: VariantStats, baselines: Baselines = BASELINE, *, fraction: float = 1.0, waiting: Waiting | None = None
) -> Look:
    return Look(block, waiting or Waiting(), baselines, fraction)


def read(gate: Gate, seen: Look, config: GatesConfig = ONLY_HANG) -> Reading:
    return GateTest(gate, config).look(seen)


def asked(gate: Gate, long: VariantStats) -> Criterion:
    made = criterion(gate, long)
    assert made is not None
    return made


def test_gates_are_those_configured_and_the_one_against_hangs() -> None:
    config = GatesConfig(ttft_p50_ratio=1.2, ttft_p95_ratio=1.5, itl_p50_ratio=1.3, itl_p95_ratio=1.4, e2e_p95_ratio=2)
    assert [(gate.name, gate.limit, gate.q) for gate in gates_of(config)] == [
        ("error_rate", 0.01, 0.0),
        ("ttft_p50_ratio", 1.2, 0.5),
        ("ttft_p95_ratio", 1.5, 0.95),
        ("itl_p50_ratio", 1.3, 0.5),
        ("itl_p95_ratio", 1.4, 0.95),
        ("e2e_p95_ratio", 2.0, 0.95),
        ("hang", 4.0, 0.0),
    ]


def test_without_any_gate_hangs_are_looked_for() -> None:
    assert [gate.name for gate in gates_of(ONLY_HANG)] == ["hang"]


def test_a_duration_is_bad_over_the_ratio_of_a_quantile_that_is_bounded_from_above() -> None:
    made = asked(TTFT, BASELINE.long)
    assert made.baseline <= made.matched_s <= made.baseline * GROWTH
    assert made.threshold_s == 1.5 * made.matched_s
    assert made.allowed == pytest.approx(0.05)


def test_failures_may_exceed_the_bound_of_the_baselines_rate_by_the_limit() -> None:
    made = asked(ERRORS, stats(spread(990), failed=10))
    assert made.baseline == 0.01
    assert 0.03 < made.allowed < 0.04


@pytest.mark.parametrize(
    ("durations_s", "hung_s"),
    [([1.0] * HANG_FEW, 10.0), ([10.0] * HANG_FEW, 40.0), ([10.0], 100.0)],
    ids=["ten-seconds-at-least", "four-times-the-longest", "more-where-few-are-known"],
)
def test_an_attempt_hangs_when_it_is_much_older_than_the_baselines_longest(durations_s: list[float], hung_s: float) -> None:
    assert asked(HANG, stats(durations_s)).threshold_s == pytest.approx(hung_s, rel=GROWTH - 1)


@pytest.mark.parametrize(
    ("gate", "long", "reason"),
    [
        (ERRORS, stats(), "the baseline has no requests to compare with"),
        (HANG, stats(failed=5), "the baseline has no requests to compare with"),
        (TTFT, stats(spread(57)), "the baseline has 57 of 103 requests that a comparison needs"),
    ],
    ids=["errors", "hang", "quantile"],
)
def test_a_gate_waits_for_a_baseline_that_can_be_read(gate: Gate, long: VariantStats, reason: str) -> None:
    made = read(gate, look(stats([9.0] * 40, failed=5), Baselines(long, stats())))
    assert (made.verdict, made.reason) == (Verdict.WAIT, reason)


def test_requests_count_while_the_baseline_cannot_be_read() -> None:
    test = GateTest(TTFT, ONLY_HANG)
    test.look(look(stats(spread(30)), Baselines(stats(), stats())))
    assert test.look(look(stats(spread(7)))).reason == "37 of 50 requests"


def test_slow_first_bytes_are_rolled_back_with_a_sentence() -> None:
    made = read(TTFT, look(stats([0.1] * 17 + [0.9] * 14)))
    assert (made.verdict, made.attempts, made.bad, made.observed_rate) == (Verdict.ROLL_BACK, 31, 14, 14 / 31)
    assert (
        made.reason == "time to first token was over 0.595 s (1.5 x the baseline's p95) in 14 of 31 requests; 5 % are allowed"
    )


def test_failures_are_rolled_back_with_a_sentence() -> None:
    made = read(ERRORS, look(stats([0.1] * 20, failed=11)))
    assert (made.verdict, made.threshold_s) == (Verdict.ROLL_BACK, None)
    assert made.reason == "11 of 31 requests failed (0 % of the baseline's); 1.2 % are allowed"


@pytest.mark.parametrize("gate", [TTFT, ITL, ERRORS, HANG], ids=lambda gate: gate.name)
def test_a_canary_like_the_baseline_is_promoted(gate: Gate) -> None:
    assert read(gate, look(stats(spread(400)))).verdict is Verdict.PROMOTE


@pytest.mark.parametrize(
    ("count", "reason"), [(37, "37 of 50 requests"), (50, "evidence 0.8 of 2.3")], ids=["few-requests", "little-evidence"]
)
def test_a_gate_says_what_it_waits_for(count: int, reason: str) -> None:
    assert read(ERRORS, look(stats(spread(count)))).reason == reason


def test_a_block_that_is_not_over_already_speaks_against_the_canary() -> None:
    made = [read(ERRORS, look(stats(failed=9), fraction=fraction)).verdict for fraction in (0.0, 0.2, 1.0)]
    assert made == [Verdict.WAIT, Verdict.ROLL_BACK, Verdict.ROLL_BACK]


def test_a_block_that_is_not_over_does_not_speak_for_the_canary() -> None:
    assert read(ERRORS, look(stats(spread(400)), fraction=0.8)).verdict is Verdict.WAIT


@pytest.mark.parametrize(
    ("gate", "waiting"),
    [
        (TTFT, Waiting(first=histogram([6.0] * 9))),
        (ITL, Waiting(gap=histogram([60.0] * 9))),
        (HANG, Waiting(whole=histogram([11.0] * 9))),
        (HANG, Waiting(first=histogram([11.0] * 9), whole=histogram([11.0] * 9))),
    ],
    ids=["no-first-byte", "stalled", "no-end", "no-beginning"],
)
def test_open_attempts_that_are_overdue_are_evidence_before_they_end(gate: Gate, waiting: Waiting) -> None:
    assert read(gate, look(stats(), waiting=waiting, fraction=0.2)).verdict is Verdict.ROLL_BACK


def test_open_attempts_count_once_and_only_while_they_are_open() -> None:
    test = GateTest(TTFT, ONLY_HANG)
    waiting = Waiting(first=histogram([6.0] * 2))
    assert [test.look(look(stats(spread(10)), waiting=waiting)).bad for _ in range(5)] == [2] * 5


def test_open_attempts_are_no_failures_yet() -> None:
    waiting = Waiting(first=histogram([6.0] * 9), whole=histogram([6.0] * 9))
    assert read(ERRORS, look(stats(), waiting=waiting)).bad == 0


def test_a_first_byte_is_missed_long_before_a_long_answer_would_end() -> None:
    long = VariantStats(outcomes=Counter({Outcome.OK: 100}), ttft=histogram([0.5] * 100), e2e=histogram([60.0] * 100))
    made = asked(HANG, long)
    assert made.first_s == 10.0
    assert made.threshold_s == pytest.approx(240, rel=0.05)


def test_answers_that_are_no_streams_hang_by_their_end_alone() -> None:
    whole = VariantStats(outcomes=Counter({Outcome.OK: 100}), e2e=histogram([1.0] * 100))
    made = read(HANG, look(VariantStats(), Baselines(whole, whole), waiting=Waiting(whole=histogram([11.0] * 9))))
    assert made.reason == "9 of 9 requests had no end within 10 s (the baseline's longest took 1 s); 0.5 % are allowed"


@pytest.mark.parametrize(
    ("ages_s", "verdict"),
    [([], Verdict.ROLL_BACK), ([0.5] * 60, Verdict.WAIT), ([50.0] * 60, Verdict.ROLL_BACK)],
    ids=["none", "begun-with-them", "begun-before"],
)
def test_failures_are_weighed_against_open_attempts_that_may_yet_succeed(ages_s: list[float], verdict: Verdict) -> None:
    seen = look(stats(failed=4), fraction=0.2, waiting=Waiting(whole=histogram(ages_s)))
    assert read(ERRORS, seen).verdict is verdict


def test_open_attempts_are_weighed_for_as_long_as_the_evidence_is_old() -> None:
    test = GateTest(ERRORS, ONLY_HANG)
    for _ in range(4):
        test.look(look(stats(failed=1)))
    levels = [
        test.look(look(stats(), fraction=0.2, waiting=Waiting(whole=histogram([age_s] * 60)))).evidence
        for age_s in (15.0, 30.0)
    ]
    assert levels[0] < levels[1] - 1


def test_a_mean_gap_that_may_recover_is_not_overdue() -> None:
    baselines = Baselines(BASELINE.long, BASELINE.short, Waiting())
    assert read(ITL, look(stats(), baselines, waiting=Waiting(gap=histogram([1.0] * 9)))).bad == 0


@pytest.mark.parametrize(("theirs", "bad"), [(Waiting(), 9), (None, 0)], ids=["baseline-known", "baseline-unknown"])
def test_without_the_baselines_open_attempts_the_canarys_must_be_older_than_its_short_window(
    theirs: Waiting | None, bad: int
) -> None:
    baselines = Baselines(BASELINE.long, BASELINE.short, theirs)
    assert read(TTFT, look(stats(), baselines, waiting=Waiting(first=histogram([2.0] * 9)))).bad == bad


def test_what_hangs_in_both_alike_is_not_held_against_the_canary() -> None:
    hung = Waiting(whole=histogram([30.0] * 40))
    theirs = Waiting(whole=histogram([30.0] * 800))
    assert read(HANG, look(stats(), Baselines(BASELINE.long, stats(), theirs), waiting=hung)).verdict is Verdict.WAIT


def test_requests_that_time_out_have_hung() -> None:
    made = read(HANG, look(stats([0.1] * 5, timeouts=5)))
    assert (made.verdict, made.reason) == (
        Verdict.ROLL_BACK,
        "5 of 10 requests had no first byte within 10 s or no end within 10 s (the baseline's longest took 0.416 s)"
        "; 0.5 % are allowed",
    )


def test_a_step_is_not_passed_while_something_hangs() -> None:
    made = read(HANG, look(stats([0.1] * 60), waiting=Waiting(whole=histogram([11.0]))))
    assert (made.verdict, made.reason) == (
        Verdict.WAIT,
        "1 of 61 requests had no first byte within 10 s or no end within 10 s (the baseline's longest took 0.416 s)",
    )


def test_a_new_step_counts_anew_and_keeps_the_evidence() -> None:
    test = GateTest(ERRORS, ONLY_HANG)
    before = test.look(look(stats([0.1] * 100, failed=5)))
    test.begin_step()
    after = test.look(look(stats(), fraction=0.2))
    assert (after.attempts, after.bad, after.acceptance) == (0, 0, 0.0)
    assert after.evidence > before.evidence - 0.1


def test_a_roll_back_is_blamed_on_what_came_since_the_fault_began() -> None:
    test = GateTest(ERRORS, ONLY_HANG)
    for _ in range(50):
        test.look(look(stats([0.1] * 100)))
    made = test.look(look(stats([0.1] * 30, failed=10)))
    assert (made.verdict, made.bad, made.attempts) == (Verdict.ROLL_BACK, 10, 40)


def test_acceptance_asks_no_more_of_a_canary_than_the_baseline_does_itself_right_now() -> None:
    troubled = Baselines(BASELINE.long, stats([0.1] * 100, failed=100))
    calm, hit = (read(ERRORS, look(stats([0.1] * 10, failed=10), each)).acceptance for each in (BASELINE, troubled))
    assert calm is not None
    assert hit is not None
    assert calm < -10 < -1 < hit
