"""Verdict: what all gates say together of a canary, compared with its baseline over the same time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from serve_app.config_rollouts import GatesConfig
from serve_app.rollout.criteria import SHORT_S
from serve_app.rollout.gates import Baselines, GateTest, Look, Reading, Verdict, gates_of
from serve_app.rollout.telemetry import VariantStats, Waiting

__all__ = ["Analysis", "Assessment", "Baselines", "Reading", "Verdict", "assess", "together"]


@dataclass(frozen=True, slots=True)
class Assessment:
    """The verdict, and what every gate read."""

    verdict: Verdict
    readings: tuple[Reading, ...]


class Analysis:
    """The gates of one rollout. Show it what came, once a second or so.

    The canary's attempts are gathered in blocks of as many seconds as the baseline's short window has, and each block is
    compared with the window that covers the same time, so that what hits both alike is held against neither. Every look
    judges the block that is not over too.
    """

    def __init__(self, config: GatesConfig) -> None:
        self._config = config
        self._tests = [GateTest(gate, config) for gate in gates_of(config)]
        self._block, self._since_s = VariantStats(), None

    _since_s: float | None  # when the block began; None: at the next look

    def begin_step(self) -> None:
        """Count anew, as the canary has another share; evidence that it is bad goes on."""
        for test in self._tests:
            test.begin_step()
        self._block, self._since_s = VariantStats(), None

    def observe(self, canary: VariantStats, waiting: Waiting, baseline: Baselines, *, now_s: float) -> Assessment:
        """Add what was newly counted of the canary, and return what follows."""
        if self._since_s is None or now_s < self._since_s:
            self._since_s = now_s
        self._block.merge(canary)
        look = Look(self._block, waiting, baseline, min(1.0, (now_s - self._since_s) / SHORT_S))
        readings = tuple(test.look(look) for test in self._tests)
        if look.is_over:
            self._block, self._since_s = VariantStats(), now_s
        return Assessment(together(readings), readings)

    def state(self) -> dict[str, Any]:
        """Return the evidence as JSON, for an Analysis of the same gates. The block that is not over is left out."""
        return {"config": self._kind(), "gates": {t.gate.name: t.state() for t in self._tests}}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state; one that other gates have left, or nobody, changes nothing."""
        if state.get("config") != self._kind():
            return
        fresh = [GateTest(test.gate, self._config) for test in self._tests]
        try:
            for test in fresh:
                test.restore(state["gates"][test.gate.name])
        except (KeyError, TypeError, ValueError):
            return  # evidence that cannot be read is gathered again
        self._tests = fresh

    def _kind(self) -> dict[str, Any]:
        """Return what evidence depends on; a load test keeps its results elsewhere."""
        return self._config.model_dump(mode="json", exclude={"load_test"})


def assess(config: GatesConfig, canary: VariantStats, stable: VariantStats) -> Assessment:
    """Return what the gates say of two whole windows over the same time."""
    look = Look(canary, Waiting(), Baselines(stable, stable), fraction=1.0)
    readings = tuple(GateTest(gate, config).look(look) for gate in gates_of(config))
    return Assessment(together(readings), readings)


def together(readings: tuple[Reading, ...]) -> Verdict:
    """Return what all gates say: one that fails decides, and all must pass."""
    said = {reading.verdict for reading in readings}
    if Verdict.ROLL_BACK in said:
        return Verdict.ROLL_BACK
    return Verdict.PROMOTE if said == {Verdict.PROMOTE} else Verdict.WAIT
