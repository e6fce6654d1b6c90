"""Shadow: copies of requests for a variant that does not answer them."""

from __future__ import annotations

from serve_app.rollout.telemetry import ShadowStats, VariantKey


class Shadows:
    """The copies of one Router, and what became of them."""

    def __init__(self) -> None:
        self._stats: dict[VariantKey, ShadowStats] = {}

    def take(self) -> dict[VariantKey, ShadowStats]:
        """Return what was counted since the last call."""
        taken, self._stats = self._stats, {}
        return taken
