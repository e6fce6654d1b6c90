"""Limits: one replica that keeps the ledger of all keys' limits."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

from serve_app.limits.ledger import Ledger
from serve_app.limits.messages import Message, Reply


class Limits:
    """The ledger behind a Serve handle. It carries no traffic: Routers exchange with it about once a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger = Ledger(epoch=uuid.uuid4().hex, clock=clock)

    async def exchange(self, message: Message) -> Reply:
        """Take a Router's reports and return what it may do."""
        return self._ledger.exchange(message)
