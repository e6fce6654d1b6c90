"""Lease and Target: a request's place on a replica, and the variant on whose replicas it may have one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple


class Target(NamedTuple):
    """The variant that is to take a request, and how many one Router may have open on each of its replicas."""

    model: str
    variant: str
    max_leases: int
    adapter: str | None = None  # what the replica should have loaded, as ``AdapterTag.key``


VariantKey = tuple[str, str]  # (model, variant)
Choose = Callable[[], Target]


@dataclass(eq=False, slots=True)
class Lease:
    """A request in flight on a replica. Release it exactly when the request's stream has ended."""

    replica_id: str
    variant: str
    url: str
    has_adapter: bool  # which the request needs, by the replica's last report; True where it needs none
    _release: Callable[[], None] = field(repr=False)
    is_lost: bool = False  # the directory has forgotten the replica, and not because it drained
    on_lost: Callable[[], None] | None = field(default=None, repr=False)  # called at most once, when that happens
    number: int = 0  # among its replica set's requests
    is_suspect: bool = False  # its replica was left alone for what it failed since this was sent
    is_trial: bool = False  # what becomes of it decides whether the replica is trusted again
    _is_open: bool = True

    def lose(self) -> None:
        """Tell whoever holds it that the replica is lost."""
        self.is_lost = True
        tell, self.on_lost = self.on_lost, None
        if tell is not None:
            tell()

    def release(self) -> None:
        """Give the place back; a second call does nothing."""
        if self._is_open:
            self._is_open = False
            self._release()
