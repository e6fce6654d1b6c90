"""What `manta rollout` shows: how splits stand, and what was decided, as lines and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from serve_app.rollout.gates import Verdict
from serve_app.rollout.load_test_gate import GATE
from serve_app.rollout.plan import ACTIVE, Phase

Json = Mapping[str, Any]
BY = "by "  # what the reason of an operator's decision begins with
BY_GATES = frozenset({"advanced", "completed", "held", "rolled_back"})


def report(document: Json, *, now_s: float) -> Iterator[RenderableType]:
    """Yield how every split of a document of GET /admin/rollouts stands."""
    if document["refused"]:
        yield Text(f"REFUSED: {document['refused']}", style="bold white on red")
    for split in document["splits"]:
        yield from _of_split(split, document, now_s=now_s)
    yield Text(in_force(document))


def in_force(document: Json) -> str:
    """Return on how many Routers the traffic table is in force."""
    version, routers = document["table"]["version"], document["routers"]
    have = sum(theirs >= version for theirs in routers.values())
    return f"traffic table {version} is in force on {have} of {len(routers)} Routers"


def _of_split(split: Json, document: Json, *, now_s: float) -> Iterator[RenderableType]:
    yield Text(f"{split['name']}: {headline(split, now_s=now_s)}", style=_style(split["phase"]))
    if len(split["weights"]) < 2:
        return
    yield Text(f"  weights: {weights(split)}; baseline {split['baseline']}")
    if split["reason"]:
        yield Text(f"  because: {split['reason']}")
    if split["verdict"] is not None:
        yield Text(f"  verdict: {split['verdict']}; replicas lost: {split['crashes']}")
        yield from (Text(f"  {r['reason']}", style="bold yellow") for r in split["readings"] if _is_missing(r))
        yield gates(split["readings"])
    yield figures([each for each in document["stats"] if each["name"] == split["name"]])
    yield from (Text(f"  {shadow(each)}") for each in document["shadows"] if each["name"] == split["name"])


def _is_missing(reading: Json) -> bool:
    """Whether it waits for something that somebody has to do."""
    return bool(reading["gate"] == GATE and reading["verdict"] == Verdict.WAIT)


def _style(phase: str | None) -> str:
    if phase in (Phase.ROLLED_BACK, Phase.HELD, Phase.ABORTED):
        return "bold red"
    return "bold green" if phase == Phase.COMPLETED else "bold"


def headline(split: Json, *, now_s: float) -> str:
    """Return where a split stands, in words."""
    if len(split["weights"]) < 2:
        return f"{split['baseline']} has every conversation"
    if (phase := split["phase"]) is None:
        return "no rollout, the declared weights are in force"
    since = span(now_s - split["step_since_s"])
    if phase not in ACTIVE:
        return f"{phase}, since {since}"
    steps, step = split["steps"], split["step"]
    if step < 0:
        return f"{phase}, before the first of {len(steps)} steps, for {since}"
    here = steps[step]
    return f"{phase}, step {step + 1} of {len(steps)} ({here['weight']} %), for {since} of at least {span(here['pause'])}"


def weights(split: Json) -> str:
    """Return the weights in force, beside those that are declared where they differ."""
    declared, withdrawn = split["declared_weights"], split["withdrawn"]
    words = []
    for name, weight in split["weights"].items():
        more = [f"declared {declared[name]}"] if declared.get(name, weight) != weight else []
        more += ["withdrawn"] if name in withdrawn else []
        words.append(f"{name} {weight} %" + (f" ({', '.join(more)})" if more else ""))
    return ", ".join(words)


def gates(readings: Sequence[Json]) -> Table:
    """Return one line per gate; evidence is in percent of what rolls back, or passes the step."""
    table = Table("gate", "verdict")
    for name in ("observed %", "allowed %", "threshold ms", "requests", "against %", "for %"):
        table.add_column(name, justify="right")
    table.add_column("reason")
    for r in readings:
        rates = (percent(r["observed_rate"]), percent(r["allowed_rate"]), ms(r["threshold_s"]), str(r["attempts"]))
        evidence = (_part(r["evidence"], r["evidence_needed"]), _part(r["acceptance"], r["acceptance_needed"]))
        table.add_row(r["gate"], r["verdict"], *rates, *evidence, Text(r["reason"]))
    return table


def figures(stats: Sequence[Json]) -> Table:
    """Return what each variant did in the last minute."""
    table = Table("variant")
    for name in ("requests/min", "errors %", "TTFT p50/p95 ms", "ITL p50/p95 ms", "open"):
        table.add_column(name, justify="right")
    for each in stats:
        last = each["last_minute"]
        times = (f"{ms(last[kind]['p50'])}/{ms(last[kind]['p95'])}" for kind in ("ttft_s", "itl_s"))
        table.add_row(each["variant"], str(last["requests"]), percent(last["error_rate"]), *times, str(each["open"]))
    return table


def shadow(stats: Json) -> str:
    """Return what became of copies, in words."""
    dropped, failed = (sum(stats[book].values()) for book in ("dropped", "failed"))
    said = f"shadow {stats['variant']}: {stats['copied']} copied, {dropped} dropped, {failed} failed"
    if not stats["compared"]:
        return said
    agreed, similarity = percent(stats["agreement_ratio"]), stats["mean_similarity"]
    return f"{said}; {agreed} % of {stats['compared']} compared agree, mean similarity {similarity:.3f}"


def history(decisions: Sequence[Json]) -> Table:
    """Return one line per decision, in the order given."""
    table = Table("time (UTC)", "action", "weights", "reason", "who")
    for made in decisions:
        at = datetime.fromtimestamp(made["at_s"], UTC).strftime("%Y-%m-%d %H:%M:%S")
        moved = changes(made["before"], made["weights"])
        who = made["reason"].removeprefix(BY) if made["reason"].startswith(BY) else None
        table.add_row(at, made["action"], moved, Text("" if who else made["reason"]), Text(who or _who(made["action"])))
    return table


def _who(action: str) -> str:
    return "Manta" if action in BY_GATES else "configuration"


def decided(made: Json) -> str:
    """Return what a command has put in force."""
    now = ", ".join(f"{name} {weight} %" for name, weight in made["weights"].items())
    return f"{made['name']}: {made['action']}; in force: {now} (phase {made['phase']})"


def changes(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    """Return weights; of each that has moved, also what it was."""
    old = {name: before.get(name, weight) for name, weight in after.items()}
    return ", ".join(f"{name} {old[name]} -> {now}" if old[name] != now else f"{name} {now}" for name, now in after.items())


def _part(have: float | None, needed: float | None) -> str:
    if have is None or not needed:
        return "-"
    return f"{max(0.0, 100 * have / needed):.0f}"


def percent(ratio: float | None) -> str:
    """Return a ratio in percent."""
    return "-" if ratio is None else f"{100 * ratio:.3g}"


def ms(seconds: float | None) -> str:
    """Return a duration in milliseconds."""
    return "-" if seconds is None else f"{1000 * seconds:.4g}"


def span(seconds: float) -> str:
    """Return a duration in the two greatest units that it has."""
    left, words = max(0, round(seconds)), []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count:
            words.append(f"{count}{unit}")
    return " ".join(words[:2]) or "0s"
