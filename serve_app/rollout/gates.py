"""Gates: one sequential test for each thing that a canary must hold, and what it reads, in numbers and in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from serve_app.config_rollouts import GatesConfig
from serve_app.rollout.criteria import (
    HANG_ALLOWED,
    NEVER_S,
    SHORT_S,
    Criterion,
    Gate,
    Measure,
    criterion,
    ended,
    fair_rates,
    gates_of,
    histogram,
    overdue,
)
from serve_app.rollout.sequential import NO_EVIDENCE, Acceptance, Evidence, Tally, fewest, increments, log_ratio
from serve_app.rollout.telemetry import VariantStats, Waiting

__all__ = ["Baselines", "Gate", "GateTest", "Look", "Reading", "Verdict", "gates_of"]

_NOTHING = Waiting()


class Verdict(StrEnum):
    """What a canary should do."""

    WAIT = "wait"
    PROMOTE = "promote"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True, slots=True)
class Baselines:
    """What the baseline did in about the last minute and the last five seconds, and its open attempts if they are known."""

    long: VariantStats
    short: VariantStats
    waiting: Waiting | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """What gates are shown: a block of the canary's attempts, and the baseline over the same time.

    ``fraction`` says how much of the short window's time the block has covered so far; at 1 the block is over.
    """

    block: VariantStats
    waiting: Waiting
    baselines: Baselines
    fraction: float

    @property
    def is_over(self) -> bool:
        """Whether the block is to be kept."""
        return self.fraction >= 1


@dataclass(frozen=True, slots=True)
class Reading:
    """What one gate says, with its numbers. Attempts are those of the step, or those that a roll-back is blamed on."""

    gate: str
    verdict: Verdict
    reason: str
    attempts: int = 0
    bad: int = 0
    observed_rate: float | None = None
    allowed_rate: float | None = None
    threshold_s: float | None = None  # an attempt that takes longer is bad
    baseline: float | None = None  # its failure rate, or its quantile in seconds (of hangs: its longest time)
    evidence: float = 0.0  # that the canary is bad: log10 of the e-value
    evidence_needed: float = 0.0
    acceptance: float | None = None  # that the step may be passed: natural logarithm
    acceptance_needed: float | None = None


class GateTest:
    """The state of one gate over a rollout."""

    def __init__(self, gate: Gate, config: GatesConfig) -> None:
        self.gate = gate
        # Bonferroni: that any of the gates is wrong is at most alpha.
        self._needed = math.log(len(gates_of(config)) / config.alpha)
        self._min_requests = config.min_requests
        self._power = config.power
        self._evidence = Evidence()
        self._criterion: Criterion | None = None
        self._blocks = 0  # for which evidence has been more than that of faults that begin now
        self._restart()

    def begin_step(self) -> None:
        """Count and accept anew; evidence goes on."""
        self._evidence.begin_step()
        self._restart()

    def look(self, seen: Look) -> Reading:
        """Read the gate, and keep the block if it is over.

        What is asked stands before a block begins (a predictable plug-in), so that chance in the block cannot move it.
        """
        asked = self._criterion or criterion(self.gate, seen.baselines.long)
        made = self._unreadable(seen) if asked is None else self._read(asked, seen)
        self._criterion = criterion(self.gate, seen.baselines.long) if seen.is_over else asked
        return made

    def state(self) -> dict[str, Any]:
        """Return what ``restore`` takes, as JSON."""
        counts = {"step": list(self._step), "blamed": list(self._blamed), "blocks": self._blocks}
        return {"evidence": self._evidence.state(), "acceptance": self._acceptance.value, **counts}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state. Raises KeyError, TypeError or ValueError for one that is none."""
        value, step, blamed = float(state["acceptance"]), Tally(*state["step"]), Tally(*state["blamed"])
        blocks = int(state["blocks"])
        self._evidence.restore(state["evidence"])
        self._acceptance.value, self._step, self._blamed, self._blocks = value, step, blamed, blocks

    def _restart(self) -> None:
        self._acceptance = Acceptance(self._power)
        self._step = self._blamed = Tally()

    def _unreadable(self, seen: Look) -> Reading:
        """Count, so that the step's requests are known, and say what the baseline lacks."""
        attempts = ended(self.gate, seen.block, NEVER_S).attempts
        reading = Reading(self.gate.name, Verdict.WAIT, self._lack(seen.baselines.long), int(self._step.attempts + attempts))
        if seen.is_over:
            self._step = self._step.plus(0, attempts)
        return reading

    def _lack(self, long: VariantStats) -> str:
        if self.gate.measure in (Measure.ERRORS, Measure.HANG):
            return "the baseline has no requests to compare with"
        have = histogram(self.gate, long).total
        return f"the baseline has {have} of {fewest(self.gate.q)} requests that a comparison needs"

    def _read(self, asked: Criterion, seen: Look) -> Reading:
        block = ended(self.gate, seen.block, asked.threshold_s)
        late = self._overdue(asked, seen)
        canary, step, blamed = block.plus(late, late), self._step, self._blamed
        evidence = self._evidence.level(self._block_evidence(asked, seen, canary))
        acceptance = self._accept(asked, seen, late)
        if seen.is_over:
            self._keep(asked, seen, block)
        if evidence >= self._needed:
            return self._reading(asked, Verdict.ROLL_BACK, blamed.plus(*canary), levels=(evidence, acceptance))
        counted = step.plus(*canary)
        verdict = Verdict.PROMOTE if self._is_passed(counted, acceptance, late) else Verdict.WAIT
        return self._reading(asked, verdict, counted, levels=(evidence, acceptance))

    def _overdue(self, asked: Criterion, seen: Look) -> int:
        """Return how many open attempts of the canary are bad already.

        They are evidence when the gates are looked at, but are kept only once they have ended. That is as if each attempt
        were counted when it becomes known to be bad: those of the same age that were good have ended and been counted
        before, so bad ones are never ahead of their share.
        """
        # Where it is unknown what the baseline has open, an attempt must have waited so long that the short window shows
        # what became of the baseline's since.
        is_known = seen.baselines.waiting is not None
        oldest_s = asked.threshold_s if is_known else max(asked.threshold_s, SHORT_S)
        return overdue(self.gate, seen.waiting, oldest_s, first_s=asked.first_s)

    def _block_evidence(self, asked: Criterion, seen: Look, canary: Tally) -> list[float]:
        running = self._running(seen)
        if not canary.bad and not running and not seen.is_over:
            return NO_EVIDENCE  # against the canary; what speaks for it can wait until the block is over
        also = overdue(self.gate, seen.baselines.waiting or _NOTHING, asked.matched_s, first_s=asked.first_s)
        # Before the block is over nobody knows which of the baseline's bad attempts fell into its time: all, at worst.
        short = ended(self.gate, seen.baselines.short, asked.matched_s).latest(seen.fraction)
        return increments(canary.plus(0, running), short.plus(also, also), asked.allowed, margin=asked.margin)

    def _running(self, seen: Look) -> int:
        """Return how many open attempts have not failed so far, of those begun since the evidence began.

        A request may fail at once and takes long to succeed. If only those that ended counted, failures would be ahead of
        their share whenever the canary's traffic has just grown.
        """
        if self.gate.measure is not Measure.ERRORS:
            return 0
        ages = seen.waiting.whole
        return ages.total - ages.over(max(1.0, (self._blocks + seen.fraction) * SHORT_S))

    def _accept(self, asked: Criterion, seen: Look, late: int) -> float:
        ratio = self._fair_ratio(asked, seen, late)
        return self._acceptance.value + (ratio if seen.is_over else min(0.0, ratio))

    def _fair_ratio(self, asked: Criterion, seen: Look, late: int = 0) -> float:
        canary = ended(self.gate, seen.block, asked.fair_s).plus(late, late)
        if not canary.bad and not seen.is_over:
            return 0.0
        return log_ratio(canary, *fair_rates(asked, ended(self.gate, seen.baselines.short, asked.fair_matched_s)))

    def _keep(self, asked: Criterion, seen: Look, block: Tally) -> None:
        baseline = ended(self.gate, seen.baselines.short, asked.matched_s)
        self._acceptance.fold(self._fair_ratio(asked, seen))
        self._step, self._blocks = self._step.plus(*block), self._blocks + 1
        if not block.attempts:
            return
        self._blamed = self._blamed.plus(*block)
        if not self._evidence.fold(increments(block, baseline, asked.allowed, margin=asked.margin)):
            self._blamed, self._blocks = Tally(), 0

    def _is_passed(self, counted: Tally, acceptance: float, late: int) -> bool:
        if counted.attempts < self._min_requests:
            return False
        if self.gate.measure is Measure.HANG:  # too rare for a test to tell few from twice as few
            return late <= HANG_ALLOWED * counted.attempts
        return acceptance >= self._acceptance.needed

    def _reading(self, asked: Criterion, verdict: Verdict, counted: Tally, *, levels: tuple[float, float]) -> Reading:
        evidence, acceptance = levels
        is_hang = self.gate.measure is Measure.HANG
        return Reading(
            gate=self.gate.name,
            verdict=verdict,
            reason=self._reason(asked, verdict, counted, acceptance=acceptance),
            attempts=int(counted.attempts),
            bad=int(counted.bad),
            observed_rate=counted.bad / counted.attempts if counted.attempts else None,
            allowed_rate=asked.allowed,
            threshold_s=None if self.gate.measure is Measure.ERRORS else asked.threshold_s,
            baseline=asked.baseline,
            evidence=evidence / math.log(10),
            evidence_needed=self._needed / math.log(10),
            acceptance=None if is_hang else acceptance,
            acceptance_needed=None if is_hang else self._acceptance.needed,
        )

    def _reason(self, asked: Criterion, verdict: Verdict, counted: Tally, *, acceptance: float) -> str:
        if verdict is not Verdict.WAIT:
            return f"{_sentence(self.gate, asked, counted)}; {_percent(asked.allowed)} are allowed"
        if counted.attempts < self._min_requests:
            return f"{counted.attempts:.0f} of {self._min_requests} requests"
        if self.gate.measure is Measure.HANG:
            return _sentence(self.gate, asked, counted)
        return f"evidence {acceptance:.1f} of {self._acceptance.needed:.1f}"


def _sentence(gate: Gate, asked: Criterion, counted: Tally) -> str:
    of = f"{counted.bad:.0f} of {counted.attempts:.0f} requests"
    if gate.measure is Measure.ERRORS:
        return f"{of} failed ({_percent(asked.baseline)} of the baseline's)"
    if gate.measure is Measure.HANG:
        first = f"no first byte within {asked.first_s:.3g} s or " if asked.first_s < NEVER_S else ""
        return f"{of} had {first}no end within {asked.threshold_s:.3g} s (the baseline's longest took {asked.baseline:.3g} s)"
    quantile = f"{gate.limit:g} x the baseline's p{100 * gate.q:.0f}"
    return f"{gate.measure.value} was over {asked.threshold_s:.3g} s ({quantile}) in {of}"


def _percent(rate: float) -> str:
    return f"{100 * rate:.2g} %"
