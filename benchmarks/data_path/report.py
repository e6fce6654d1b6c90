"""A run as Markdown: the tables of one engine, put between its markers in the document. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from benchmarks.data_path.gates import MANTA, assess
from benchmarks.data_path.plan import HOLD_REFERENCE
from benchmarks.data_path.records import Failure, Run
from benchmarks.data_path.summary import BARE, CONTROL, ENGINE, Cell, Spread, Summary

EngineKind = Literal["fake", "vllm"]
NOTHING = "-"
FAILURE_CHARACTERS = 160


def replace_block(document: str, engine: EngineKind, block: str) -> str:
    """Return the document with the block between the engine's markers. Raises ValueError where they are not, once each."""
    begin, end = f"<!-- data-path:{engine} -->", f"<!-- /data-path:{engine} -->"
    if document.count(begin) != 1 or document.count(end) != 1 or document.index(begin) > document.index(end):
        raise ValueError(f"the document needs {begin} and, after it, {end}, once each")
    head, _, rest = document.partition(begin)
    return f"{head}{begin}\n\n{block.strip()}\n\n{end}{rest.partition(end)[2]}"


def render(summary: Summary, run: Run, plots: Mapping[str, str]) -> str:
    """Return the tables of one engine. `plots` maps a picture's description to its address."""
    parts = [
        _provenance(summary, run),
        *(f"![{description}]({address})" for description, address in plots.items()),
        *_section("Latency and throughput", _traffic(summary)),
        *_section("Cost of the data path", _cost(summary)),
        *_section("Manta against each other", _against(summary)),
        *_section("Open streams", _held(summary)),
        *_section("Gates", _gates(summary, run.engine)),
        *_section("What failed", _failures(summary.failures)),
    ]
    return "\n\n".join(parts)


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"### {title}", "\n".join(lines)] if lines else []


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int) -> list[str]:
    body = [_line(row) for row in rows]
    rule = ["---"] * text_columns + ["---:"] * (len(head) - text_columns)
    return [_line(head), _line(rule), *body] if body else []


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _number(value: float) -> str:
    """Return three significant digits, and every digit of what is a thousand or more."""
    size = abs(value)
    decimals = 0 if size >= 99.95 else 1 if size >= 9.995 else 2
    return f"{value:,.{decimals}f}"


def _cell(found: Spread | None, unit: str = "") -> str:
    """Return the median and, in brackets, the quartiles (from four rounds on) or the extremes."""
    if found is None:
        return NOTHING
    median = f"{_number(found.median)}{unit}"
    if found.rounds == 1:
        return median
    low, high = (_number(edge) for edge in found.quartiles or (found.low, found.high))
    return median if low == high else f"{median} ({low} to {high})"


