"""What a run measures: its loads, the engine's pace under each, and the order of the systems."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.data_path.contracts import FakeSpec, Load

HOLD_ITL_MS = 500.0
HOLD_TOKENS = 120  # a minute at two tokens a second
HOLD_REFERENCE = 10  # streams; what a larger number of them is compared with


@dataclass(frozen=True, slots=True)
class Timing:
    """What every load of a run shares."""

    duration_s: float
    warmup_s: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Planned:
    """A load, and whether it opens its streams once and holds them."""

    load: Load
    hold: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Loads that share one start of engine and system."""

    spec: FakeSpec
    planned: tuple[Planned, ...]
    warm_up: Load


def parse_loads(text: str, timing: Timing) -> tuple[Planned, ...]:
    """Return the loads of a list such as `c=1,rate=20,hold=1000`. Raises ValueError on any other."""
    planned = [_parse(name.strip(), timing) for name in text.split(",") if name.strip()]
    if not planned:
        raise ValueError("no loads are named")
    names = [one.load.name for one in planned]
    if len(set(names)) != len(names):
        raise ValueError(f"a load is named twice in {text!r}")
    reference = f"hold={HOLD_REFERENCE}"
    if any(one.hold for one in planned) and reference not in names:
        planned.insert([one.hold for one in planned].index(True), _parse(reference, timing))
    return tuple(planned)


def _parse(name: str, timing: Timing) -> Planned:
    shape, _, value = name.partition("=")
    try:
        number = float(value) if shape == "rate" else int(value)
    except ValueError:
        number = 0
    if shape not in {"c", "rate", "hold"} or number <= 0:
        raise ValueError(f"{name!r} is no load; c=32, rate=20 and hold=1000 are")
    load = Load(name=name, duration_s=timing.duration_s, warmup_s=timing.warmup_s, tokens=timing.tokens)
    if shape == "rate":
        return Planned(replace(load, rate_per_s=number))
    if shape == "c":
        return Planned(replace(load, concurrency=int(number)))
    held = replace(load, concurrency=int(number), tokens=HOLD_TOKENS, duration_s=HOLD_TOKENS * HOLD_ITL_MS / 1000)
    return Planned(held, hold=True)


def grouped(planned: Sequence[Planned], spec: FakeSpec) -> tuple[Group, ...]:
    """Return the loads by the engine's pace: held streams have a slow engine of their own."""
    quick = tuple(one for one in planned if not one.hold)
    held = tuple(one for one in planned if one.hold)
    groups = (
        Group(spec, quick, _warm_up(tokens=16, duration_s=3.0)),
        Group(FakeSpec(ttft_ms=10.0, itl_ms=HOLD_ITL_MS), held, _warm_up(tokens=2, duration_s=2.0)),
    )
    return tuple(group for group in groups if group.planned)


def _warm_up(*, tokens: int, duration_s: float) -> Load:
    return Load(name="warm-up", duration_s=duration_s, warmup_s=0.0, concurrency=8, tokens=tokens)


def order(systems: Sequence[str], *, round_number: int, seed: int) -> list[str]:
    """Return the systems as this round takes them: another order in each, the same again for the same seed."""
    shuffled = list(systems)
    random.Random(f"{seed}/{round_number}").shuffle(shuffled)  # noqa: S311
    return shuffled
