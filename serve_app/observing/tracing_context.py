"""TraceContext: where a request stands in its trace, by W3C's trace context. Knows nothing of OpenTelemetry's library."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import NamedTuple

from serve_app.contracts import TraceLink

SAMPLED = 1  # the only flag of version 00
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_STATE = re.compile(r"[\x20-\x7e]{1,512}")  # what may go on in a header of ours
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


class Parent(NamedTuple):
    """What a ``traceparent`` says."""

    trace_id: str
    span_id: str
    is_sampled: bool


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One request, or one stage in a process of its own: its trace and its own span."""

    trace_id: str
    span_id: str
    is_sampled: bool
    parent_id: str = ""  # of another process; empty where the trace begins here
    state: str = ""  # W3C's tracestate, passed on as it came
    export: str = ""  # TracingConfig as JSON, for processes further on; only where it is sampled

    def link(self, span_id: str) -> TraceLink:
        """Return what a process further on is told, whose work is part of the span."""
        parent = f"00-{self.trace_id}-{span_id}-{self.is_sampled:02d}"
        return TraceLink(parent, self.state, self.export if self.is_sampled else "")


def parse(traceparent: str | None) -> Parent | None:
    """Return what the header says; None where it is missing or none of W3C's."""
    found = None if traceparent is None else _PARENT.fullmatch(traceparent.strip())
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return Parent(trace_id, span_id, bool(int(flags, 16) & SAMPLED))


def arrived(traceparent: str | None, tracestate: str | None, *, ratio: float, export: str) -> TraceContext:
    """Return the context of a request that has just arrived.

    Its client decides whether its own trace is sampled. A trace that begins here is sampled by its id, as OpenTelemetry's
    samplers do it, so that platforms with one ratio choose the same traces.
    """
    parent = parse(traceparent)
    if parent is None:
        trace_id = secrets.token_hex(16)
        return TraceContext(trace_id, new_span_id(), int(trace_id[16:], 16) < ratio * 2.0**64, export=export)
    state = tracestate if tracestate and _STATE.fullmatch(tracestate) else ""
    return TraceContext(parent.trace_id, new_span_id(), parent.is_sampled, parent.span_id, state, export)


def joined(link: TraceLink) -> TraceContext | None:
    """Return the context of a stage that another process asked for; None where there is nothing to keep of it."""
    parent = parse(link.traceparent)
    if parent is None or not parent.is_sampled or not link.export:
        return None
    return TraceContext(parent.trace_id, new_span_id(), True, parent.span_id, link.tracestate, link.export)


def new_span_id() -> str:
    """Return the id of a new span."""
    return secrets.token_hex(8)
