"""Controller: keeps the traffic table by the configuration, the gates and the operator. Decisions are made in plan.py."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any, Protocol

from serve_app.config import Config, RolloutConfig
from serve_app.errors import UnknownRollout
from serve_app.rollout.commands import Verb, obey
from serve_app.rollout.criteria import SHORT_S
from serve_app.rollout.document import RoutingDocument, declared_split, parts, revisions
from serve_app.rollout.gathering import LONG_S, Gathering
from serve_app.rollout.history import Decision, History, decision
from serve_app.rollout.load_test_gate import read, step_of
from serve_app.rollout.load_tests import LoadTestResult
from serve_app.rollout.plan import ACTIVE, Declared, Move, Phase, Progress, Seen, advance, reconcile
from serve_app.rollout.table import Split, TrafficTable
from serve_app.rollout.verdict import Analysis, Assessment, Baselines, Reading, Verdict, together

logger = logging.getLogger("ray.serve")


class Fleet(Protocol):
    """What the directory knows of a variant's replicas."""

    def ready(self, model: str, variant: str, revision: str) -> int | None:
        """Return how many are ready; None while that is unknown."""
        ...

    def losses(self, model: str, variant: str, revision: str) -> int:
        """Return how many died or failed to start, since this process began."""
        ...


class Kept(Config):
    """What outlives the process."""

    version: int = 0
    splits: tuple[Split, ...] = ()
    progress: tuple[Progress, ...] = ()
    history: tuple[Decision, ...] = ()


