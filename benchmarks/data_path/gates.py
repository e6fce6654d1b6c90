"""What Manta's data path has to reach, checked over a run's summary. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from benchmarks.data_path.plan import HOLD_REFERENCE
from benchmarks.data_path.summary import BARE, Cell, Spread, Summary

MANTA = "manta"
MANTA_LIMITS = "manta-limits"  # the same, with a key whose requests and tokens are counted: the same bars hold
FAST_PEER = "vllm-router"  # native code; Manta need not add less than it does
MAX_ADDED_TTFT_MS = {"c=1": 5.0, "c=32": 10.0}
MIN_THROUGHPUT_RATIO = {"ray-serve-llm-default": 5.0, "litellm": 3.0, BARE: 0.7}
THROUGHPUT_LOADS = ("c=32", "c=128")
PEERS = (FAST_PEER, "litellm", "ray-serve-llm", "ray-serve-llm-default", "ray-serve-llm-direct")
HELD, MAX_HELD_ITL_RATIO = "hold=1000", 1.2


class Verdict(StrEnum):
    """A gate without figures is not passed."""

    PASS = "PASS"  # noqa: S105 (a word, not a secret)
    FAIL = "FAIL"
    NO_DATA = "NO DATA"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One gate: what it asks and what was found."""

    verdict: Verdict
    wanted: str
    found: str


def assess(summary: Summary, engine: Literal["fake", "vllm"]) -> list[Outcome]:
    """Return every gate's outcome. On real vLLM the engine is the limit: only the distance from bare is asked there."""
    outcomes = [_added_ttft(summary, MANTA, load) for load in MAX_ADDED_TTFT_MS]
    if engine == "vllm":
        return [*outcomes, _throughput(summary, BARE, "c=32")]
    outcomes += [_added_ttft(summary, MANTA_LIMITS, load) for load in MAX_ADDED_TTFT_MS]
    outcomes += [_less_than_peer(summary, peer, load) for load in MAX_ADDED_TTFT_MS for peer in PEERS if peer != FAST_PEER]
    outcomes += [_throughput(summary, peer, load) for peer in MIN_THROUGHPUT_RATIO for load in THROUGHPUT_LOADS]
    return [*outcomes, _held_errors(summary), _held_itl(summary)]


def are_passed(outcomes: Sequence[Outcome]) -> bool:
    """Return whether all of them are."""
    return all(outcome.verdict is Verdict.PASS for outcome in outcomes)


def _added_ttft(summary: Summary, system: str, load: str) -> Outcome:
    found, limit_ms = summary.of(Cell(system, load), "added_ttft_p50_ms"), MAX_ADDED_TTFT_MS[load]
    wanted = f"{load}: {system} adds at most {limit_ms:g} ms to bare's TTFT p50"
    return _outcome(wanted, found, is_passed=found is not None and found.median <= limit_ms, unit=" ms")


def _less_than_peer(summary: Summary, peer: str, load: str) -> Outcome:
    found = summary.difference("added_ttft_p50_ms", Cell(MANTA, load), Cell(peer, load))
    wanted = f"{load}: {MANTA} adds less to TTFT p50 than {peer}"
    return _outcome(wanted, found, is_passed=found is not None and found.median < 0, unit=" ms against it")


def _throughput(summary: Summary, peer: str, load: str) -> Outcome:
    found, limit = summary.ratio("tokens_per_s", Cell(MANTA, load), Cell(peer, load)), MIN_THROUGHPUT_RATIO[peer]
    wanted = f"{load}: {MANTA} streams at least {limit:g}x the tokens/s of {peer}"
    return _outcome(wanted, found, is_passed=found is not None and found.median >= limit, unit="x")


def _held_errors(summary: Summary) -> Outcome:
    errors = summary.total_errors(Cell(MANTA, HELD))
    wanted = f"{HELD}: no stream of {MANTA} fails in any round"
    broken = [failure for failure in summary.failures if failure.system == MANTA and failure.load in {None, HELD}]
    if broken:
        return Outcome(Verdict.FAIL, wanted, f"round {broken[0].round}: {broken[0].text.splitlines()[0]}")
    if errors is None:
        return Outcome(Verdict.NO_DATA, wanted, "not measured")
    return Outcome(Verdict.FAIL if errors else Verdict.PASS, wanted, f"{errors} failed")


def _held_itl(summary: Summary) -> Outcome:
    found = summary.ratio("itl_p95_ms", Cell(MANTA, HELD), Cell(MANTA, f"hold={HOLD_REFERENCE}"))
    wanted = f"{HELD}: ITL p95 of {MANTA} below {MAX_HELD_ITL_RATIO:g}x that of hold={HOLD_REFERENCE}"
    return _outcome(wanted, found, is_passed=found is not None and found.median < MAX_HELD_ITL_RATIO, unit="x")


def _outcome(wanted: str, found: Spread | None, *, is_passed: bool, unit: str) -> Outcome:
    if found is None:
        return Outcome(Verdict.NO_DATA, wanted, "not measured")
    text = f"{found.median:.2f}{unit} (rounds: {found.low:.2f} to {found.high:.2f})"
    return Outcome(Verdict.PASS if is_passed else Verdict.FAIL, wanted, text)
