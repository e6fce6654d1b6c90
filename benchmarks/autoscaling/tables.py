"""Tables of a study, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from benchmarks.autoscaling import compare
from benchmarks.autoscaling.compare import Run, Score, Scores
from benchmarks.autoscaling.contestants import HPA_QPS, HPA_USE, INSTANT, MANTA, ORACLE, OURS, RAY

HEADER = (
    "| policy | within SLO % (worst seed) | replica-seconds over the oracle's | reversals (most) | TTFT p99 s (worst) |\n"
    "|---|--:|--:|--:|--:|\n"
)
EQUAL = (
    "| trace | Manta's % | Ray's setting | its % | Manta saves (worst seed) | reversals of Manta in 600 s after the jump |\n"
    "|---|--:|---|--:|--:|--:|\n"
)


def report(runs: Sequence[Run]) -> str:
    """Return everything that is said of a study; nothing for no runs."""
    if not runs:
        return ""
    found = compare.scores(runs)
    seeds = sorted({run.seed for run in runs})
    parts = [f"Seeds {', '.join(map(str, seeds))}; {len(runs)} runs.\n"]
    parts += [f"### {trace}\n\n{HEADER}{''.join(_rows(of_trace))}" for trace, of_trace in found.items()]
    parts.append(f"### At equal attainment\n\n{EQUAL}{''.join(_equal(runs, found))}")
    parts.append(f"### One setting of Ray's for all traces\n\n{_for_all(runs, found)}")
    return "\n".join(parts)


def notable(of_trace: Mapping[str, Score]) -> Iterator[Score]:
    """Yield the oracle, the instant policies, ours as it is and at its extremes, and of each peer what matters beside ours."""
    ours = of_trace[OURS.label]
    yield compare.of_family(of_trace, ORACLE)
    yield from (each for each in of_trace.values() if each.family == INSTANT)
    chosen: list[Score | None] = [ours]
    for family in (MANTA, RAY, HPA_QPS, HPA_USE):
        chosen.append(compare.cheapest(of_trace, family, attainment=ours.attainment - compare.NEARLY))
        chosen.append(compare.best(of_trace, family))
    yield from dict.fromkeys(each for each in chosen if each is not None)


def _rows(of_trace: Mapping[str, Score]) -> Iterator[str]:
    oracle = compare.of_family(of_trace, ORACLE)
    for each in notable(of_trace):
        name = f"**{each.label}** (defaults)" if each.label == OURS.label else each.label
        yield (
            f"| {name} | {_percent(each.attainment)} ({_percent(each.worst_attainment)}) "
            f"| {each.replica_s / oracle.replica_s:.2f} | {each.reversals:.1f} ({each.most_reversals}) "
            f"| {each.ttft_p99_s:.2f} ({each.worst_ttft_p99_s:.2f}) |\n"
        )


def _equal(runs: Sequence[Run], found: Scores) -> Iterator[str]:
    for trace, of_trace in found.items():
        ours = of_trace[OURS.label]
        after = "-" if ours.most_reversals_after_change is None else str(ours.most_reversals_after_change)
        other = compare.cheapest(of_trace, RAY, attainment=ours.attainment - compare.NEARLY)
        if other is None:
            yield f"| {trace} | {_percent(ours.attainment)} | none reaches it | - | - | {after} |\n"
            continue
        saved = compare.saving(runs, trace, other.label, ours=OURS.label)
        yield (
            f"| {trace} | {_percent(ours.attainment)} | {other.label} | {_percent(other.attainment)} "
            f"| {100 * saved.mean:.1f} % ({100 * saved.worst:.1f} %) | {after} |\n"
        )


def _for_all(runs: Sequence[Run], found: Scores) -> str:
    label = compare.cheapest_for_all(found, RAY, OURS.label, oracle=ORACLE)
    if label is None:
        return "None of its settings is within a point of Manta's attainment on every trace.\n"
    savings = [compare.saving(runs, trace, label, ours=OURS.label) for trace in found]
    lines = [
        f"| {each.trace} | {_percent(each.ours)} | {_percent(each.attainment)} "
        f"| {100 * each.mean:.1f} % ({100 * each.worst:.1f} %) |\n"
        for each in savings
    ]
    header = "| trace | Manta's % | Ray's % | Manta saves (worst seed) |\n|---|--:|--:|--:|\n"
    mean = f"In the mean over the traces Manta saves {100 * fmean(each.mean for each in savings):.1f} %.\n"
    return f"`{label}`:\n\n{header}{''.join(lines)}\n{mean}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"