class Controller:
    """All rollouts of a platform. ``table`` is in force; it is replaced as a whole, with a higher version."""

    def __init__(self, gathering: Gathering, *, wall: Callable[[], float] = time.time) -> None:
        self.table = TrafficTable()
        self.history = History()
        self._gathering = gathering
        self.wall = wall
        self.told: Callable[[Decision], None] = lambda _: None  # of every decision
        self.load_tests: Mapping[str, LoadTestResult] = {}  # the last result of each scenario
        self._declared: dict[str, Declared] = {}
        self._models: frozenset[str] = frozenset()
        self._sleepers: frozenset[tuple[str, str]] = frozenset()  # variants that need no replica to be ready
        self._progress: dict[str, Progress] = {}
        self._analyses: dict[str, Analysis] = {}
        self._assessments: dict[str, Assessment] = {}
        self._losses: dict[str, int] = {}
        self._restored: Mapping[str, Any] = {}  # what an earlier process's gates had seen, until each is asked for

    def declare(self, document: RoutingDocument) -> None:
        """Take a configuration: what it says anew is in force at once, what it repeats changes nothing."""
        self._models = frozenset(model.name for model in document.models)
        self._sleepers = frozenset((m.name, v.name) for m in document.models for v in m.variants if v.may_sleep)
        self._declared = {part.name: Declared(declared_split(part), revisions(part), part.rollout) for part in parts(document)}
        for name in self._progress.keys() - self._declared.keys():
            self._drop(name)
        self._gathering.forget({(name, variant) for name, d in self._declared.items() for variant in d.split.weights})
        for name, declared in self._declared.items():
            move = reconcile(self._progress.get(name), declared, now_s=self.wall())
            if move is not None:
                self._move(move)
        self._retable()

    def tick(self, fleet: Fleet, *, now_s: float) -> None:
        """Look at every running rollout, once a second or so; ``now_s`` is the clock of the gathering."""
        self._gathering.tick(now_s=now_s)
        for name in [name for name, progress in self._progress.items() if progress.phase in ACTIVE]:
            try:
                self._step(name, fleet, now_s=now_s)
            except Exception:  # one that cannot be looked at must not keep the others from it
                logger.exception("the rollout of %s could not be looked at; it stays where it is", name)
        self._retable()

    def command(self, name: str, verb: Verb, *, by: str) -> Decision:
        """Do what an operator says, and return the record of it. Raises UnknownRollout, RolloutConflict."""
        declared = self.require(name)
        made = self._move(obey(verb, self._progress.get(name), declared, now_s=self.wall(), by=by))
        self._retable()
        return made

    def require(self, name: str) -> Declared:
        """Return what is declared of a model or pipeline. Raises UnknownRollout."""
        if (declared := self._declared.get(name)) is None:
            raise UnknownRollout(name)
        return declared

    def progress(self, name: str) -> Progress | None:
        """Return how far a rollout has come, or None where there is none."""
        return self._progress.get(name)

    def assessment(self, name: str) -> Assessment | None:
        """Return what the gates read last, while a rollout runs."""
        return self._assessments.get(name)

    def declared(self) -> Mapping[str, Declared]:
        """Return what the configuration says, by model and pipeline."""
        return self._declared

    def keep(self) -> Kept:
        """Return what must outlive the process."""
        return Kept(
            version=self.table.version,
            splits=self.table.splits,
            progress=tuple(self._progress.values()),
            history=tuple(self.history.all()),
        )

    def evidence(self) -> dict[str, Any]:
        """Return what the gates have seen so far, as JSON."""
        return {name: {"of": self._stage(name), "state": analysis.state()} for name, analysis in self._analyses.items()}

    def restore(self, kept: Kept, evidence: Mapping[str, Any]) -> None:
        """Go on from what an earlier process kept. Call it before ``declare``."""
        self.table = TrafficTable(version=kept.version, splits=kept.splits)
        self.history = History(kept.history)
        self._progress = {progress.name: progress for progress in kept.progress}
        self._restored = dict(evidence)

    def _step(self, name: str, fleet: Fleet, *, now_s: float) -> None:
        declared = self._declared[name]
        if declared.rollout is None:
            return
        seen = self._look(name, declared.rollout, fleet, now_s=now_s)
        progress, action = advance(self._progress[name], declared, seen, now_s=self.wall())
        if action is None:
            self._progress[name] = progress
        else:
            self._move(Move(action, progress))

    def _look(self, name: str, rollout: RolloutConfig, fleet: Fleet, *, now_s: float) -> Seen:
        ready, crashes = None, 0
        if name in self._models:
            which = (name, rollout.variant, self._declared[name].revisions[rollout.variant])
            ready = fleet.ready(*which)
            if ready == 0 and (name, rollout.variant) in self._sleepers:
                ready = None  # a request wakes it
            losses = fleet.losses(*which)
            crashes = max(0, losses - self._losses.get(name, losses))
            self._losses[name] = losses
        tested = self._tested(name, rollout)
        assessment = self._assess(name, rollout, now_s=now_s)
        if tested is not None:
            readings = (*assessment.readings, tested)
            assessment = Assessment(together(readings), readings)
        self._assessments[name] = assessment
        failure = "; ".join(r.reason for r in assessment.readings if r.verdict is Verdict.ROLL_BACK)
        is_tested = tested is None or tested.verdict is Verdict.PROMOTE
        return Seen(ready, crashes, failure, is_good=assessment.verdict is Verdict.PROMOTE, is_tested=is_tested)

    def _tested(self, name: str, rollout: RolloutConfig) -> Reading | None:
        """Return what the load test says that the step needs, or None where it needs none."""
        gate, step = rollout.gates.load_test, step_of(self._progress[name], self._declared[name])
        if gate is None or step is None:
            return None
        return read(gate, self.load_tests.get(gate.scenario), step, now_s=self.wall())

    def _assess(self, name: str, rollout: RolloutConfig, *, now_s: float) -> Assessment:
        canary, baseline = (name, rollout.variant), (name, rollout.baseline)
        seen = self._gathering
        long, short = (seen.window(baseline, last_s=last_s, now_s=now_s) for last_s in (LONG_S, SHORT_S))
        return self._analysis(name, rollout).observe(
            seen.latest(canary),
            seen.waiting(canary),
            Baselines(long, short, seen.waiting(baseline)),
            now_s=now_s,
        )

    def _analysis(self, name: str, rollout: RolloutConfig) -> Analysis:
        found = self._analyses.get(name)
        if found is None:
            found = self._analyses[name] = Analysis(rollout.gates)
            if (kept := self._restored.get(name)) is not None:
                if kept.get("of") == self._stage(name):  # that of an earlier step, or rollout, tells nothing
                    found.restore(kept.get("state", {}))
                self._restored = {key: value for key, value in self._restored.items() if key != name}
        return found

    def _stage(self, name: str) -> list[float]:
        """Return which rollout this is, and which step of it."""
        progress = self._progress[name]
        return [progress.started_s, progress.step]

    def _move(self, move: Move) -> Decision:
        """Put a rollout into another state, and write down why."""
        action, progress = move
        name = progress.name
        before = self._weights(name)
        readings = [asdict(reading) for reading in a.readings] if (a := self._assessments.get(name)) is not None else []
        self._progress[name] = progress
        made = decision(action, progress, before=before, at_s=self.wall(), readings=readings)
        self.history.add(made)
        self.told(made)
        self._renew(action, name)
        logger.info("rollout of %s: %s to %s: %s", name, action, made.weights, made.reason)
        return made

    def _renew(self, action: str, name: str) -> None:
        """Let the gates begin anew where what they have seen no longer tells."""
        if action in ("started", "restarted", "overridden", "changed", "resumed", "promoted"):
            self._analyses.pop(name, None)
            self._assessments.pop(name, None)
            self._losses.pop(name, None)
            self._restored = {key: value for key, value in self._restored.items() if key != name}
        elif action == "advanced" and name in self._analyses:
            self._analyses[name].begin_step()

    def _weights(self, name: str) -> Mapping[str, int]:
        split = self.table.by_name.get(name)
        return split.weights if split is not None else {}

    def _drop(self, name: str) -> None:
        for book in (self._progress, self._analyses, self._assessments, self._losses):
            book.pop(name, None)

    def _retable(self) -> None:
        """Make the table say what is in force; it gets a new version only if it says something else."""
        splits = tuple(self._split(declared) for declared in self._declared.values())
        if TrafficTable(splits=splits).digest != self.table.digest:
            self.table = TrafficTable(version=self.table.version + 1, splits=splits)
        elif splits != self.table.splits:
            self.table = TrafficTable(version=self.table.version, splits=splits)

    def _split(self, declared: Declared) -> Split:
        progress = self._progress.get(declared.name)
        if progress is None or progress.phase is Phase.OVERRIDDEN:
            return declared.split
        # No model_copy: that would take along what the declared split has computed of its own shares.
        return Split(name=declared.name, shares=progress.shares, baseline=declared.split.baseline)


def statuses(controller: Controller, names: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """Return how every model and pipeline that has several variants stands, as JSON."""
    wanted = controller.declared() if names is None else names
    return [_status(controller, controller.declared()[name]) for name in wanted if name in controller.declared()]


def _status(controller: Controller, declared: Declared) -> dict[str, Any]:
    progress, assessment = controller.progress(declared.name), controller.assessment(declared.name)
    split = controller.table.by_name[declared.name]
    return {
        "name": declared.name,
        "phase": None if progress is None else progress.phase.value,
        "reason": "" if progress is None else progress.reason,
        "step": None if progress is None else progress.step,
        "steps": [] if declared.rollout is None else [step.model_dump() for step in declared.rollout.steps],
        "step_since_s": None if progress is None else progress.step_since_s,
        "crashes": 0 if progress is None else progress.crashes,
        "variant": declared.rollout.variant if declared.rollout is not None else None,
        "baseline": split.baseline,
        "weights": dict(split.weights),
        "declared_weights": dict(declared.split.weights),
        "withdrawn": sorted(split.withdrawn),
        "verdict": None if assessment is None else assessment.verdict.value,
        "readings": [] if assessment is None else [asdict(reading) for reading in assessment.readings],
    }
