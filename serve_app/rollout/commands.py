"""What an operator may do to a rollout by hand, as steps from one state to the next. Pure."""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType

from serve_app.errors import RolloutConflict
from serve_app.rollout.plan import ACTIVE, Declared, Move, Phase, Progress, begin, next_step, withdrawn

# Of what held a rollout, when an operator lets it go on: or it would be held again at once.
FORGIVEN = MappingProxyType({"crashes": 0, "unready_since_s": None})


class Verb(StrEnum):
    """What `manta rollout` and the admin API can ask for."""

    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"  # go on to the next step now, whatever the gates say
    PROMOTE_FULLY = "promote-fully"  # to the last one
    ABORT = "abort"  # everything back to the baseline, now
    RESTART = "restart"


def obey(verb: Verb, progress: Progress | None, declared: Declared, *, now_s: float, by: str) -> Move:
    """Return what a command makes of a rollout. Aborting works without one: the emergency exit of plain weights.

    Raises:
        RolloutConflict: there is no rollout, or it is not in a state for this; the message says in which.
    """
    reason = f"by {by}"
    if verb is Verb.ABORT:
        return _abort(progress, declared, now_s=now_s, reason=reason)
    if declared.rollout is None:
        raise RolloutConflict(f"{declared.name!r} has no rollout in its configuration; its declared weights are in force")
    if verb is Verb.RESTART:
        return Move("restarted", begin(declared, now_s=now_s, reason=reason))
    progress = _require(verb, progress, declared)
    if verb is Verb.PAUSE:
        return Move("paused", progress.model_copy(update={"phase": Phase.PAUSED, "reason": reason}))
    if verb is Verb.RESUME:
        return Move("resumed", _resumed(progress, now_s=now_s, reason=reason))
    return _promote(progress, declared, now_s=now_s, reason=reason, is_full=verb is Verb.PROMOTE_FULLY)


_FITS = {
    Verb.PAUSE: frozenset({Phase.WAITING, Phase.RUNNING}),
    Verb.RESUME: frozenset({Phase.PAUSED, Phase.HELD}),
    Verb.PROMOTE: ACTIVE,
    Verb.PROMOTE_FULLY: ACTIVE,
}


def _require(verb: Verb, progress: Progress | None, declared: Declared) -> Progress:
    phase = None if progress is None else progress.phase
    if progress is None or phase not in _FITS[verb]:
        fits = ", ".join(sorted(_FITS[verb]))
        raise RolloutConflict(
            f"the rollout of {declared.name!r} is {phase or 'not begun'}; {verb} works while it is one of: {fits}"
        )
    return progress


def _abort(progress: Progress | None, declared: Declared, *, now_s: float, reason: str) -> Move:
    if len(declared.split.shares) < 2:
        raise RolloutConflict(f"{declared.name!r} has one variant only; there is nothing to go back to")
    if progress is not None and progress.phase in (Phase.ABORTED, Phase.ROLLED_BACK):
        raise RolloutConflict(f"everything of {declared.name!r} goes to its baseline already: it is {progress.phase}")
    if progress is None or declared.rollout is None:  # of plain weights only what is declared now counts
        progress = begin(declared, now_s=now_s, reason=reason)
    return Move("aborted", withdrawn(progress, declared, Phase.ABORTED, reason=reason, now_s=now_s))


def _resumed(progress: Progress, *, now_s: float, reason: str) -> Progress:
    changes: dict[str, object] = {"phase": Phase.WAITING if progress.step < 0 else Phase.RUNNING, "reason": reason}
    if progress.step < 0:
        changes["step_since_s"] = now_s  # the variant gets its time to be ready once more
    if progress.phase is Phase.HELD:
        changes |= {**FORGIVEN, "tested_since_s": now_s}
    return progress.model_copy(update=changes)


def _promote(progress: Progress, declared: Declared, *, now_s: float, reason: str, is_full: bool) -> Move:
    if progress.phase is Phase.HELD:
        progress = progress.model_copy(update=FORGIVEN)
    made, action = next_step(progress, declared, now_s=now_s, reason=reason)
    while is_full and action != "completed":
        made, action = next_step(made, declared, now_s=now_s, reason=reason)
    return Move("promoted", made)
