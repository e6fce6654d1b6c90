from collections.abc import Callable

import pytest

from benchmarks.data_path.gates import PEERS, Verdict, are_passed, assess
from benchmarks.data_path.records import Failure, Row
from benchmarks.data_path.summary import Summary

MakeRow = Callable[..., Row]


def good_run(row: MakeRow, **manta: float) -> list[Row | Failure]:
    """Manta as it has to be: 2 ms and 1000 tokens/s, where peers take 30 ms for 100 (vllm-router 1 ms for 1000)."""
    rows: list[Row | Failure] = []
    for load in ("c=1", "c=32", "c=128"):
        rows += [row(1, "bare", load, tokens_per_s=1200), row(1, "manta", load, **({"ttft_ms": 12} | manta))]
        rows.append(row(1, "manta-limits", load, ttft_ms=12))
        for peer in PEERS:
            fast = peer == "vllm-router"
            rows.append(row(1, peer, load, ttft_ms=11 if fast else 40, tokens_per_s=1000 if fast else 100))
    held = {name: value for name, value in manta.items() if name == "errors"}
    return [*rows, row(1, "manta", "hold=10", itl_ms=500), row(1, "manta", "hold=1000", itl_ms=550, **held)]


def not_passed(records: list[Row | Failure]) -> dict[str, Verdict]:
    outcomes = assess(Summary(records), "fake")
    return {outcome.wanted: outcome.verdict for outcome in outcomes if outcome.verdict is not Verdict.PASS}


def test_run_that_reaches_everything_passes(row: MakeRow) -> None:
    outcomes = assess(Summary(good_run(row)), "fake")
    assert are_passed(outcomes)
    assert len(outcomes) == 2 + 2 + 2 * (len(PEERS) - 1) + 3 * 2 + 2


@pytest.mark.parametrize(
    ("manta", "failed"),
    [
        pytest.param({"ttft_ms": 15.5}, {"c=1: manta adds at most 5 ms to bare's TTFT p50"}, id="slow-alone"),
        pytest.param(
            {"tokens_per_s": 800},
            {f"{load}: manta streams at least 0.7x the tokens/s of bare" for load in ("c=32", "c=128")},
            id="far-below-bare",
        ),
        pytest.param({"errors": 1}, {"hold=1000: no stream of manta fails in any round"}, id="stream-lost"),
    ],
)
def test_line_that_is_not_reached_fails_alone(row: MakeRow, manta: dict[str, float], failed: set[str]) -> None:
    assert not_passed(good_run(row, **manta)) == dict.fromkeys(failed, Verdict.FAIL)


def test_limits_that_cost_too_much_fail(row: MakeRow) -> None:
    records = [*good_run(row), row(2, "bare", "c=1"), row(2, "manta-limits", "c=1", ttft_ms=40)]
    assert not_passed(records) == {"c=1: manta-limits adds at most 5 ms to bare's TTFT p50": Verdict.FAIL}


def test_peer_that_adds_less_fails_the_gate_unless_it_is_the_native_one(row: MakeRow) -> None:
    records = [*good_run(row), row(2, "bare", "c=1"), row(2, "manta", "c=1", ttft_ms=12), row(2, "litellm", "c=1", ttft_ms=9)]
    records += [row(3, "bare", "c=1"), row(3, "manta", "c=1", ttft_ms=12), row(3, "litellm", "c=1", ttft_ms=9)]
    assert not_passed(records) == {"c=1: manta adds less to TTFT p50 than litellm": Verdict.FAIL}


def test_slower_gaps_among_many_streams_fail(row: MakeRow) -> None:
    records = [*good_run(row)[:-1], row(1, "manta", "hold=1000", itl_ms=600)]
    assert not_passed(records) == {"hold=1000: ITL p95 of manta below 1.2x that of hold=10": Verdict.FAIL}


def test_hold_that_broke_in_a_round_fails(row: MakeRow) -> None:
    records = [*good_run(row), Failure(2, "manta", "load", "hold=1000", "OSError: too many open files\nmore")]
    assert not_passed(records) == {"hold=1000: no stream of manta fails in any round": Verdict.FAIL}


def test_what_was_not_measured_is_not_passed(row: MakeRow) -> None:
    outcomes = assess(Summary([row(1, "bare"), row(1, "manta", ttft_ms=12)]), "fake")
    assert {outcome.verdict for outcome in outcomes} == {Verdict.PASS, Verdict.NO_DATA}
    assert not are_passed(outcomes)


def test_on_real_vllm_only_the_distance_from_bare_is_asked(row: MakeRow) -> None:
    outcomes = assess(Summary(good_run(row)), "vllm")
    assert [outcome.wanted for outcome in outcomes] == [
        "c=1: manta adds at most 5 ms to bare's TTFT p50",
        "c=32: manta adds at most 10 ms to bare's TTFT p50",
        "c=32: manta streams at least 0.7x the tokens/s of bare",
    ]
