"""Sequential tests: evidence on a share of bad attempts that may be looked at any number of times.

Each block of attempts multiplies e-values: numbers of at least 0 whose mean is at most 1 while the canary is good. Their
product over ``1/alpha`` is then as rare as ``alpha`` however often it is looked at (Ville 1939).

Sources: Wald 1945 (SPRT) for the ratios and the bound to accept; Ramdas et al. 2023 (game-theoretic statistics and safe
anytime-valid inference) for e-processes; Waudby-Smith & Ramdas 2024 (betting) for allowed rates that change from block to
block; Turner, Ly & Gruenwald 2024 (safe tests for 2x2 tables) for the comparison within a block; Shin, Ramdas & Rinaldo
2022 (e-detectors) for the mixture over starts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

Z99 = 2.326347874  # one-sided 99 % of the standard normal
UNLIKELY = 0.01  # what a bound is wrong with
PLACES = (0.03, 0.09, 0.25, 0.6, 0.95)  # where between the allowed rate and 1 a bad canary's rate may lie
MOST_ALLOWED = 0.999  # above, no rate is worth telling from it
NO_EVIDENCE = [0.0] * len(PLACES)
START_WEIGHT, STEPS_WEIGHT, LATER_WEIGHT = 0.4, 0.2, 0.4  # of the mixture over when a fault began; together 1
EVEN_BLOCKS = 12  # so many blocks have about the same weight; those after fade like 1/i**2
FLOOR, CEILING = -700.0, 300.0  # of logarithms that are kept, so that no exponential overflows and JSON can hold them


class Tally(NamedTuple):
    """How many of some attempts were bad. A part of a window may hold fractions of attempts."""

    bad: float = 0
    attempts: float = 0

    def plus(self, bad: float, attempts: float) -> Tally:
        """Return this and more."""
        return Tally(self.bad + bad, self.attempts + attempts)

    def latest(self, fraction: float) -> Tally:
        """Return what the last fraction of the time held at worst: all that was bad, as far as it fits."""
        attempts = self.attempts * fraction
        return Tally(min(self.bad, attempts), attempts)


def upper_rate(tally: Tally) -> float:
    """Return a rate that the true one exceeds with a probability of at most 1 %; 1 where nothing was observed.

    Chernoff's bound in the form of Hoeffding 1963: never too low for any number of attempts, exact for none bad.
    """
    if tally.attempts <= 0:
        return 1.0
    seen = min(1.0, tally.bad / tally.attempts)
    enough = -math.log(UNLIKELY) / tally.attempts
    low, high = seen, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if _divergence(seen, middle) > enough else (middle, high)
    return high


def upper_rank(attempts: int, q: float) -> int | None:
    """Return the rank (from 1) of an order statistic over the ``q``-quantile with 99 %, or None where there are too few."""
    rank = math.ceil(q * attempts + Z99 * math.sqrt(attempts * q * (1 - q)))
    return rank if 1 <= rank <= attempts else None


def fewest(q: float) -> int:
    """Return how many observations ``upper_rank`` needs at least."""
    return math.ceil(Z99**2 * q / (1 - q))


def is_surprising(tally: Tally, rate: float) -> bool:
    """Whether so many bad ones are seen by less than about 5 % of chance at this rate."""
    spread = math.sqrt(tally.attempts * rate * (1 - rate))
    return tally.bad > tally.attempts * rate + 1.645 * spread


def increments(canary: Tally, baseline: Tally, allowed: float, *, margin: float = 0.0) -> list[float]:
    """Return, for each place, the logarithm of the block's e-value.

    Its mean is at most 1 where the canary's mean rate is at most ``allowed``, and also where it is at most ``margin`` over
    the baseline's mean rate in the same block, because it is the smaller of two e-values. So what hits both alike is no
    evidence, however hard it hits, and a block without a baseline has none.
    """
    if canary.attempts <= 0 or allowed > MOST_ALLOWED:
        return NO_EVIDENCE
    allowed = max(allowed, 1e-6)
    rates = [allowed + (1 - allowed) * place for place in PLACES]
    return [min(log_ratio(canary, rate, allowed), _paired(canary, baseline, (rate, allowed, margin))) for rate in rates]


def log_ratio(tally: Tally, rate: float, other: float) -> float:
    """Return the logarithm of how many times likelier what was seen is at one rate than at another, both in (0, 1)."""
    good = tally.attempts - tally.bad
    return tally.bad * math.log(rate / other) + good * math.log((1 - rate) / (1 - other))


def _paired(canary: Tally, baseline: Tally, rates: tuple[float, float, float]) -> float:
    """Return the logarithm of an e-value against both having the same rate, whichever, but for a margin.

    With r for the pooled rate and v = r(1-r), the mean of the logarithm's exponential is at most
    exp(K/v * (canary's rate - baseline's rate)), K = attempts * (rate - r), as 1 + x <= e**x; the last term takes the
    margin off.
    """
    rate, usual, margin = rates
    pooled = (canary.attempts * rate + baseline.attempts * usual) / (canary.attempts + baseline.attempts)
    allowance = canary.attempts * (rate - pooled) * margin / (pooled * (1 - pooled))
    return log_ratio(canary, rate, pooled) + log_ratio(baseline, usual, pooled) - allowance


def _divergence(seen: float, rate: float) -> float:
    """Return the Kullback-Leibler divergence (nats) of two coins; ``rate`` is the greater one."""
    if rate >= 1:
        return math.inf if seen < 1 else 0.0
    heads = seen * math.log(seen / rate) if seen > 0 else 0.0
    tails = (1 - seen) * math.log((1 - seen) / (1 - rate)) if seen < 1 else 0.0
    return heads + tails


def log_sum(logs: Sequence[float]) -> float:
    """Return the logarithm of a sum, from logarithms."""
    top = max(logs)
    return top + math.log(sum([math.exp(each - top) for each in logs]))


class Evidence:
    """An e-process against "the canary is good", whenever it stopped being good.

    After each block R becomes (R + weight) * e-value (Shiryaev 1963, Roberts 1966). The weights are fixed in advance and
    sum to at most 1, so R over 1/alpha is at most alpha likely in a whole rollout; and a fault that begins late is measured
    from then on, not against the good past. One R for each place; logarithms are natural.
    """

    def __init__(self) -> None:
        self._logs = [FLOOR] * len(PLACES)
        self._blocks = self._steps = 0
        self._due = START_WEIGHT + self._block_weight()

    def begin_step(self) -> None:
        """Expect a fault to begin now more than at other times: the load has grown."""
        self._steps += 1
        self._due += STEPS_WEIGHT / (self._steps * (self._steps + 1))

    def level(self, block: Sequence[float]) -> float:
        """Return the logarithm of the evidence with a block that is not over; nothing is kept."""
        return min(CEILING, log_sum(self._multiplied(block)))

    def fold(self, block: Sequence[float]) -> bool:
        """Keep a block, and return whether it left more evidence than was put in for faults that begin with it."""
        put_in = math.log(self._due)
        self._logs = [min(CEILING, max(FLOOR, each)) for each in self._multiplied(block)]
        self._blocks += 1
        self._due = self._block_weight()
        return log_sum(self._logs) > put_in

    def state(self) -> dict[str, Any]:
        """Return what ``restore`` takes, as JSON."""
        return {"logs": list(self._logs), "blocks": self._blocks, "steps": self._steps, "due": self._due}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state. Raises KeyError, TypeError or ValueError for one that is none."""
        logs = [float(each) for each in state["logs"]]
        if len(logs) != len(PLACES):
            raise ValueError(f"evidence at {len(logs)} places, not {len(PLACES)}")
        blocks, steps, due = int(state["blocks"]), int(state["steps"]), float(state["due"])
        self._logs, self._blocks, self._steps, self._due = logs, blocks, steps, due

    def _multiplied(self, block: Sequence[float]) -> list[float]:
        share = math.log(self._due / len(PLACES))
        return [log_sum((kept, share)) + factor for kept, factor in zip(self._logs, block, strict=True)]

    def _block_weight(self) -> float:
        i = self._blocks + EVEN_BLOCKS
        return LATER_WEIGHT * EVEN_BLOCKS / (i * (i + 1))  # sums to LATER_WEIGHT over all blocks


class Acceptance:
    """Wald's other bound: a step is passed when what was seen is ``1/(1-power)`` times likelier of a good canary.

    A canary as bad as what is worth catching passes a step with a probability of at most ``1 - power``, however often it is
    looked at. Logarithms are natural.
    """

    def __init__(self, power: float) -> None:
        self.needed = -math.log(1 - power)
        self.value = 0.0

    def fold(self, block: float) -> None:
        """Keep a block. What was good long ago is worth no more than twice what is needed, to see what is bad now."""
        self.value = max(FLOOR, min(2 * self.needed, self.value + block))
