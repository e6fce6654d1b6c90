"""Budget: accelerators that several deployments share, by priority, never more than there are. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

LINGER_S = 15.0  # replicas that were asked to go count this long, unless the directory goes on naming them


@dataclass(frozen=True, slots=True)
class Claim:
    """What one deployment may have, and would like to have."""

    units: int  # accelerators of one replica: a TP x PP group is given as a whole
    priority: int = 5  # higher ones first
    least: int = 0  # replicas
    wanted: int = 0
    alive: int = 0  # that the directory names, draining ones too


def allocate(claims: dict[str, Claim], budget: int) -> dict[str, int]:
    """Return the replicas that each deployment gets of ``budget`` accelerators.

    First everybody's least number, then what is wanted: by priority, and within one priority to whom has the smallest
    share of what it wants. Replicas that need no accelerator are given as wanted.
    """
    given = {app: min(claim.least, claim.wanted) if claim.units else claim.wanted for app, claim in claims.items()}
    left = budget - sum(claims[app].units * count for app, count in given.items())
    for priority in sorted({claim.priority for claim in claims.values()}, reverse=True):
        left = _share(claims, given, [app for app, claim in claims.items() if claim.priority == priority], left=left)
    return given


def _share(claims: dict[str, Claim], given: dict[str, int], apps: list[str], *, left: int) -> int:
    """Give out replicas one by one, and return the accelerators that are left."""
    while True:
        short = [app for app in apps if given[app] < claims[app].wanted and claims[app].units <= left]
        if not short:
            return left
        poorest = min(short, key=lambda app: (given[app] / claims[app].wanted, app))
        given[poorest] += 1
        left -= claims[poorest].units


@dataclass(slots=True)
class _Account:
    claim: Claim
    asked: deque[tuple[float, int]] = field(default_factory=deque)  # (until when it counts, replicas), ever fewer
    target: int = 0

    def held(self, now_s: float) -> int:
        while self.asked and self.asked[0][0] < now_s:
            self.asked.popleft()
        lingering = max((count for _, count in self.asked), default=0)
        return max(self.target, lingering, self.claim.alive)


class Ledger:
    """Who holds how many accelerators. One per process; a grant counts from the moment it is given."""

    def __init__(self, budget: int | None = None) -> None:
        self.budget = budget
        self._accounts: dict[str, _Account] = {}

    def keep(self, apps: Collection[str], alive: Mapping[str, int], *, now_s: float) -> None:
        """Forget the deployments that are not among these, once nothing of theirs is left."""
        for app in [app for app in self._accounts if app not in apps]:
            account = self._accounts[app]
            account.claim = replace(account.claim, least=0, wanted=0, alive=alive.get(app, 0))
            self._asked(account, 0, now_s)
            if not account.held(now_s):
                del self._accounts[app]

    def grant(self, app: str, claim: Claim, *, target: int, now_s: float) -> int:
        """Return how many replicas a deployment may ask for now, of those that it wants.

        Fewer than ``target`` where a higher priority needs its accelerators; more only as far as others have given theirs
        back. Without a budget: what is wanted.
        """
        account = self._accounts.setdefault(app, _Account(claim))
        account.claim = claim
        self._asked(account, target, now_s)
        granted = claim.wanted
        if self.budget is not None and claim.units:
            cap = allocate({name: each.claim for name, each in self._accounts.items()}, self.budget)[app]
            granted = cap if cap <= target else max(target, min(cap, self._fits(account, now_s)))
        self._asked(account, granted, now_s)
        return granted

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
            account.asked.append((now_s + LINGER_S, account.target))
        account.target = target
