"""Engine: the seam between an LLM replica and what generates its tokens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from serve_app.contracts import EngineLoad

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class Engine(Protocol):
    """Generates tokens behind an OpenAI-compatible ASGI app."""

    async def start(self) -> AsgiApp:
        """Load the model and return the app that serves it. Raises when the model cannot be loaded."""
        ...

    def load(self) -> EngineLoad:
        """Return waiting, running, slots, KV-cache use and tokens per second; never blocks."""
        ...

    async def check_health(self) -> None:
        """Raise when the engine can no longer serve."""
        ...

    async def stop(self) -> None:
        """Free everything the engine holds."""
        ...
