"""Open-loop load that the fit has not seen, and what the simulator predicts for the very same requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from autoscaling.simulation.baselines import Fixed
from autoscaling.simulation.calibration import Fit
from autoscaling.simulation.latency import LatencyModel
from autoscaling.simulation.options import SimulationOptions
from autoscaling.simulation.run import Simulation
from autoscaling.simulation.trace import Trace
from benchmarks.latency_model.client import Answer, Client, Prompts

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Poisson arrivals; lengths are drawn evenly from a range each."""

    rate: float  # requests per second
    seconds: float
    prompt_tokens: tuple[int, int]
    output_tokens: tuple[int, int]
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of every request, in one order."""

    ttft: tuple[float, ...]
    itl: tuple[float, ...]
    e2e: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One percentile of one time: seconds predicted and measured."""

    what: str
    percentile: int
    predicted_s: float
    measured_s: float

    @property
    def ratio(self) -> float:
        """Predicted over measured."""
        return self.predicted_s / self.measured_s if self.measured_s else float("nan")


async def open_loop(client: Client, prompts: Prompts, load: OpenLoop) -> list[Answer]:
    """Return the answers in the order of sending; each was sent when it was due. Raises ServerError."""
    try:
        return await _open_loop(client, prompts, load)
    except ExceptionGroup as group:
        raise group.exceptions[0] from group


async def _open_loop(client: Client, prompts: Prompts, load: OpenLoop) -> list[Answer]:
    random = Random(load.seed)  # noqa: S311 - chance that can be repeated
    begun_s = time.monotonic()
    due_s = random.expovariate(load.rate)
    async with asyncio.TaskGroup() as group:
        tasks = []
        while due_s < load.seconds:
            prompt, tokens = prompts.of(random.randint(*load.prompt_tokens)), random.randint(*load.output_tokens)
            await asyncio.sleep(max(0.0, begun_s + due_s - time.monotonic()))
            tasks.append(group.create_task(client.chat(prompt, tokens)))
            due_s += random.expovariate(load.rate)
    return sorted((task.result() for task in tasks), key=lambda answer: answer.sent_s)


def predict(answers: Sequence[Answer], fit: Fit, slots: int) -> Times:
    """Return what one replica would do with these requests, sent at the same times."""
    return simulated(answers, fit.model(slots, 0.0), request_s=fit.request_s)


def simulated(answers: Sequence[Answer], model: LatencyModel, *, request_s: float) -> Times:
    """Return the times of the same requests on the simulator; each reaches the engine ``request_s`` after it was sent."""
    sent_s = np.array([answer.sent_s - answers[0].sent_s for answer in answers])
    arrivals_s = sent_s + request_s
    prompts, outputs = (np.array(counts) for counts in zip(*((a.prompt_tokens, a.output_tokens) for a in answers), strict=True))
    trace = Trace("validation", arrivals_s, prompts, outputs, float(arrivals_s[-1]) + 1.0)
    run = Simulation(trace, model, SimulationOptions(max_replicas=1, max_leases=len(answers), sample_s=trace.duration_s))
    run.play(Fixed(1))
    first_s, finished_s = np.array(run.requests.first_s), np.array(run.requests.finished_s)
    gaps = (finished_s - first_s) / np.maximum(1, outputs - 1)
    return Times(tuple(first_s - sent_s), tuple(gaps), tuple(finished_s - sent_s))


def measured(answers: Sequence[Answer]) -> Times:
    """Return the times that clients saw."""
    ttft, itl, e2e = zip(*((answer.ttft_s, answer.itl_s, answer.e2e_s) for answer in answers), strict=True)
    return Times(ttft, itl, e2e)


def compare(predicted: Times, seen: Times) -> list[Row]:
    """Return the rows of the table."""
    return [
        Row(what, percentile, *(float(np.percentile(values, percentile)) for values in pair))
        for what, pair in {
            "TTFT": (predicted.ttft, seen.ttft),
            "ITL": (predicted.itl, seen.itl),
            "whole answer": (predicted.e2e, seen.e2e),
        }.items()
        for percentile in PERCENTILES
    ]
