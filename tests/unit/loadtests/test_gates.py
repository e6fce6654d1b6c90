from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from loadtests.figures import Figures
from loadtests.gates import Finding, State, findings, has_failed, span
from loadtests.gates_config import Gates
from loadtests.outcomes import Outcome
from tests.unit.loadtests.fakes import failed, figures_of, sample, stream


def found(seen: Figures, **fields: Any) -> dict[str, Finding]:
    gates = Gates.model_validate({"min_requests": 1, **fields})
    return {finding.name: finding for finding in findings(gates, seen)}


def states(seen: Figures, **fields: Any) -> dict[str, str]:
    return {name: finding.state.value for name, finding in found(seen, **fields).items() if name != "min_requests"}


def split_run(canaries: int, of: int, **fields: Any) -> Figures:
    seen = [stream(9 * n / of, variant=("chat", "canary" if n < canaries else "stable")) for n in range(of)]
    return figures_of(seen, samples=[sample(1, {"chat/canary": 10, "chat/stable": 90})], **fields)


GOOD = figures_of([stream(0.05 * number) for number in range(100)])


@pytest.mark.parametrize(
    ("gate", "holds", "fails"),
    [
        ("ttft_p50", "600ms", "400ms"),
        ("ttft_p95", 0.6, 0.4),
        ("ttft_p99", "1s", "400ms"),
        ("itl_p50", "110ms", "90ms"),
        ("itl_p95", "110ms", "90ms"),
        ("gap_p99", "110ms", "90ms"),
        ("e2e_p95", "1s", "600ms"),
        ("throughput", 9, 11),
        ("tokens_per_s", 29, 31),
    ],
)
def test_a_gate_holds_up_to_its_limit(gate: str, holds: object, fails: object) -> None:
    assert states(GOOD, **{gate: holds}) == {gate: "passed"}
    assert states(GOOD, **{gate: fails}) == {gate: "failed"}


def test_the_reason_has_the_figure_and_the_limit() -> None:
    assert found(GOOD, ttft_p95="400ms")["ttft_p95"].reason == "TTFT p95 is 500 ms (most 400 ms)"
    assert found(GOOD, throughput=11)["throughput"].reason == "10 requests/s were answered well (least 11)"


def test_failures_are_counted_with_their_interval() -> None:
    seen = figures_of([*(stream(0.1 * n) for n in range(98)), failed(1, Outcome.SERVER_ERROR), failed(2, Outcome.BROKEN)])
    assert states(seen, error_rate=0.02) == {"error_rate": "passed"}
    broken = found(seen, error_rate=0.01)["error_rate"]
    assert broken.state is State.FAILED
    assert broken.reason == "2 of 100 requests failed (2 %, 95 % interval 0.55 % to 7 %; most 1 %)"


def test_requests_that_never_ended_fail_a_percentile() -> None:
    seen = figures_of([*(stream(0.1 * n) for n in range(9)), failed(1, Outcome.UNFINISHED)])
    assert found(seen, ttft_p95="10s")["ttft_p95"].reason == "TTFT p95: so many requests never got there (most 10 s)"
    assert states(seen, ttft_p50="10s") == {"ttft_p50": "passed"}


def test_nothing_measured_holds_nothing() -> None:
    empty = figures_of([])
    assert set(states(empty, ttft_p95=1, error_rate=0.5, throughput=0.1, split={}).values()) == {"failed"}


def test_too_few_requests_fail_a_run() -> None:
    gates = Gates.model_validate({"min_requests": 101})
    assert has_failed(findings(gates, GOOD))
    assert not has_failed(findings(Gates.model_validate({"min_requests": 100}), GOOD))


def test_parts_of_the_mix_have_limits_of_their_own() -> None:
    assert states(GOOD, entries={"chat": {"ttft_p95": "400ms"}}) == {"entries.chat.ttft_p95": "failed"}
    missing = found(GOOD, entries={"rag": {"ttft_p95": 1}})["entries.rag"]
    assert (missing.state, missing.reason) == (State.FAILED, "the scenario has no part 'rag'; it has chat")