def _provenance(summary: Summary, run: Run) -> str:
    machine = run.machine
    packages = [f"{name} {version}" for name, version in _mapping(machine.get("packages")).items()]
    named = ", ".join(sorted([*packages, *(str(peer) for peer in _mapping(machine.get("peers")).values())]))
    changed = " with local changes" if machine.get("is_changed_since_commit") else ""
    settings = "; ".join(f"{name} {_plain(value)}" for name, value in sorted(run.settings.items()))
    gpu = f", {machine['gpu']}" if machine.get("gpu") else ""
    lines = [
        f"Rounds: {len(summary.rounds)}. Begun {run.date}, commit {machine.get('commit')}{changed}.",
        f"Machine: {machine.get('cpu')}, {machine.get('usable_cores')} usable cores, {machine.get('memory_gib')} GiB{gpu}, "
        f"Linux {machine.get('kernel')}, Python {machine.get('python')}; "
        f"load average before: {_plain(machine.get('load_average'))}.",
        f"Settings: {settings}.",
        f"Versions: {named}.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _plain(value: object) -> str:
    return ", ".join(_plain(one) for one in value) if isinstance(value, list | tuple) else str(value)


def _mapping(value: object) -> dict[str, object]:
    return dict(value) if isinstance(value, Mapping) else {}


def _cells(summary: Summary, *, held: bool) -> list[Cell]:
    """Return the measured cells, load by load."""
    loads = [load for load in summary.loads if load.startswith("hold=") == held]
    cells = [Cell(system, load) for load in loads for system in summary.systems]
    return [cell for cell in cells if summary.of(cell, "errors") is not None]


def _traffic(summary: Summary) -> list[str]:
    rows = []
    for cell in _cells(summary, held=False):
        of_bare = summary.ratio("tokens_per_s", cell, Cell(BARE, cell.load)) if cell.system != BARE else None
        rates = [_cell(summary.of(cell, name)) for name in ("requests_per_s", "tokens_per_s")]
        names = ["ttft_p50_ms", "added_ttft_p50_ms", "ttft_p99_ms", "itl_p50_ms", "itl_p99_ms"]
        times = [_cell(summary.of(cell, name)) for name in names]
        rows.append([cell.load, cell.system, *rates, _cell(of_bare, "x"), *times, str(summary.total_errors(cell))])
    head = ["load", "system", "requests/s", "tokens/s", "tokens/s of bare", "TTFT p50 ms", "added to bare's p50, ms"]
    return _table([*head, "TTFT p99 ms", "ITL p50 ms", "ITL p99 ms", "errors"], rows, text_columns=2)


def _cost(summary: Summary) -> list[str]:
    rows = []
    for cell in _cells(summary, held=False):
        path = [role for role in summary.roles(cell) if role not in {ENGINE, CONTROL}]
        roles = [f"{role} {_cell(summary.of(cell, f'cpu_per_token_us {role}'))}" for role in path]
        names = [
            "cpu_per_token_us",
            "cpu_per_request_us",
            "cpu_cores",
            "control_cores",
            "rss_mib",
            "threads",
            f"cpu_per_token_us {ENGINE}",
        ]
        values = [_cell(summary.of(cell, name)) for name in names]
        rows.append([cell.load, cell.system, ", ".join(roles) if len(path) > 1 else NOTHING, *values])
    head = ["load", "system", "by role, µs/token", "CPU µs/token", "CPU µs/request", "cores used"]
    return _table([*head, "control plane's cores", "RSS MiB", "threads", "engine's CPU µs/token"], rows, text_columns=3)


def _against(summary: Summary) -> list[str]:
    rows = []
    for load in [load for load in summary.loads if not load.startswith("hold=")]:
        for other in [system for system in summary.systems if system != MANTA]:
            mine, theirs = Cell(MANTA, load), Cell(other, load)
            ratios = [summary.ratio(name, mine, theirs) for name in ("tokens_per_s", "ttft_p50_ms", "cpu_per_token_us")]
            if any(ratio is not None for ratio in ratios):
                added = summary.difference("ttft_p50_ms", mine, theirs)
                rows.append([load, other, *(_cell(ratio, "x") for ratio in ratios), _cell(added)])
    head = ["load", "against", "tokens/s", "TTFT p50", "CPU per token", "TTFT p50 difference, ms"]
    return _table(head, rows, text_columns=2)


def _held(summary: Summary) -> list[str]:
    rows = []
    for cell in _cells(summary, held=True):
        reference = Cell(cell.system, f"hold={HOLD_REFERENCE}")
        ratio = summary.ratio("itl_p95_ms", cell, reference) if cell != reference else None
        names = ["itl_p50_ms", "itl_p95_ms", "ttft_p50_ms", "cpu_cores", "rss_mib"]
        values = [_cell(summary.of(cell, name)) for name in names]
        # A few streams grow a process by less than it grows and shrinks by itself.
        growth = [_cell(summary.of(cell, f"{name}_per_stream_kib") if cell != reference else None) for name in ("rss", "pss")]
        rows.append([cell.load, cell.system, str(summary.total_errors(cell)), *values, *growth, _cell(ratio, "x")])
    head = ["streams", "system", "errors", "ITL p50 ms", "ITL p95 ms", "TTFT p50 ms", "cores used", "RSS MiB"]
    return _table([*head, "RSS KiB/stream", "PSS KiB/stream", f"ITL p95 of hold={HOLD_REFERENCE}"], rows, text_columns=2)


def _gates(summary: Summary, engine: EngineKind) -> list[str]:
    if MANTA not in summary.systems:
        return []
    rows = [[outcome.verdict.value, outcome.wanted, outcome.found] for outcome in assess(summary, engine)]
    return _table(["", "wanted", "found"], rows, text_columns=3)


def _failures(failures: Iterable[Failure]) -> list[str]:
    rows = []
    for failure in failures:
        text = " ".join(failure.text.split())
        short = text if len(text) <= FAILURE_CHARACTERS else text[: FAILURE_CHARACTERS - 1] + "…"
        rows.append([str(failure.round), failure.system, failure.load or failure.stage, short])
    return _table(["round", "system", "at", "what it said"], rows, text_columns=4)
