"""Traces: when requests arrive and how long they are, made from a seed.

What is known of real traffic, and where from:

- BurstGPT (arXiv:2401.17644; requests to a region of Azure OpenAI) models arrivals as a Gamma process whose burstiness
  changes over time. :func:`bursty` is such a process with one burstiness.
- Azure's LLM inference traces (github.com/Azure/AzurePublicDataset; 2023: Splitwise, arXiv:2311.18677; 2024: DynamoLLM,
  arXiv:2408.00741) give arrival times and token counts. :mod:`autoscaling.simulation.trace_csv` reads both sets.
- A third party's tally of the 19,366 conversations of Azure's 2023 trace with 6,221 of BurstGPT's finds medians of 968
  prompt and 135 output tokens, and 5.47 prompt tokens for an output token in Azure's. The 8,819 requests of Azure's code
  trace have medians of 1,469 and 13. :data:`CONVERSATION` and :data:`CODE` keep these medians; their means are ours,
  chosen to agree with those ratios, as is the log-normal shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
DAY_S = 86_400.0
LONGEST_S = 31 * DAY_S  # a simulation decides every second, so what lasts for years never ends
MOST_REQUESTS = 20_000_000  # what a desktop's memory holds several times over


def _need_positive(name: str, value: float) -> None:
    _need(math.isfinite(value) and value > 0, name, value, words="a positive number")


def _need(holds: bool, name: str, value: float, *, words: str) -> None:
    """Raise ValueError unless a condition holds."""
    if not holds:
        raise ValueError(f"{name} must be {words}; got {value:g}")


@dataclass(frozen=True, eq=False)  # arrays have no single answer to ==
class Trace:
    """Requests in the order of their arrival. Raises ValueError when the arrays do not fit together.

    Attributes:
        name: what tables and plots call it.
        arrivals_s: seconds since the trace began, never falling.
        prompt_tokens: tokens of each prompt, at least 1.
        output_tokens: tokens of each answer, at least 1.
        duration_s: seconds that the trace lasts; no request arrives later.
    """

    name: str
    arrivals_s: Times
    prompt_tokens: Counts
    output_tokens: Counts
    duration_s: float

    def __post_init__(self) -> None:
        size = len(self.arrivals_s)
        if {self.prompt_tokens.shape, self.output_tokens.shape, self.arrivals_s.shape} != {(size,)}:
            raise ValueError("arrivals_s, prompt_tokens and output_tokens must be flat arrays of one length")
        _need(math.isfinite(self.duration_s) and self.duration_s > 0, "duration_s", self.duration_s, words="a positive number")
        if size:
            self._check_values()

    def _check_values(self) -> None:
        if not np.isfinite(self.arrivals_s).all() or (np.diff(self.arrivals_s) < 0).any():
            raise ValueError("arrivals_s must be finite and sorted; sort the requests by arrival")
        first, last = float(self.arrivals_s[0]), float(self.arrivals_s[-1])
        _need(first >= 0, "arrivals_s", first, words="0 or more: it counts from the trace's begin")
        _need(last <= self.duration_s, "arrivals_s", last, words=f"at most duration_s, {self.duration_s:g}")
        for name, tokens in (("prompt_tokens", self.prompt_tokens), ("output_tokens", self.output_tokens)):
            _need(int(tokens.min()) >= 1, name, int(tokens.min()), words="at least 1 in every request")

    def __len__(self) -> int:
        return len(self.arrivals_s)

    @property
    def rate(self) -> float:
        """Return the mean number of requests per second."""
        return len(self) / self.duration_s

    def cut(self, duration_s: float) -> Trace:
        """Return the first ``duration_s`` seconds, or all where the trace is shorter."""
        if duration_s >= self.duration_s:
            return self
        count = int(np.searchsorted(self.arrivals_s, duration_s, side="right"))
        return Trace(self.name, self.arrivals_s[:count], self.prompt_tokens[:count], self.output_tokens[:count], duration_s)

    def at_rate(self, rate: float) -> Trace:
        """Return the same requests with time stretched so that ``rate`` arrive per second. Raises ValueError."""
        _need_positive("rate", rate)
        stretch = self.rate / rate
        duration_s = self.duration_s * stretch
        arrivals_s = np.minimum(self.arrivals_s * stretch, duration_s)  # the last may round past the end
        return Trace(self.name, arrivals_s, self.prompt_tokens, self.output_tokens, duration_s)


@dataclass(frozen=True)
class LengthModel:
    """Lengths of prompts and answers: log-normal, from 1 token to a cap. Raises ValueError when a mean is under its median.

    Caps pull the means that come out a little under those that are given.
    """

    prompt_median: float = 968.0
    prompt_mean: float = 1150.0
    output_median: float = 135.0
    output_mean: float = 210.0
    max_prompt_tokens: int = 4096  # near which the longest of Azure's 2023 conversations crowd
    max_output_tokens: int = 1024

    def __post_init__(self) -> None:
        for kind in ("prompt", "output"):
            median, mean, cap = (getattr(self, name) for name in (f"{kind}_median", f"{kind}_mean", f"max_{kind}_tokens"))
            _need(median >= 1, f"{kind}_median", median, words="at least 1 token")
            _need(mean >= median, f"{kind}_mean", mean, words=f"at least {kind}_median, {median:g}, as a log-normal has it")
            _need(cap >= median, f"max_{kind}_tokens", cap, words=f"at least {kind}_median, {median:g}")

    def draw(self, count: int, random: np.random.Generator) -> tuple[Counts, Counts]:
        """Return the prompt and output tokens of so many requests."""
        prompts = _log_normal(self.prompt_median, self.prompt_mean, random.standard_normal(count))
        outputs = _log_normal(self.output_median, self.output_mean, random.standard_normal(count))
        return _tokens(prompts, self.max_prompt_tokens), _tokens(outputs, self.max_output_tokens)


CONVERSATION = LengthModel()
CODE = LengthModel(
    prompt_median=1469.0,
    prompt_mean=2050.0,
    output_median=13.0,
    output_mean=28.0,
    max_prompt_tokens=8192,
    max_output_tokens=512,
)


@dataclass(frozen=True)
class Draw:
    """What chance brings: a seed, and the lengths of requests. The same draw makes the same trace."""

    seed: int = 0
    lengths: LengthModel = CONVERSATION


FIRST = Draw()


def poisson(rate: float, duration_s: float, *, draw: Draw = FIRST) -> Trace:
    """Return ``rate`` independent requests per second. Raises ValueError, as its neighbours do: a number is out of range."""
    return _thinned("poisson", duration_s, rate, of=lambda at_s: np.full_like(at_s, rate), draw=draw)


def step(rate: float, duration_s: float, at_s: float, *, factor: float = 10.0, draw: Draw = FIRST) -> Trace:
    """Return Poisson arrivals whose rate becomes ``factor`` times as high at second ``at_s``, and stays so."""
    return replace(spike(rate, duration_s, (at_s, math.inf), factor=factor, draw=draw), name="step")


def spike(rate: float, duration_s: float, during: tuple[float, float], *, factor: float = 10.0, draw: Draw = FIRST) -> Trace:
    """Return Poisson arrivals whose rate is ``factor`` times as high from one second to another, given as ``during``."""
    begin_s, end_s = during
    _check(rate, duration_s)
    _need_positive("factor", factor)
    _need(0 <= begin_s < duration_s, "at_s", begin_s, words=f"from 0 to under the duration, {duration_s:g} s")
    _need(end_s > begin_s, "spike_s", end_s - begin_s, words="a positive number")

    def rate_at(at_s: Times) -> Times:
        return np.where((at_s >= begin_s) & (at_s < end_s), rate * factor, rate)

    return _thinned("spike", duration_s, rate * max(1.0, factor), of=rate_at, draw=draw)


def diurnal(low: float, high: float, duration_s: float, *, period_s: float, draw: Draw = FIRST) -> Trace:
    """Return Poisson arrivals whose rate goes as a cosine from ``low`` to ``high`` and back in each ``period_s`` seconds."""
    _need_positive("low", low)
    _need_positive("period_s", period_s)
    _need(high >= low, "high", high, words=f"at least low, {low:g}")

    def rate_at(at_s: Times) -> Times:
        return low + (high - low) * (1 - np.cos(2 * np.pi * at_s / period_s)) / 2

    return _thinned("diurnal", duration_s, high, of=rate_at, draw=draw)


def bursty(rate: float, duration_s: float, *, cv: float = 3.0, draw: Draw = FIRST) -> Trace:
    """Return a Gamma renewal process: ``cv`` is the standard deviation of the times between requests over their mean.

    At 1 it is a Poisson process; above 1 requests come in bursts, with silence between them.
    """
    _check(rate, duration_s)
    _need_positive("cv", cv)
    random = np.random.default_rng(draw.seed)
    shape = 1 / cv**2
    batch = max(64, int(rate * duration_s * 1.1))
    arrivals_s = np.zeros(0)
    while len(arrivals_s) == 0 or arrivals_s[-1] <= duration_s:
        gaps = random.gamma(shape, 1 / (rate * shape), size=batch)
        arrivals_s = np.concatenate([arrivals_s, np.cumsum(gaps) + (arrivals_s[-1] if len(arrivals_s) else 0.0)])
    return _made("bursty", arrivals_s[arrivals_s <= duration_s], duration_s, random=random, draw=draw)


def _thinned(name: str, duration_s: float, peak: float, *, of: Callable[[Times], Times], draw: Draw) -> Trace:
    """Return arrivals whose rate varies: draw them at the peak's rate, keep each with the share of its own moment."""
    _check(peak, duration_s)
    random = np.random.default_rng(draw.seed)
    at_s = np.sort(random.uniform(0.0, duration_s, size=random.poisson(peak * duration_s)))
    kept = at_s[random.uniform(0.0, peak, size=len(at_s)) < of(at_s)]
    return _made(name, kept, duration_s, random=random, draw=draw)


def _made(name: str, arrivals_s: Times, duration_s: float, *, random: np.random.Generator, draw: Draw) -> Trace:
    prompts, outputs = draw.lengths.draw(len(arrivals_s), random)
    return Trace(name, arrivals_s, prompts, outputs, float(duration_s))


def _log_normal(median: float, mean: float, normal: Times) -> Times:
    """Return a normal variable as a log-normal one: its mean is its median times exp(sigma^2 / 2)."""
    sigma = math.sqrt(2 * math.log(mean / median))
    return median * np.exp(sigma * normal)


def _tokens(lengths: Times, cap: int) -> Counts:
    return np.clip(np.rint(lengths), 1, cap).astype(np.int64)


def _check(rate: float, duration_s: float) -> None:
    _need_positive("rate", rate)
    _need_positive("duration_s", duration_s)
    if rate * duration_s > MOST_REQUESTS:
        raise ValueError(f"rate x duration_s must be at most {MOST_REQUESTS:g} requests; got {rate * duration_s:.3g}")
