"""No system at all: the client talks to the engine's own server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.data_path.contracts import Endpoint, Engine


class Bare:
    """The floor that every other system is compared with."""

    name = "bare"

    @contextmanager
    def running(self, engine: Engine) -> Iterator[Endpoint]:
        """Yield the engine's own endpoint; there is nothing to start."""
        yield engine.endpoint
