"""Shapes: how much load there is at a time. A level is a number of users, or of requests per second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from loadtests.scenario import Shape, ShapeKind


@dataclass(frozen=True, slots=True)
class Stage:
    """A span of the run with one level."""

    begin_s: float
    end_s: float
    level: float


def level_at(shape: Shape, elapsed_s: float, duration_s: float) -> float:
    """Return the level at a time of the measured run; before it (while it warms up) that of its begin."""
    at_s = min(max(0.0, elapsed_s), duration_s)
    match shape.kind:
        case ShapeKind.SPIKE:
            begin_s, end_s = shape.spike_at * duration_s, (shape.spike_at + shape.spike_for) * duration_s
            return shape.peak if begin_s <= at_s < end_s else shape.level
        case ShapeKind.DIURNAL:
            period_s = shape.period or duration_s
            return shape.level + (shape.peak - shape.level) * (1 - math.cos(2 * math.pi * at_s / period_s)) / 2
        case ShapeKind.STEP | ShapeKind.RAMP:
            found = stages(shape, duration_s)
            return next((stage.level for stage in found if at_s < stage.end_s), found[-1].level)
        case _:
            return shape.level


def stages(shape: Shape, duration_s: float) -> tuple[Stage, ...]:
    """Return the spans in which the level stays the same and that last equally long; none where it never does."""
    levels = _levels(shape)
    if not levels:
        return ()
    ends = list(accumulate([duration_s / len(levels)] * len(levels), initial=0.0))
    return tuple(Stage(begin, end, level) for (begin, end), level in zip(pairwise(ends), levels, strict=True))


def stage_index(found: Sequence[Stage], elapsed_s: float) -> int | None:
    """Return which span a time falls into; None: none of them."""
    return next((number for number, stage in enumerate(found) if stage.begin_s <= elapsed_s < stage.end_s), None)


def _levels(shape: Shape) -> tuple[float, ...]:
    if shape.kind is ShapeKind.STEP:
        return shape.levels
    if shape.kind is not ShapeKind.RAMP:
        return ()
    width = (shape.peak - shape.level) / (shape.steps - 1)
    return tuple(shape.level + width * number for number in range(shape.steps))
