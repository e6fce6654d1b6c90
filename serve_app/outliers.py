"""Outliers: replicas that fail while others do not are left alone for a while, and then tried with one request at a time.

Consecutive failures, times that grow, and a bound on how many are left alone are Envoy's outlier detection
(https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier). What follows the time is the half-open
state of the circuit breaker (Nygard, *Release It!*, 2007): one request that is answered closes it, one that is not opens it
again for longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from serve_app.config_router import OutlierEjectionConfig
from serve_app.rollout.telemetry import FAILURES, Outcome

DRAINING = "draining"  # why a replica is left alone that said so itself


class Standing(Enum):
    """How far a Router trusts a replica."""

    TRUSTED = auto()
    EJECTED = auto()
    ON_TRIAL = auto()  # its time is over; one request at a time, until one succeeds


@dataclass(slots=True)
class Health:
    """What one Router has seen of one replica lately."""

    standing: Standing = Standing.TRUSTED
    reason: str = ""  # why it is not trusted: an outcome, or that it drains
    until_s: float = 0.0  # of an ejection
    failures: int = 0  # in a row
    ejections: int = 0  # in a row
    trusted_s: float = 0.0  # since when, after the last of them

    @property
    def is_outlier(self) -> bool:
        """Whether it is not trusted because of requests that it failed, though it can be reached."""
        return self.standing is not Standing.TRUSTED and self.reason not in (DRAINING, Outcome.UNREACHABLE)

    @property
    def is_unreachable(self) -> bool:
        """Whether it is left alone because it could not be reached."""
        return self.standing is Standing.EJECTED and self.reason == Outcome.UNREACHABLE

    def trust(self, now_s: float) -> None:
        """End an ejection or a trial."""
        self.standing, self.reason, self.trusted_s = Standing.TRUSTED, "", now_s

    def end_ejection(self, now_s: float) -> None:
        """Put it on trial when its time is over; one that did not fail is trusted again."""
        if self.standing is not Standing.EJECTED:
            return
        if self.reason == DRAINING:
            self.trust(now_s)
        else:
            self.standing = Standing.ON_TRIAL

    def eject(self, reason: str, config: OutlierEjectionConfig, now_s: float) -> None:
        """Leave it alone, for twice as long as the last time if that was not long ago."""
        if self.standing is Standing.TRUSTED and now_s - self.trusted_s > config.max_s:
            self.ejections = 0
        # A long row of ejections must not become a number that no float holds.
        seconds = min(config.max_s, config.base_s * 2.0 ** min(self.ejections, 32))
        self.ejections += 1
        self.failures = 0
        self.standing, self.reason, self.until_s = Standing.EJECTED, reason, now_s + seconds

    def leave(self, until_s: float) -> None:
        """Leave a replica alone that drains; what it failed before stays known."""
        self.standing, self.reason, self.until_s = Standing.EJECTED, DRAINING, max(self.until_s, until_s)


def judge(health: Health, outcome: Outcome, *, is_probe: bool, config: OutlierEjectionConfig) -> Verdict:
    """Return what an outcome of a request says about the replica that had it; counts the failures in a row.

    Requests from before an ejection say nothing once the replica is ejected or on trial: dozens may end at once, and each
    would make its time longer.
    """
    if outcome is not Outcome.OK and outcome is not Outcome.REJECTED and outcome not in FAILURES:
        return Verdict.NOTHING  # the client left, or it was taken back
    if health.standing is Standing.EJECTED or (health.standing is Standing.ON_TRIAL and not is_probe):
        return Verdict.NOTHING
    if outcome not in FAILURES:
        health.failures = 0
        return Verdict.TRUST if is_probe else Verdict.NOTHING
    health.failures += 1
    if outcome is Outcome.UNREACHABLE:
        return Verdict.EJECT
    return Verdict.SUSPECT if is_probe or health.failures >= config.consecutive_failures else Verdict.NOTHING


class Verdict(Enum):
    """What is to become of a replica."""

    NOTHING = auto()
    TRUST = auto()
    SUSPECT = auto()  # eject it, if the others can spare it
    EJECT = auto()


def can_spare(*, ready: int, outliers: int, trusted: int, config: OutlierEjectionConfig) -> bool:
    """Return whether one more of the ready replicas may be ejected for what it failed.

    Args:
        ready: all replicas that are ready, this one included.
        outliers: others of them that are not trusted for such a reason.
        trusted: others of them that are trusted.
        config: how many may be.
    """
    return trusted > 0 and outliers + 1 <= config.max_ejected_ratio * ready
