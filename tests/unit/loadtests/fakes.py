"""What the tests of load tests share: scenarios, exchanges, and runs made from them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from loadtests.exchange import Exchange
from loadtests.figures import Figures, figures
from loadtests.outcomes import Outcome
from loadtests.recorder import Event, Recorder
from loadtests.scenario import Scenario
from loadtests.users.session import Place, Session

BEGIN_S = 1000.0  # of the recorder's clock


def scenario(**fields: Any) -> Scenario:
    """Return a small scenario; ``fields`` replace its own."""
    document: dict[str, Any] = {
        "name": "tested",
        "load": {"mode": "open", "shape": {"kind": "constant", "level": 2}},
        "mix": [{"kind": "chat", "model": "chat"}],
        "duration": 10,
    }
    return Scenario.model_validate({**document, **fields})


def stream(at_s: float, ttft_s: float = 0.5, gaps_s: Iterable[float] = (0.1, 0.1), **fields: Any) -> Exchange:
    """Return a stream that went well: sent ``at_s`` seconds after the run began."""
    begun_s = BEGIN_S + at_s
    stamps = [begun_s + ttft_s]
    for gap_s in gaps_s:
        stamps.append(stamps[-1] + gap_s)
    made = Exchange("chat", "chat", "/v1/chat/completions", begun_s, outcome=Outcome.OK, status=200, is_stream=True)
    made.sent_s, made.ended_s, made.stamps, made.tokens = begun_s, stamps[-1], stamps, len(stamps)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def failed(at_s: float, outcome: Outcome, *, lasted_s: float = 1.0, status: int | None = None, **fields: Any) -> Exchange:
    """Return a stream that never began."""
    return stream(
        at_s,
        outcome=outcome,
        status=status,
        stamps=(),
        tokens=0,
        ended_s=BEGIN_S + at_s + lasted_s,
        message="it failed",
        **fields,
    )


def run_of(asked: Scenario, seen: Iterable[Exchange], *, told: list[Event] | None = None, **fields: Any) -> dict[str, Any]:
    """Return the document of a run in which these exchanges were seen."""
    recorder = Recorder(asked, BEGIN_S, ([] if told is None else told).append)
    for each in seen:
        recorder.record(each)
    document: dict[str, Any] = {
        "begin_unix_s": 1_700_000_000.0,
        "measured_s": asked.duration,
        "workers": 1,
        "silent_workers": 0,
        "busy_s": {"0": 1.0},
        "samples": [],
        "why_no_platform": "",
        "tally": recorder.take().to_json(),
    }
    return {**document, **fields}


def sample(at_s: float, weights: dict[str, int] | None = None, **fields: Any) -> dict[str, Any]:
    """Return a look at the platform."""
    made: dict[str, Any] = {"at_s": at_s, "open": 3, "users": 1, "waiting": {}, "held": None, "running": {}, "replicas": {}}
    return {**made, "weights": weights or {}, **fields}


def figures_of(seen: Iterable[Exchange], **fields: Any) -> Figures:
    """Return the figures of exchanges in the small scenario."""
    asked = scenario()
    return figures(asked, run_of(asked, seen, **fields))


def session_of(asked: Scenario) -> Session:
    """Return a session that begins now, of the only worker."""
    begin_s = time.perf_counter()
    recorder = Recorder(asked, begin_s, lambda _: None)
    return Session(asked, recorder, begin_s=begin_s, place=Place(0, 1), api_key=None)
