"""Timeline: how every variant stood in the last minutes, as a Router's directory had it. Nothing in it outlives the Router."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from serve_app.contracts import ReplicaState
from serve_app.gateway import Gateway

logger = logging.getLogger("ray.serve")

EVERY_S = 5
KEPT_S = 15 * 60
VariantKey = tuple[str, str]  # (model, variant)


class Figures(NamedTuple):
    """One variant at one time."""

    weight: int  # percent of conversations, in force
    ready: int  # replicas
    queue_depth: int  # requests that wait: in engines, or in this Router
    running: int  # requests that engines work on


class Sample(NamedTuple):
    """All variants at one time."""

    at_s: int  # of the wall clock, a multiple of EVERY_S: so those of several Routers lie side by side
    figures: Mapping[VariantKey, Figures]


class Timeline:
    """The newest samples, no more than ``KEPT_S`` seconds of them."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=KEPT_S // EVERY_S)

    def add(self, figures: Mapping[VariantKey, Figures], *, now_s: float) -> None:
        """Keep figures; they replace those of the same time, and of a later one that a clock which was set back leaves."""
        at_s = int(now_s // EVERY_S) * EVERY_S
        while self._samples and self._samples[-1].at_s >= at_s:
            self._samples.pop()
        self._samples.append(Sample(at_s, figures))

    def report(self, *, now_s: float) -> dict[str, Any]:
        """Return what is not too old, as JSON: one list of times, and lists as long for each variant's figures.

        A figure is null where the variant was not declared at that time.
        """
        samples = [sample for sample in self._samples if sample.at_s > now_s - KEPT_S]
        keys = sorted({key for sample in samples for key in sample.figures})
        return {
            "every_s": EVERY_S,
            "kept_s": KEPT_S,
            "times": [sample.at_s for sample in samples],
            "series": [_series(key, [sample.figures.get(key) for sample in samples]) for key in keys],
        }


def _series(key: VariantKey, found: list[Figures | None]) -> dict[str, Any]:
    model, variant = key
    lists = {name: [each and each[index] for each in found] for index, name in enumerate(Figures._fields)}
    return {"model": model, "variant": variant, **lists}


def figures_now(gateway: Gateway) -> dict[VariantKey, Figures]:
    """Return how every declared variant of a model stands."""
    ready: Counter[VariantKey] = Counter()
    running: Counter[VariantKey] = Counter()
    waiting: Counter[VariantKey] = Counter(gateway.pool.held())
    for entry in gateway.pool.entries():
        key = entry.model, entry.variant
        ready[key] += entry.state is ReplicaState.READY
        waiting[key] += entry.load.waiting
        running[key] += entry.load.running
    view = gateway.view
    return {
        key: Figures(weight, ready[key], waiting[key], running[key])
        for model in view.models
        for variant, weight in view.split(model).weights.items()
        for key in [(model, variant)]
    }


async def keep_sampling(timeline: Timeline, gateway: Gateway, *, wall: Callable[[], float] = time.time) -> None:
    """Add a sample every ``EVERY_S`` seconds, for ever; one that fails is left out, since no request hangs on it."""
    while True:
        await asyncio.sleep(EVERY_S - wall() % EVERY_S)
        try:
            timeline.add(figures_now(gateway), now_s=wall())
        except Exception:
            logger.exception("a sample of the timeline failed")
