"""Traces by name, as a command line gives them: `step`, or `step:at_s=60,factor=4`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from autoscaling.simulation.names import numbers, split
from autoscaling.simulation.trace import FIRST, Draw, Trace, bursty, diurnal, poisson, spike, step


@dataclass(frozen=True)
class Request:
    """What is asked for: requests per second, seconds, and the options of the kind."""

    rate: float
    duration_s: float
    options: Mapping[str, float]
    draw: Draw


@dataclass(frozen=True)
class Recipe:
    """How to make one kind of trace, and its options where nothing is said of them, from rate and duration in seconds."""

    make: Callable[[Request], Trace]
    defaults: Callable[[float, float], Mapping[str, float]] = lambda _rate, _duration_s: {}


def _poisson(asked: Request) -> Trace:
    return poisson(asked.rate, asked.duration_s, draw=asked.draw)


def _step(asked: Request) -> Trace:
    at_s, factor = asked.options["at_s"], asked.options["factor"]
    return step(asked.rate, asked.duration_s, at_s, factor=factor, draw=asked.draw)


def _spike(asked: Request) -> Trace:
    at_s, factor = asked.options["at_s"], asked.options["factor"]
    during = (at_s, at_s + asked.options["spike_s"])
    return spike(asked.rate, asked.duration_s, during, factor=factor, draw=asked.draw)


def _diurnal(asked: Request) -> Trace:
    high, period_s = asked.options["high"], asked.options["period_s"]
    return diurnal(asked.rate, high, asked.duration_s, period_s=period_s, draw=asked.draw)


def _bursty(asked: Request) -> Trace:
    return bursty(asked.rate, asked.duration_s, cv=asked.options["cv"], draw=asked.draw)


RECIPES: Mapping[str, Recipe] = {
    "poisson": Recipe(_poisson),
    "step": Recipe(_step, lambda _, duration_s: {"at_s": duration_s / 4, "factor": 10.0}),
    "spike": Recipe(_spike, lambda _, duration_s: {"at_s": duration_s / 4, "factor": 10.0, "spike_s": duration_s / 10}),
    "diurnal": Recipe(_diurnal, lambda rate, duration_s: {"high": 10 * rate, "period_s": duration_s / 2}),
    "bursty": Recipe(_bursty, lambda _rate, _duration_s: {"cv": 3.0}),
}


def by_name(text: str, rate: float, duration_s: float, *, draw: Draw = FIRST) -> Trace:
    """Return the trace that a text names.

    Args:
        text: a name of :data:`RECIPES`, and after a colon options as ``name=number``, separated by commas.
        rate: requests per second; of `step` and `spike` before they rise, of `diurnal` the lowest.
        duration_s: seconds that it lasts.
        draw: seed and lengths.

    Raises:
        ValueError: an unknown name or option, or a number out of range; says what to write instead.
    """
    name, rest = split(text, RECIPES, "trace")
    recipe = RECIPES[name]
    options = numbers(name, rest, recipe.defaults(rate, duration_s))
    return recipe.make(Request(rate, duration_s, options, draw))
