from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from autoscaling.simulation.baselines import Fixed
from autoscaling.simulation.calibration import CalibrationError, Fit, Measurement, Residual, fit
from autoscaling.simulation.latency import LatencyModel
from autoscaling.simulation.options import SimulationOptions
from autoscaling.simulation.run import Simulation
from autoscaling.simulation.trace import Trace

MODEL = LatencyModel(step_s=0.02, step_s_per_sequence=0.0005, prefill_s_per_token=0.0001, slots=16, startup_s=0.0)
OUTPUT = 32
SIZES = [(concurrency, prompt) for concurrency in (1, 2, 4, 8, 16) for prompt in (64, 512)]
FITTED = Fit(0.02, 0.0005, 0.0001, 0.004, (Residual(1, 64, 0.7, 0.71),))


def made(concurrency: int, prompt: int, *, noise: float = 0.0, request_s: float = 0.0) -> Measurement:
    """Return what clients out of step see of the model: others read their prompts while a request decodes."""
    random = np.random.default_rng(concurrency * prompt)
    others = concurrency - 1
    decode_s = (OUTPUT - 1) * (MODEL.step_s + MODEL.step_s_per_sequence * concurrency) + others * prompt * 0.0001
    first_s = (2 if others else 1) * MODEL.step_s + prompt * 0.0001 + (0.0 if others else request_s)
    spread = 1 + noise * random.standard_normal((2, 30))
    return Measurement(
        concurrency, prompt, OUTPUT, tuple(first_s * spread[0]), tuple(decode_s / (OUTPUT - 1) * np.maximum(0.1, spread[1]))
    )


@dataclass
class Asked:
    """A request of the closed loop."""

    client: int
    arrived_s: float


def simulated(concurrency: int, prompt: int, rounds: int = 4, turn_s: float = 0.002) -> Measurement:
    """Return what the simulator makes of clients that ask again ``turn_s`` after they were answered."""
    asked = [Asked(client, 0.007 * client) for client in range(concurrency)]
    answered: set[int] = set()
    while True:
        asked.sort(key=lambda each: each.arrived_s)
        arrivals = np.array([each.arrived_s for each in asked])
        counts = np.full(len(asked), prompt), np.full(len(asked), OUTPUT)
        run = Simulation(Trace("closed", arrivals, *counts, 1000.0), MODEL, SimulationOptions(max_replicas=1, sample_s=1000.0))
        run.play(Fixed(1))
        ended_s, first_s = np.array(run.requests.finished_s), np.array(run.requests.first_s)
        # The one that is answered first goes on first: what it asks then cannot change what was before.
        waiting = [(ended_s[i], i) for i in range(len(asked)) if id(asked[i]) not in answered]
        end_s, i = min(waiting)
        if sum(each.client == asked[i].client for each in asked) > rounds:
            break
        answered.add(id(asked[i]))
        asked.append(Asked(asked[i].client, end_s + turn_s))
    seen = [k for k in range(len(asked)) if id(asked[k]) in answered and asked[k].arrived_s > 0.2]
    ttft = tuple(float(first_s[k] - asked[k].arrived_s) for k in seen)
    gaps = tuple(float(ended_s[k] - first_s[k]) / (OUTPUT - 1) for k in seen)
    return Measurement(concurrency, prompt, OUTPUT, ttft, gaps)


def parameters(found: Fit) -> list[float]:
    return [found.step_s, found.step_s_per_sequence, found.prefill_s_per_token]


def test_exact_times_give_the_parameters_back() -> None:
    found = fit([made(*size, request_s=0.004) for size in SIZES])
    assert [*parameters(found), found.request_s] == pytest.approx([0.02, 0.0005, 0.0001, 0.004], rel=1e-6)
    assert found.worst_ratio == pytest.approx(1.0)


def test_noisy_times_give_nearly_the_parameters() -> None:
    found = fit([made(*size, noise=0.1, request_s=0.004) for size in SIZES])
    assert parameters(found) == pytest.approx([0.02, 0.0005, 0.0001], rel=0.1)
    assert found.worst_ratio == pytest.approx(1.0, abs=0.06)


