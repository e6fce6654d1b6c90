"""Calibration: a replica's LatencyModel from measurements of a real one."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import combinations
from statistics import fmean
from typing import TypeGuard

import numpy as np
import numpy.typing as npt

from autoscaling.simulation.latency import LatencyModel

Array = npt.NDArray[np.float64]
SHORTEST_STEP_S = 1e-6  # below this, it is rounding
MAX_BATCHED_TOKENS = 2048  # vLLM's own default for servers


class CalibrationError(ValueError):
    """The measurements, or a file of a fit, do not determine a model; says what is missing."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """Requests of one size, sent by so many clients of which each asks again as soon as it is answered.

    Raises CalibrationError when a number is out of its range.
    """

    concurrency: int
    prompt_tokens: int
    output_tokens: int
    ttft_s: tuple[float, ...]  # of each request, until its first token
    itl_s: tuple[float, ...]  # of each request, mean time between its tokens

    def __post_init__(self) -> None:
        where = f"measurement at concurrency {self.concurrency}, prompts of {self.prompt_tokens} tokens"
        if self.concurrency < 1 or self.prompt_tokens < 1:
            raise CalibrationError(f"{where}: both must be at least 1")
        if self.output_tokens < 2:
            raise CalibrationError(f"{where}: output_tokens must be at least 2, or there is no time between tokens")
        if not self.ttft_s or len(self.ttft_s) != len(self.itl_s):
            raise CalibrationError(f"{where}: ttft_s and itl_s must have one value of each request, and at least one")
        if not all(math.isfinite(seconds) and seconds >= 0 for seconds in (*self.ttft_s, *self.itl_s)) or not self.e2e_s:
            raise CalibrationError(f"{where}: times must be finite, not negative, and not all 0")

    @property
    def e2e_s(self) -> float:
        """Mean seconds of a whole answer."""
        return fmean(self.ttft_s) + (self.output_tokens - 1) * fmean(self.itl_s)


@dataclass(frozen=True, slots=True)
class Residual:
    """How far the model is off one measurement: mean seconds of a whole answer."""

    concurrency: int
    prompt_tokens: int
    measured_s: float
    fitted_s: float

    @property
    def ratio(self) -> float:
        """Fitted over measured."""
        return self.fitted_s / self.measured_s


@dataclass(frozen=True, slots=True)
class Fit:
    """What the measurements say of an engine's steps. Seconds throughout."""

    step_s: float
    step_s_per_sequence: float
    prefill_s_per_token: float
    request_s: float  # that a lone request takes besides its steps: HTTP, tokenizing, templates; no part of the model
    residuals: tuple[Residual, ...] = ()

    @property
    def worst_ratio(self) -> float:
        """Fitted over measured where they are furthest apart; 1 where there are no residuals."""
        return max((residual.ratio for residual in self.residuals), key=lambda ratio: abs(math.log(ratio)), default=1.0)

    def model(self, slots: int, startup_s: float, *, max_batched_tokens: int = MAX_BATCHED_TOKENS) -> LatencyModel:
        """Return the model of a replica with so many slots. Raises ValueError, as LatencyModel does."""
        return LatencyModel(
            step_s=self.step_s,
            step_s_per_sequence=self.step_s_per_sequence,
            prefill_s_per_token=self.prefill_s_per_token,
            slots=slots,
            max_batched_tokens=max(max_batched_tokens, slots),
            startup_s=startup_s,
        )

    def to_json(self) -> str:
        """Return the fit as a JSON document."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Fit:
        """Return the fit that ``to_json`` wrote. Raises CalibrationError that names the field at fault."""
        try:
            document = json.loads(text)
        except ValueError as err:
            raise CalibrationError(f"not JSON: {err}") from err
        if not isinstance(document, dict):
            raise CalibrationError("must be an object, as `python -m benchmarks.latency_model --out` writes it")
        numbers = {field.name: _number(document, field.name) for field in fields(cls) if field.name != "residuals"}
        return cls(**numbers, residuals=tuple(_residuals(document.get("residuals", []))))


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(document: dict[str, object], name: str) -> float:
    value = document.get(name)
    if not _is_number(value) or value < 0:
        raise CalibrationError(f"{name} must be a number of seconds, 0 or more; got {value!r}")
    return float(value)


def _residuals(listed: object) -> Iterator[Residual]:
    names = [field.name for field in fields(Residual)]
    if not isinstance(listed, list):
        raise CalibrationError(f"residuals must be a list of objects, or left out; got {listed!r:.80}")
    for place, each in enumerate(listed):
        if not isinstance(each, dict) or set(each) != set(names):
            raise CalibrationError(f"residuals[{place}] must be an object of {', '.join(names)}; got {each!r:.80}")
        for name in names:
            if not _is_number(each[name]) or each[name] <= 0:
                raise CalibrationError(f"residuals[{place}].{name} must be a number over 0; got {each[name]!r:.80}")
        yield Residual(**each)


def fit(measurements: Sequence[Measurement]) -> Fit:
    """Return the model that explains the measurements best: least squares of relative errors, nothing under 0.

    Raises CalibrationError when they leave a parameter open.

    With c clients and answers of o tokens, every request sees o steps: one that reads its prompt and o - 1 that decode.
    Whether the clients come to run in step or not, the others' decoding adds up to c (o - 1) sequences over a request's
    life, and the reading to c prompts, so the whole answer's time is fitted: how it divides into TTFT and ITL depends on
    that chance. A client that asks again finds the next step begun already by the others and waits for it: one step more.
    """
    _check(measurements)
    rows, seconds = _equations(measurements)
    solved = _non_negative(rows / seconds[:, None], np.ones(len(seconds)))
    if solved[0] < SHORTEST_STEP_S:
        raise CalibrationError("the fit gives no step_s: times do not grow with output_tokens; measure longer answers")
    residuals = (
        Residual(each.concurrency, each.prompt_tokens, each.e2e_s, float(np.dot(_whole(each), solved))) for each in measurements
    )
    step_s, step_s_per_sequence, prefill_s_per_token, request_s = solved.tolist()
    return Fit(step_s, step_s_per_sequence, prefill_s_per_token, request_s, residuals=tuple(residuals))


def _check(measurements: Sequence[Measurement]) -> None:
    for name, values, lacks in (
        ("concurrency", {each.concurrency for each in measurements}, "step_s_per_sequence"),
        ("prompt_tokens", {each.prompt_tokens for each in measurements}, "prefill_s_per_token"),
    ):
        if len(values) < 2:
            seen = f"only {values.pop()}" if values else "no measurement"
            raise CalibrationError(f"{lacks} needs two values of {name} or more; there is {seen}")
    if min(each.concurrency for each in measurements) > 1:
        raise CalibrationError("request_s needs measurements at concurrency 1; there are none")


def _equations(measurements: Sequence[Measurement]) -> tuple[Array, Array]:
    """Return coefficients of step_s, step_s_per_sequence, prefill_s_per_token and request_s, and the seconds they add up to."""
    rows, seconds = [], []
    for each in measurements:
        rows.append(_whole(each))
        seconds.append(each.e2e_s)
        if each.concurrency == 1 and fmean(each.itl_s) > 0 and fmean(each.ttft_s) > 0:  # nobody else's prompt is read
            rows += [(1.0, 1.0, 0.0, 0.0), (1.0, 0.0, float(each.prompt_tokens), 1.0)]
            seconds += [fmean(each.itl_s), fmean(each.ttft_s)]
    matrix = np.array(rows, dtype=float)
    scaled = matrix / np.linalg.norm(matrix, axis=0)
    if np.linalg.matrix_rank(scaled, tol=1e-6) < matrix.shape[1]:
        raise CalibrationError("concurrency and prompt_tokens change together; measure each prompt at several concurrencies")
    return matrix, np.array(seconds)


def _whole(each: Measurement) -> tuple[float, float, float, float]:
    """Return the coefficients of a whole answer's seconds."""
    others = each.concurrency > 1
    steps = each.output_tokens + (1 if others else 0)
    decoded = each.concurrency * (each.output_tokens - 1)
    # Where others run, a request's way through HTTP falls into the step that it waits for.
    return float(steps), float(decoded), float(each.concurrency * each.prompt_tokens), 0.0 if others else 1.0


def _non_negative(rows: Array, values: Array) -> Array:
    """Return the least squares solution without negative parts: of so few unknowns, every set of them is tried."""
    best, best_error = np.zeros(rows.shape[1]), math.inf
    for size in range(1, rows.shape[1] + 1):
        for chosen in combinations(range(rows.shape[1]), size):
            solved = np.zeros(rows.shape[1])
            solved[list(chosen)] = np.linalg.lstsq(rows[:, chosen], values, rcond=None)[0]
            error = float(np.sum((rows @ solved - values) ** 2))
            if (solved >= 0).all() and error < best_error:
                best, best_error = solved, error
    return best
