"""A run as pictures: one row for each system, one panel for each load, written by hand as SVG. Pure.

Each picture brings its own background, light or dark as the reader's system has it, so that its text is readable on
any page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from benchmarks.data_path.gates import MANTA
from benchmarks.data_path.summary import BARE, Cell, Spread, Summary

WIDTH, NAMES, FIGURES, MARGIN = 860, 190, 100, 24
LEFT, RIGHT = NAMES, WIDTH - FIGURES - MARGIN
ROW, BAR, HEAD, PANEL_HEAD, TICKS, AXIS = 28, 14, 70, 32, 26, 24
STEPS = [float(f"{factor}e{power}") for power in range(-4, 9) for factor in (1, 2, 5)]  # where a log axis may begin or end
MOST_TICKS = 9
STYLE = """
  .paper { fill: #ffffff; stroke: #d0d7de }
  text { font: 14px system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; fill: #1f2328 }
  .title { font-size: 17px; font-weight: 600 }
  .quiet { fill: #59636e; font-size: 13px }
  .load, .strong { font-weight: 600 }
  .figure { font-variant-numeric: tabular-nums }
  .grid { stroke: #d0d7de; stroke-width: 1 }
  .spread { stroke: #1f2328; stroke-width: 1.5; fill: none }
  .mark { fill: #8b96a2 }
  .mark.manta { fill: #0d9488 }
  .mark.bare { fill: #c3ccd5 }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117; stroke: #30363d }
    text { fill: #e6edf3 }
    .quiet { fill: #9198a1 }
    .grid { stroke: #30363d }
    .spread { stroke: #e6edf3 }
    .mark { fill: #6b7683 }
    .mark.bare { fill: #444c56 }
  }
"""


@dataclass(frozen=True, slots=True)
class Picture:
    """Which figure to draw, and how to say what it is."""

    name: str  # of the file
    title: str
    axis: str
    figure: str
    shape: Literal["traffic", "held"]  # which loads
    scale: Literal["linear", "log"] = "linear"
    note: str = "Median of the rounds; the line spans all of them."


PICTURES = (
    Picture("throughput", "Tokens streamed", "tokens/s (more is better)", "tokens_per_s", "traffic"),
    Picture("ttft", "Time to first token, median request", "ms, log scale (less is better)", "ttft_p50_ms", "traffic", "log"),
    Picture("cpu", "CPU of routers and proxies", "µs/token, log scale (less is better)", "cpu_per_token_us", "traffic", "log"),
    Picture("streams", "Gap between tokens while streams are held", "ITL p95, ms (the engine's is 500)", "itl_p95_ms", "held"),
)


@dataclass(frozen=True, slots=True)
class Axis:
    """Places values between the panels' sides."""

    low: float
    high: float
    is_log: bool

    def x(self, value: float) -> float:
        """Return where a value is; one outside the axis is at its end."""
        inside = min(max(value, self.low), self.high)
        share = (
            math.log(inside / self.low) / math.log(self.high / self.low)
            if self.is_log
            else (inside - self.low) / (self.high - self.low)
        )
        return LEFT + share * (RIGHT - LEFT)

    def ticks(self) -> list[float]:
        """Return the values to name: about five round steps; on a log axis 1, 2, 5, 10 or only powers of ten."""
        if self.is_log:
            inside = _steps(self.low, self.high)
            return inside if len(inside) <= MOST_TICKS else [step for step in inside if f"{step:e}".startswith("1.")]
        step = _step(self.high)
        return [step * count for count in range(int(self.high / step + 1e-9) + 1)]


def axis_over(values: Sequence[float], scale: Literal["linear", "log"]) -> Axis:
    """Return an axis that holds the values: a linear one begins at 0, as bars have to."""
    positive = [value for value in values if value > 0]
    if scale == "log" and positive:
        low = max(step for step in STEPS if step < min(positive))
        high = min(step for step in STEPS if step > max(positive))
        if len(_steps(low, high)) > MOST_TICKS:
            low, high = 10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high))
        return Axis(low, high, is_log=True)
    high = max(positive, default=1.0)
    step = _step(high)
    return Axis(0.0, math.ceil(high / step - 1e-9) * step, is_log=False)


def _steps(low: float, high: float) -> list[float]:
    return [step for step in STEPS if low <= step <= high]


def _step(high: float) -> float:
    power = 10.0 ** math.floor(math.log10(high / 4))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power * 5 >= high)


def draw_all(summary: Summary, engine: Literal["fake", "vllm"]) -> dict[Picture, str]:
    """Return the pictures that have something to show."""
    where = {"fake": "fake engine", "vllm": "real vLLM"}[engine]
    drawn = {picture: draw(summary, picture, where) for picture in PICTURES}
    return {picture: svg for picture, svg in drawn.items() if svg}


def draw(summary: Summary, picture: Picture, where: str) -> str:
    """Return one picture as SVG, empty where nothing was measured."""
    panels = {load: _rows(summary, picture, load) for load in summary.loads if _is_held(load) == (picture.shape == "held")}
    panels = {load: rows for load, rows in panels.items() if rows}
    if not panels:
        return ""
    # One client and many see too different figures for one linear axis.
    is_shared = picture.scale == "log" or picture.shape == "held"
    everywhere = [edge for rows in panels.values() for one in rows.values() for edge in (one.low, one.high)]
    parts, top = [], float(HEAD)
    for load, rows in panels.items():
        shown = everywhere if is_shared else [one.high for one in rows.values()]
        parts += _panel(load, rows, axis=axis_over(shown, picture.scale), top=top)
        top += PANEL_HEAD + ROW * len(rows) + TICKS
    middle = (LEFT + RIGHT) / 2
    parts.append(f'<text class="quiet" x="{middle:g}" y="{top + 14:g}" text-anchor="middle">{escape(picture.axis)}</text>')
    return _page(f"{picture.title} ({where})", picture.note, height=top + AXIS + MARGIN / 2, parts=parts)


def _rows(summary: Summary, picture: Picture, load: str) -> dict[str, Spread]:
    found = {system: summary.of(Cell(system, load), picture.figure) for system in summary.systems}
    return {system: one for system, one in found.items() if one is not None}


def _is_held(load: str) -> bool:
    return load.startswith("hold=")


def _panel(load: str, rows: dict[str, Spread], *, axis: Axis, top: float) -> list[str]:
    parts = [f'<text class="load" x="{MARGIN}" y="{top + 20:g}">{escape(_say(load))}</text>']
    bottom = top + PANEL_HEAD + ROW * len(rows)
    for tick in axis.ticks():
        x = axis.x(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top + PANEL_HEAD - 4:g}" y2="{bottom:g}"/>')
        parts.append(f'<text class="quiet" x="{x:.1f}" y="{bottom + 16:g}" text-anchor="middle">{_short(tick)}</text>')
    for place, (system, found) in enumerate(rows.items()):
        parts += _row(system, found, axis=axis, middle=top + PANEL_HEAD + ROW * (place + 0.5))
    return parts


def _row(system: str, found: Spread, *, axis: Axis, middle: float) -> list[str]:
    look = {MANTA: "mark manta", BARE: "mark bare"}.get(system, "mark")
    x, weight = axis.x(found.median), " strong" if system == MANTA else ""
    parts = [f'<text class="name{weight}" x="{LEFT - 12}" y="{middle + 5:g}" text-anchor="end">{escape(system)}</text>']
    low, high = axis.x(found.low), axis.x(found.high)
    caps = f"M{low:.1f} {middle - 4:g}v8M{high:.1f} {middle - 4:g}v8"
    line = f'<path class="spread" d="M{low:.1f} {middle:g}H{high:.1f}{caps}"/>' if found.rounds > 1 else ""
    if axis.is_log:  # a bar's length would say nothing: where it begins is arbitrary
        parts += [line, f'<circle class="{look}" cx="{x:.1f}" cy="{middle:g}" r="6"/>']
    else:
        width, top = max(x - LEFT, 1), middle - BAR / 2
        parts += [f'<rect class="{look}" x="{LEFT}" y="{top:g}" width="{width:.1f}" height="{BAR}" rx="2"/>', line]
    label = _short(found.median)
    parts.append(f'<text class="figure{weight}" x="{WIDTH - MARGIN}" y="{middle + 5:g}" text-anchor="end">{label}</text>')
    return parts


def _page(title: str, note: str, *, height: float, parts: Sequence[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}" '
            f'role="img" aria-label="{escape(title)}">',
            f"<style>{STYLE}</style>",
            f'<rect class="paper" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:g}" rx="8"/>',
            f'<text class="title" x="{MARGIN}" y="36">{escape(title)}</text>',
            f'<text class="quiet" x="{MARGIN}" y="58">{escape(note)}</text>',
            *parts,
            "</svg>",
            "",
        ]
    )


def _say(load: str) -> str:
    shape, _, value = load.partition("=")
    return {
        "c": f"{value} at a time" if value != "1" else "one at a time",
        "rate": f"{value} requests/s, open loop",
        "hold": f"{value} streams held",
    }.get(shape, load)


def _short(value: float) -> str:
    """Return three significant digits with thousands apart, without zeros that say nothing."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value else "0"
