"""AdapterErrand: which version of a LoRA adapter answers a request, and which versions have failed it."""

from __future__ import annotations

from collections.abc import Callable

from serve_app.contracts import AdapterTag
from serve_app.errors import AdapterUnavailable, UnknownModel
from serve_app.view import RoutingView

MOST_MISSES = 2  # replicas that may fail to load a version: what is missing or broken is so for all of them


class AdapterErrand:
    """The part of an errand that is an adapter's. The variant of its model is chosen as for any other request."""

    __slots__ = ("_failed", "_misses", "_suspect", "_view", "name", "version")

    def __init__(self, name: str, view: Callable[[], RoutingView]) -> None:
        self.name = name
        self.version = ""  # until one is chosen
        self._view = view
        self._failed: set[str] = set()
        self._misses = 0
        self._suspect: tuple[str, str] | None = None  # the variant that could not load a version, which another is to try

    @property
    def key(self) -> tuple[str, str]:
        """What attempts are counted for."""
        return self.name, self.version

    @property
    def has_spare(self) -> bool:
        """Whether the baseline may answer what this version has failed."""
        view = self._view()
        callee = view.adapters.get(self.name)
        if callee is None or not callee.model.fallback:
            return False
        baseline = view.split(self.name).baseline
        return self.version != baseline and baseline not in self._failed

    @property
    def is_out(self) -> bool:
        """Whether the version was withdrawn and the baseline can take its place."""
        return self.has_spare and self.version in self._view().split(self.name).withdrawn

    def choose(self, affinity: Callable[[], str]) -> AdapterTag:
        """Return the version that owns the conversation, or the one that stands in for it. Raises UnknownModel: it is gone."""
        view = self._view()
        callee = view.adapters.get(self.name)
        if callee is None or callee.adapter is None:
            raise UnknownModel(self.name)
        tags = callee.adapter.tags
        # As of variants: the key of a long conversation takes long to make.
        own = view.adapter_version(callee.adapter, affinity()) if len(tags) > 1 else callee.adapter.versions[0].name
        self.version = view.split(self.name).baseline if own in self._failed else own
        return tags[self.version]

    def give_up(self) -> None:
        """Leave the request to the baseline."""
        self._failed.add(self.version)
        self._misses = 0

    def miss(self, variant: str, *, has_other: bool) -> AdapterUnavailable:
        """Note that a replica of a variant could not load the version; ``has_other``: the model's baseline is tried next.

        Raises:
            AdapterUnavailable: there is nothing left to try.
        """
        error = AdapterUnavailable(self.name)
        self._misses += 1
        if has_other:
            self._suspect = (variant, self.version)
        elif self.has_spare:  # rather than on another replica, as of variants on trial
            self.give_up()
        elif self._misses >= MOST_MISSES:
            raise error
        return error

    def culprit(self) -> str | None:
        """Return the variant that could not load what the one that has now answered could, or None. It is told once."""
        suspect, self._suspect = self._suspect, None
        return suspect[0] if suspect is not None and suspect[1] == self.version else None
