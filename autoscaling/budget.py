"""Budget: accelerators that several deployments share, by priority, never more than there are. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

LINGER_S = 20.0  # replicas that were asked to go count this long, until the directory says that they drain
TURN_S = 300.0  # what one of the same priority would rather have is left to its holder this long
BISECTIONS = 30


@dataclass(frozen=True, slots=True)
class Claim:
    """What one deployment may have, and would like to have."""

    units: int  # accelerators of one replica: a TP x PP group is given as a whole
    priority: int = 5  # higher ones first
    least: int = 0  # replicas
    wanted: int = 0
    draining: int = 0  # replicas beside `target` that are on their way out, as the directory has it
    alive: int = 0  # replicas that the directory names, whatever their state
    held_s: float = -math.inf  # when it had any last


def allocate(claims: dict[str, Claim], budget: int) -> dict[str, int]:
    """Return the replicas that each deployment gets of ``budget`` accelerators.

    First everybody's least number, then what is wanted: by priority, and within one priority to whom has the smallest
    share of what it wants, or to whom has had none for the longest. Replicas that need no accelerator are given as wanted.
    """
    if sum(claim.units * claim.wanted for claim in claims.values()) <= budget:
        return {app: claim.wanted for app, claim in claims.items()}
    given = {app: min(claim.least, claim.wanted) if claim.units else claim.wanted for app, claim in claims.items()}
    left = budget - sum(claims[app].units * count for app, count in given.items())
    for priority in sorted({claim.priority for claim in claims.values()}, reverse=True):
        left = _share(claims, given, [app for app, claim in claims.items() if claim.priority == priority], left=left)
    return given


def _share(claims: dict[str, Claim], given: dict[str, int], apps: list[str], *, left: int) -> int:
    """Give to these what fits, and return the accelerators that are left."""
    least = {app: given[app] for app in apps}

    def at(share: float) -> dict[str, int]:
        return {app: max(least[app], math.ceil(share * claims[app].wanted)) for app in apps}

    def cost(counts: dict[str, int]) -> int:
        return sum(claims[app].units * (count - least[app]) for app, count in counts.items())

    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):  # the largest share that everybody can have; what is left over goes one by one
        middle = (low + high) / 2
        low, high = (middle, high) if cost(at(middle)) <= left else (low, middle)
    given.update(at(low))
    left -= cost(at(low))
    while short := [app for app in apps if given[app] < claims[app].wanted and claims[app].units <= left]:
        poorest = min(short, key=lambda app: (given[app] / claims[app].wanted, claims[app].held_s, app))
        given[poorest] += 1
        left -= claims[poorest].units
    return left


@dataclass(slots=True)
class _Account:
    claim: Claim
    target: int = 0
    short_since_s: float | None = None  # since when it is to give something to one of its own priority
    leaving: deque[tuple[float, int]] = field(default_factory=deque)  # (until when they count, replicas asked to go)

    def held(self, now_s: float) -> int:
        while self.leaving and self.leaving[0][0] < now_s:
            self.leaving.popleft()
        return max(self.target + sum(count for _, count in self.leaving) + self.claim.draining, self.claim.alive)


class Ledger:
    """Who holds how many accelerators. One per process; a grant counts from the moment it is given."""

    def __init__(self, budget: int | None = None) -> None:
        self.budget = budget
        self._accounts: dict[str, _Account] = {}

    def keep(self, apps: Collection[str], draining: Mapping[str, int], *, now_s: float) -> None:
        """Forget the deployments that nobody asks about any more, once nothing of theirs is left."""
        for app in [app for app in self._accounts if app not in apps]:
            account = self._accounts[app]
            account.claim = replace(account.claim, least=0, wanted=0, draining=draining.get(app, 0), alive=0)
            self._asked(account, 0, now_s)
            if not account.held(now_s):
                del self._accounts[app]

    def see(self, app: str, claim: Claim, *, target: int, now_s: float) -> None:
        """Take note of a deployment as it is, whatever it may want."""
        self._asked(self._accounts.setdefault(app, _Account(claim)), target, now_s)

    def knows(self, app: str) -> bool:
        """Whether a deployment has been seen."""
        return app in self._accounts

    def grant(self, app: str, claim: Claim, *, target: int, now_s: float) -> int:
        """Return how many replicas a deployment may ask for now, of those that it wants.

        Fewer than ``target`` where a higher priority needs its accelerators; more only as far as others have given theirs
        back. Without a budget: what is wanted.
        """
        account = self._accounts.setdefault(app, _Account(claim))
        account.claim = replace(claim, held_s=now_s if target else account.claim.held_s)
        self._asked(account, target, now_s)
        granted = claim.wanted
        if self.budget is not None and claim.units:
            cap = self._cap(app, account, now_s=now_s)
            granted = cap if cap <= target else max(target, min(cap, self._fits(account, now_s)))
        self._asked(account, granted, now_s)
        return granted

    def _cap(self, app: str, account: _Account, *, now_s: float) -> int:
        """Return the share of a deployment. What one of its own priority is to have of it goes over after a while only."""
        budget = self.budget or 0
        claims = {name: each.claim for name, each in self._accounts.items()}
        cap, held = allocate(claims, budget)[app], min(account.target, account.claim.wanted)
        if cap >= held:
            account.short_since_s = None
            return cap
        content = {  # were those of its priority content with what they have
            name: replace(each.claim, wanted=min(each.claim.wanted, max(each.target, each.claim.least)))
            for name, each in self._accounts.items()
            if each.claim.priority == account.claim.priority
        }
        due = min(held, allocate(claims | content, budget)[app])
        if account.short_since_s is None:
            account.short_since_s = now_s
        if now_s - account.short_since_s < TURN_S:
            return max(cap, due)
        account.short_since_s = None
        return cap

    def in_use(self, now_s: float) -> int:
        """Return the accelerators that are held, those of draining replicas included."""
        return sum(account.claim.units * account.held(now_s) for account in self._accounts.values())

    def _fits(self, account: _Account, now_s: float) -> int:
        """Return the most replicas of a deployment for which there is room beside what is held."""
        units, held = account.claim.units, account.held(now_s)
        others = self.in_use(now_s) - units * held
        leaving = held - account.target
        return ((self.budget or 0) - others) // units - leaving

    @staticmethod
    def _asked(account: _Account, target: int, now_s: float) -> None:
        if target < account.target:
            account.leaving.append((now_s + LINGER_S, account.target - target))
        account.target = target