@pytest.mark.parametrize(
    ("canaries", "of", "state"),
    [
        pytest.param(100, 1000, "passed", id="as-declared"),
        pytest.param(120, 1000, "passed", id="within-what-is-allowed"),
        pytest.param(4, 20, "undecided", id="chance-explains-it"),
        pytest.param(250, 1000, "failed", id="too-many"),
        pytest.param(0, 1000, "failed", id="none-at-all"),
    ],
)
def test_a_split_fails_only_where_chance_does_not_explain_it(canaries: int, of: int, state: str) -> None:
    seen = states(split_run(canaries, of), split={"deviation": 0.05})
    assert seen["split.deviation[chat/canary]"] == state


def test_declared_weights_replace_those_that_were_reported() -> None:
    seen = split_run(500, 1000)
    assert states(seen, split={"weights": {"canary": 50, "stable": 50}})["split.deviation[chat/canary]"] == "passed"
    named = states(seen, split={"model": "chat", "weights": {"canary": 90, "stable": 10}})
    assert named["split.deviation[chat/stable]"] == "failed"


def test_a_split_needs_weights_and_variants() -> None:
    without = figures_of([stream(1, variant=("chat", "stable"))])
    assert "no weight is known" in found(without, split={})["split.deviation"].reason
    assert "no answer said" in found(GOOD, split={})["split.deviation"].reason
    only_failures = figures_of([failed(1, Outcome.SERVER_ERROR, variant=("chat", "stable"))])
    weighed = found(only_failures, split={"weights": {"stable": 100}})
    assert weighed["split.deviation[chat/stable]"].reason == "no conversation of chat was answered"


def test_a_conversation_that_changes_its_variant_is_counted() -> None:
    flip = stream(2, variant=("chat", "canary"), is_first=False, has_flipped=True)
    seen = figures_of([stream(1, variant=("chat", "stable")), flip])
    weights = {"stable": 100}
    assert states(seen, split={"weights": weights, "deviation": 1})["split.flips"] == "failed"
    assert states(seen, split={"weights": weights, "deviation": 1, "flips": 1})["split.flips"] == "passed"
    assert "split.flips" not in states(seen, split={"weights": weights, "flips": None})


def canary_run(failures: int, *, canaries: int = 600) -> Figures:
    made = [stream(9 * n / 2000, variant=("chat", "stable")) for n in range(2000)]
    made += [stream(9 * n / canaries, variant=("chat", "canary")) for n in range(canaries - failures)]
    made += [failed(1 + n / 1000, Outcome.SERVER_ERROR, variant=("chat", "canary")) for n in range(failures)]
    return figures_of(made)


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        pytest.param(canary_run(0), "passed", id="good"),
        pytest.param(canary_run(120), "failed", id="bad"),
        pytest.param(canary_run(0, canaries=12), "undecided", id="too-few"),
    ],
)
def test_a_canary_is_judged_as_a_rollout_judges_it(seen: Figures, state: str) -> None:
    assert states(seen, canary={"model": "chat"}) == {"canary": state}


def test_a_strict_canary_gate_fails_where_nothing_can_be_said() -> None:
    asked = {"model": "chat", "undecided": "fail"}
    assert states(canary_run(0, canaries=12), canary=asked) == {"canary": "failed"}
    assert found(GOOD, canary=asked)["canary"].reason == "chat/canary answered nothing"
    only = figures_of([stream(1, variant=("chat", "canary"))])
    assert found(only, canary={"model": "chat"})["canary"].reason == "chat/stable answered nothing"


@pytest.mark.parametrize(
    ("seconds", "said"), [(1.234, "1.23 s"), (0.0456, "45.6 ms"), (float("nan"), "-"), (float("inf"), "never")]
)
def test_durations_have_three_digits(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_a_load_test_cannot_require_a_load_test() -> None:
    with pytest.raises(ValidationError, match="belongs into a model's `rollout`"):
        Gates.model_validate({"canary": {"model": "chat", "gates": {"load_test": {"scenario": "smoke"}}}})
