"""Tuning: what one replica can take within its objectives, and the `autoscaling` settings that follow from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autoscaling.locust_history import FIRST, GAP, Entry, Plateau

MAX_FAILED_RATIO = 0.01  # more failed requests than this break any objective
WHOLE_FIX = (
    "choose one of several names with --name; Locust times a stream up to its headers, so set "
    "`response.request_meta['response_time']` (ms) after the last token"
)
CLOSED_RATIO = 0.9  # users who are busy for this share of their time do not wait between requests


class TuningError(ValueError):
    """The load test lacks what the objectives ask for; says what, and how to measure it."""


@dataclass(frozen=True, slots=True)
class Slo:
    """What 95 of 100 requests must keep, in seconds. None: no objective."""

    ttft_s: float | None = None
    itl_s: float | None = None
    e2e_s: float | None = None


@dataclass(frozen=True, slots=True)
class Level:
    """One level of load on one replica, and whether it kept the objectives."""

    users: int  # of the whole run
    concurrency: float  # requests in progress
    throughput: float  # requests per second
    failed_ratio: float
    ttft: Entry | None
    itl: Entry | None
    e2e: Entry | None
    is_kept: bool
    reason: str  # one sentence


@dataclass(frozen=True, slots=True)
class Proposal:
    """Settings of one replica."""

    slots: int
    target_queue_depth: int | None  # None: nothing says how long a request may wait
    throughput: float  # requests per second with all slots busy
    service_s: float  # that a request holds a slot
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a run says. No proposal: the objectives broke at the lowest level."""

    levels: tuple[Level, ...]
    proposal: Proposal | None
    warnings: tuple[str, ...]


def tune(plateaus: Sequence[Plateau], slo: Slo, *, replicas: int = 1) -> Tuning:
    """Return the levels by rising users, and what to set. Raises TuningError."""
    levels = tuple(_level(plateau, slo, replicas) for plateau in plateaus)
    kept = _before_first_break(levels)
    if not kept:
        lowest = levels[0]
        fix = "run again with fewer users, or allow more time"
        return Tuning(levels, None, (f"even {lowest.users} users are too many: {lowest.reason} So {fix}.",))
    return Tuning(levels, _proposal(kept[-1], slo), tuple(_warnings(levels, kept)))


def _level(plateau: Plateau, slo: Slo, replicas: int) -> Level:
    counted = plateau.counted
    if counted is None:
        raise TuningError(f"nothing counts the requests at {plateau.users} users: no row but those of type {GAP}")
    throughput = counted.requests / plateau.seconds / replicas
    failed = counted.failures / counted.requests
    broken = [*_broken(plateau, slo)]
    if failed > MAX_FAILED_RATIO:
        broken.insert(0, f"{100 * failed:.1f} % of the requests failed")
    margins = " and ".join(broken) if broken else "every objective is kept"
    return Level(
        users=plateau.users,
        concurrency=_concurrency(plateau, replicas),
        throughput=throughput,
        failed_ratio=failed,
        ttft=plateau.first,
        itl=plateau.gap,
        e2e=plateau.whole,
        is_kept=not broken,
        reason=f"{margins[0].upper()}{margins[1:]}.",
    )


def _concurrency(plateau: Plateau, replicas: int) -> float:
    """Return requests in progress: by Little's law, or the users if they do nothing but wait for answers."""
    if plateau.whole is None:
        return plateau.users / replicas
    in_progress = plateau.whole.requests / plateau.seconds * plateau.whole.mean_s
    return (plateau.users if in_progress >= CLOSED_RATIO * plateau.users else in_progress) / replicas


def _broken(plateau: Plateau, slo: Slo) -> Iterable[str]:
    # Objective, its rows, and what the user can do where there are none.
    event = "fire `events.request` with that request_type in the locustfile (response_time in ms)"
    objectives = (
        ("TTFT", slo.ttft_s, plateau.first, f"no rows of type {FIRST}: {event}, or judge by --slo-e2e"),
        ("ITL", slo.itl_s, plateau.gap, f"no rows of type {GAP}: {event}, or judge by --slo-e2e"),
        ("the whole response", slo.e2e_s, plateau.whole, WHOLE_FIX),
    )
    for label, allowed_s, entry, fix in objectives:
        if allowed_s is None:
            continue
        if entry is None or entry.p95_s is None:
            raise TuningError(f"{label} is not known at {plateau.users} users: {fix}")
        if entry.p95_s > allowed_s:
            yield f"p95 of {label} is {entry.p95_s:.4g} s, over {allowed_s:g} s"


def _before_first_break(levels: Sequence[Level]) -> Sequence[Level]:
    broken = next((at for at, level in enumerate(levels) if not level.is_kept), len(levels))
    return levels[:broken]


def _proposal(level: Level, slo: Slo) -> Proposal:
    slots = max(1, int(level.concurrency))
    service_s = level.concurrency / level.throughput
    depth, why = _queue_depth(level, slo)
    reasons = (
        f"slots: {level.users} users are the most that kept the objectives; they are {level.concurrency:.4g} requests at a "
        f"time on each replica, which answers {level.throughput:.4g} a second, so each holds a slot for {service_s:.4g} s.",
        why,
    )
    return Proposal(slots, depth, level.throughput, service_s, reasons)


def _queue_depth(level: Level, slo: Slo) -> tuple[int | None, str]:
    pairs = (("TTFT", slo.ttft_s, level.ttft), ("the whole response", slo.e2e_s, level.e2e))
    left = [
        (allowed_s - entry.p95_s, label, allowed_s, entry.p95_s)
        for label, allowed_s, entry in pairs
        if allowed_s is not None and entry is not None and entry.p95_s is not None
    ]
    if not left:
        return None, "target_queue_depth: left out, as no objective says how long a request may wait (--slo-ttft, --slo-e2e)."
    slack_s, label, allowed_s, p95_s = min(left)
    depth = max(1, int(level.throughput * slack_s))
    return depth, (
        f"target_queue_depth: {label} may take {allowed_s:g} s and takes {p95_s:.4g} s (p95) without a queue, so a request may "
        f"wait {slack_s:.4g} s, in which {level.throughput * slack_s:.3g} others get their slot; at least 1."
    )


def _warnings(levels: Sequence[Level], kept: Sequence[Level]) -> Iterable[str]:
    if len(kept) == len(levels):
        most = f"no objective broke at up to {levels[-1].users} users, so the replica may take more than is proposed"
        yield f"{most}: run again with more users."
    if (chosen := kept[-1]).concurrency < 1:
        yield (
            f"{chosen.users} users were {chosen.concurrency:.2g} requests at a time on each replica, less than one, so "
            "`slots: 1` is a floor and no measurement: run again with more users, or check --replicas."
        )
    again = [level.users for level in levels[len(kept) + 1 :] if level.is_kept]
    if again:
        yield (
            f"objectives broke at {levels[len(kept)].users} users and held again at {again[-1]}: the run is noisy, so hold "
            "each level for longer."
        )
