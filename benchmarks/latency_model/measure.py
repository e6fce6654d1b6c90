"""The closed-loop sweep: so many clients, of which each asks again as soon as it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from autoscaling.simulation.calibration import Measurement
from benchmarks.latency_model.client import Answer, Client, Prompts

SETTLE_S = 0.3  # the engine drops what is cut off at the end of a measurement within a few steps


@dataclass(frozen=True, slots=True)
class Sweep:
    """What is measured: every concurrency with every length of prompts."""

    concurrencies: Sequence[int] = (1, 2, 4, 8, 16)
    prompt_tokens: Sequence[int] = (64, 384)
    output_tokens: int = 32
    rounds: int = 3  # answers of each client that count


async def sweep(client: Client, prompts: Prompts, plan: Sweep) -> AsyncIterator[Measurement]:
    """Yield the measurements one by one, after a warm-up of the largest concurrency. Raises ServerError."""
    warm_up = Sweep((max(plan.concurrencies),), plan.prompt_tokens, min(8, plan.output_tokens), 1)
    await closed_loop(client, prompts, (max(plan.concurrencies), max(plan.prompt_tokens)), plan=warm_up)
    for concurrency in plan.concurrencies:
        for tokens in plan.prompt_tokens:
            answers = await closed_loop(client, prompts, (concurrency, tokens), plan=plan)
            yield measurement(concurrency, answers)


async def closed_loop(client: Client, prompts: Prompts, size: tuple[int, int], *, plan: Sweep) -> list[Answer]:
    """Return every client's answers but its first, which finds the others beginning too.

    ``size`` is the number of clients and the tokens of a prompt. All go on until the slowest has its answers, so that the
    load is the same for each. Raises ServerError.
    """
    concurrency, prompt_tokens = size
    answers: list[list[Answer]] = [[] for _ in range(concurrency)]
    done = asyncio.Event()

    async def ask_on(mine: list[Answer]) -> None:
        while True:
            mine.append(await client.chat(prompts.of(prompt_tokens), plan.output_tokens))
            if all(len(theirs) > plan.rounds for theirs in answers):
                done.set()

    clients = [asyncio.create_task(ask_on(mine)) for mine in answers]
    finished = asyncio.create_task(done.wait())
    try:
        await asyncio.wait([*clients, finished], return_when=asyncio.FIRST_COMPLETED)
        for task in clients:
            if task.done():  # only by an error
                await task
    finally:
        for each in (*clients, finished):
            each.cancel()
        await asyncio.gather(*clients, finished, return_exceptions=True)
    await asyncio.sleep(SETTLE_S)
    return [answer for mine in answers for answer in mine[1:]]


def measurement(concurrency: int, answers: Sequence[Answer]) -> Measurement:
    """Return what the answers measured; lengths are their means, as the server counted them."""
    return Measurement(
        concurrency=concurrency,
        prompt_tokens=round(fmean(answer.prompt_tokens for answer in answers)),
        output_tokens=round(fmean(answer.output_tokens for answer in answers)),
        ttft_s=tuple(answer.ttft_s for answer in answers),
        itl_s=tuple(answer.itl_s for answer in answers),
    )


def capacity(measurements: Sequence[Measurement]) -> float:
    """Return the requests per second at the largest concurrency, over all lengths of prompts."""
    most = max(each.concurrency for each in measurements)
    return most / fmean(each.e2e_s for each in measurements if each.concurrency == most)
