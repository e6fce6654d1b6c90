"""Exchange: one request as it was seen from the client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from loadtests.outcomes import Outcome


@dataclass(slots=True)
class Exchange:
    """One request and what came of it; times are of `time.perf_counter`.

    Attributes:
        entry: label of the part of the mix.
        model: what it asked for.
        path: what Locust calls it, and ``method`` its type.
        intended_s: when it was to be sent; every duration counts from here.
        sent_s: when it was sent, at the last attempt.
        stamps: when each piece of a stream's text came; empty for whole answers.
        tokens: what was generated, by the answer's usage, else the pieces.
        variant: (model or pipeline, variant or version) that answered; None: nobody said.
        is_first: whether it begins a conversation: later turns tell nothing new of the split.
    """

    entry: str
    model: str
    path: str
    intended_s: float
    method: str = "POST"
    outcome: Outcome = Outcome.UNFINISHED
    message: str = ""
    status: int | None = None
    sent_s: float | None = None
    ended_s: float = 0.0
    is_stream: bool = False
    stamps: Sequence[float] = field(default_factory=tuple)
    coalesced: int = 0
    tokens: int = 0
    prompt_tokens: int = 0
    received_bytes: int = 0
    citations: int = 0
    variant: tuple[str, str] | None = None
    is_first: bool = True
    has_flipped: bool = False
    limited: int = 0  # attempts that were answered with 429 before this one

    @property
    def duration_s(self) -> float:
        """Return how long it took."""
        return self.ended_s - self.intended_s

    @property
    def ttft_s(self) -> float | None:
        """Return the time to the first piece of text; None: there was none."""
        return self.stamps[0] - self.intended_s if self.stamps else None

    @property
    def itl_s(self) -> float | None:
        """Return the mean time between tokens; None: there were not two."""
        steps = max(self.tokens, len(self.stamps)) - 1
        return (self.stamps[-1] - self.stamps[0]) / steps if len(self.stamps) > 1 else None
