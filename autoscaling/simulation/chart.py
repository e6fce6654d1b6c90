"""Charts: numbers as places on a picture. The report's template draws them; nothing here knows of SVG but a path's letters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
WIDTH, HEIGHT = 560, 230
LEFT, RIGHT, TOP, BOTTOM = 66, 14, 12, 44  # the margins around the plot, in the picture's units
GAP = 5  # between what is drawn and its label
LETTER, LINE = 6.6, 14  # about a letter's width and a line's height at the template's font size
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
MOST_POINTS = 240  # a line has at most so many: about one for every two units of the picture


@dataclass(frozen=True)
class Tick:
    """One label of an axis, and where it stands."""

    at: float
    label: str


@dataclass(frozen=True)
class Axis:
    """A range of values; ``label`` names its unit."""

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]
    scale: float = 1.0  # values are divided by it to be shown

    def place(self, value: float, begin: float, end: float) -> float:
        """Return where a value stands between two places."""
        if self.high == self.low:  # a single sample
            return begin
        return begin + (end - begin) * (value - self.low) / (self.high - self.low)

    def marks(self, begin: float, end: float) -> tuple[Tick, ...]:
        """Return the labels along the axis."""
        return tuple(Tick(_round(self.place(at, begin, end)), _shown(at / self.scale)) for at in self.ticks)


@dataclass(frozen=True)
class Line:
    """A line as the path of an SVG; ``kind`` is its class in the style sheet."""

    path: str
    kind: str


@dataclass(frozen=True)
class Point:
    """A point with its label."""

    x: float
    y: float
    label: str
    label_x: float
    label_y: float
    kind: str


@dataclass(frozen=True)
class Chart:
    """All that the template needs to draw one picture."""

    key: str  # unique in a document
    title: str
    description: str  # for those who do not see it
    x: Axis
    y: Axis
    note: str = ""  # beside the title
    lines: tuple[Line, ...] = ()
    points: tuple[Point, ...] = ()

    @property
    def x_ticks(self) -> tuple[Tick, ...]:
        """Return the labels under the picture."""
        return self.x.marks(LEFT, WIDTH - RIGHT)

    @property
    def y_ticks(self) -> tuple[Tick, ...]:
        """Return the labels left of the picture."""
        return self.y.marks(HEIGHT - BOTTOM, TOP)


def axis(label: str, low: float, high: float, *, whole: bool = False, scale: float = 1.0) -> Axis:
    """Return an axis that begins and ends at a round number. ``whole``: between whole numbers there are no labels."""
    low, high = low / scale, high / scale
    if not high > low:
        high = low + 1.0
    step = _step((high - low) / 5)
    if whole:
        step = max(1.0, math.ceil(step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(number * step, 9) * scale for number in range(first, last + 1))
    return Axis(label, ticks[0], ticks[-1], ticks, scale)


def time_axis(duration_s: float) -> Axis:
    """Return an axis of seconds, labelled in the unit that fits; it ends where time does."""
    unit, scale = next((name, size) for name, size, least in TIME_UNITS if duration_s >= least)
    made = axis(f"time ({unit})", 0.0, duration_s, scale=scale)
    return Axis(made.label, 0.0, duration_s, tuple(at for at in made.ticks if at <= duration_s * (1 + 1e-9)), scale)


TIME_UNITS = (("h", 3600.0, 4 * 3600.0), ("min", 60.0, 600.0), ("s", 1.0, 0.0))


def thinned(times: Numbers, values: Numbers, of: Callable[[Numbers], float]) -> tuple[Numbers, Numbers]:
    """Return few enough points to draw: equal groups of neighbours, each at its first time with one number ``of`` it."""
    size = math.ceil(len(times) / MOST_POINTS)
    if size <= 1:
        return times, values
    begins = range(0, len(times), size)
    return times[::size], np.array([of(values[begin : begin + size]) for begin in begins])


def stairs(times: Numbers, values: Numbers, axes: tuple[Axis, Axis]) -> str:
    """Return the path of a value that holds until its next; where nothing changes there are no points."""
    parts: list[str] = []
    shown = None
    for x, y in _places(times, values, axes):
        if shown is None:
            parts.append(f"M{x} {y}")
        elif y != shown:
            parts.append(f"H{x}V{y}")
        shown = y
    if parts:
        parts.append(f"H{_round(axes[0].place(float(times[-1]), LEFT, WIDTH - RIGHT))}")
    return "".join(parts)


def curve(times: Numbers, values: Numbers, axes: tuple[Axis, Axis]) -> str:
    """Return the path through points."""
    return "".join(f"{'L' if index else 'M'}{x} {y}" for index, (x, y) in enumerate(_places(times, values, axes)))


def scatter(points: Sequence[tuple[float, float, str, str]], axes: tuple[Axis, Axis]) -> tuple[Point, ...]:
    """Return points (x, y, label, kind) with labels that cover neither each other nor a point."""
    places = list(_places(np.array([p[0] for p in points]), np.array([p[1] for p in points]), axes))
    taken = [(x - GAP, y - GAP, x + GAP, y + GAP) for x, y in places]
    made = []
    for (x, y), (_, _, label, kind) in zip(places, points, strict=True):
        box = next((each for each in _boxes(x, y, label) if not any(_overlap(each, other) for other in taken)), None)
        box = box or next(_boxes(x, y, label))
        taken.append(box)
        made.append(Point(x, y, label, _round(box[0]), _round(box[3] - 3.5), kind))
    return tuple(made)


Box = tuple[float, float, float, float]  # left, top, right, bottom


def _boxes(x: float, y: float, label: str) -> Iterator[Box]:
    """Yield where a label may stand, the best first: right or left of its point, then farther up and down."""
    width = len(label) * LETTER
    for rise in (0, -1, 1, -2, 2, -3, 3, -4, 4):
        top = y - LINE / 2 + rise * LINE
        for left in (x + GAP + 2, x - GAP - 2 - width):
            if left >= LEFT and left + width <= WIDTH - RIGHT / 2 and top >= 0 and top + LINE <= HEIGHT - BOTTOM:
                yield left, top, left + width, top + LINE
    yield x + GAP + 2, y - LINE / 2, x + GAP + 2 + width, y + LINE / 2


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _places(xs: Numbers, ys: Numbers, axes: tuple[Axis, Axis]) -> Iterator[tuple[float, float]]:
    for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
        yield _round(axes[0].place(x, LEFT, WIDTH - RIGHT)), _round(axes[1].place(y, HEIGHT - BOTTOM, TOP))


def _shown(value: float) -> str:
    """Return a label; long numbers would run into the axis' name."""
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:,.6g}"


def _step(least: float) -> float:
    """Return the smallest round number that is at least so great."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in STEPS if step * power >= least * (1 - 1e-9))


def _round(value: float) -> float:
    return round(value, 1) + 0.0  # no -0.0