def test_clients_of_the_simulator_give_its_parameters_back() -> None:
    found = fit([simulated(*size) for size in SIZES if size[0] <= 8])
    assert parameters(found) == pytest.approx([0.02, 0.0005, 0.0001], rel=0.03)
    assert found.worst_ratio == pytest.approx(1.0, abs=0.02)


def test_no_parameter_is_under_zero() -> None:
    faster = [replace(each, itl_s=tuple(s / each.concurrency**0.1 for s in each.itl_s)) for each in (made(*s) for s in SIZES)]
    found = fit(faster)
    assert min(*parameters(found), found.request_s) >= 0
    assert found.step_s_per_sequence == 0


def test_residuals_name_the_measurement_and_both_times() -> None:
    measured = [made(*size) for size in SIZES]
    odd = replace(measured[-1], itl_s=tuple(3 * seconds for seconds in measured[-1].itl_s))
    found = fit([*measured[:-1], odd])
    assert [(r.concurrency, r.prompt_tokens) for r in found.residuals] == SIZES
    assert found.residuals[-1].measured_s == pytest.approx(odd.e2e_s)
    assert found.worst_ratio == min(r.ratio for r in found.residuals) < 0.9


@pytest.mark.parametrize(
    ("measurements", "message"),
    [
        pytest.param([], "two values of concurrency or more; there is no measurement", id="none"),
        pytest.param([made(4, 64), made(4, 512)], "step_s_per_sequence needs two values of concurrency", id="one-concurrency"),
        pytest.param([made(1, 64), made(4, 64)], "prefill_s_per_token needs two values of prompt_tokens", id="one-prompt"),
        pytest.param([made(2, 64), made(4, 512)], "request_s needs measurements at concurrency 1", id="nobody-alone"),
        pytest.param([made(1, 64), made(65, 512)], "change together", id="not-crossed"),
    ],
)
def test_what_is_missing_is_named(measurements: list[Measurement], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        fit(measurements)


def test_answers_that_take_no_time_give_no_model() -> None:
    instant = [replace(each, itl_s=(0.0,) * 30) for each in (made(*size) for size in SIZES)]
    lengthened = [replace(each, ttft_s=(each.concurrency * each.prompt_tokens * 1e-4,) * 30) for each in instant]
    with pytest.raises(CalibrationError, match="measure longer answers"):
        fit(lengthened)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"concurrency": 0}, "at least 1", id="nobody"),
        pytest.param({"output_tokens": 1}, "at least 2", id="one-token"),
        pytest.param({"ttft_s": ()}, "one value of each request", id="no-request"),
        pytest.param({"itl_s": (0.1,)}, "one value of each request", id="unequal"),
        pytest.param({"ttft_s": (math.nan,) * 30}, "finite", id="not-a-number"),
    ],
)
def test_a_measurement_that_cannot_be_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        replace(made(1, 64), **change)  # type: ignore[arg-type]


def test_a_model_has_the_fit_and_what_was_given() -> None:
    model = FITTED.model(4096, 30.0)
    assert model == LatencyModel(0.02, 0.0005, 0.0001, slots=4096, max_batched_tokens=4096, startup_s=30.0)


def test_a_fit_survives_json() -> None:
    assert Fit.from_json(FITTED.to_json()) == FITTED


def test_a_fit_without_residuals_has_no_worst() -> None:
    assert replace(FITTED, residuals=()).worst_ratio == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("{", "not JSON", id="broken"),
        pytest.param("[]", "must be an object", id="list"),
        pytest.param("{}", "step_s must be a number of seconds, 0 or more; got None", id="missing"),
        pytest.param(FITTED.to_json().replace("0.0005", "-1"), "step_s_per_sequence .* got -1", id="negative"),
        pytest.param(FITTED.to_json().replace("0.0005", "true"), "step_s_per_sequence .* got True", id="boolean"),
        pytest.param(
            json.dumps({**json.loads(FITTED.to_json()), "residuals": [{"x": 1}]}), r"residuals\[0\] must be", id="residuals"
        ),
    ],
)
def test_a_broken_file_is_refused(text: str, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        Fit.from_json(text)
