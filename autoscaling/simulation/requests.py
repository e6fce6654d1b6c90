"""Requests: what is known of each request of a run, column by column."""

from __future__ import annotations

from autoscaling.simulation.trace import Trace

NOT_YET = -1.0


class Requests:
    """Plain lists, indexed by the request's place in the trace: numpy scalars would slow the event loop several times.

    Times are seconds of the trace's clock and ``NOT_YET`` until the event happens."""

    __slots__ = ("arrived_s", "finished_s", "first_s", "gap_s", "output_tokens", "prompt_tokens", "started_s")

    def __init__(self, trace: Trace) -> None:
        self.arrived_s: list[float] = trace.arrivals_s.tolist()
        self.prompt_tokens: list[int] = trace.prompt_tokens.tolist()
        self.output_tokens: list[int] = trace.output_tokens.tolist()
        count = len(trace)
        self.started_s = [NOT_YET] * count  # a replica began to read the prompt
        self.first_s = [NOT_YET] * count  # the first token is out
        self.finished_s = [NOT_YET] * count  # the last token is out
        self.gap_s = [0.0] * count  # longest time between two tokens

    def __len__(self) -> int:
        return len(self.arrived_s)
