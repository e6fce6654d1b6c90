"""Engine: the seam between an LLM replica and what generates its tokens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from serve_app.contracts import EngineLoad

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

PROBE_SCOPE = "manta.probe"  # in the scope of a request that the replica sends itself


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    """A version of a LoRA adapter in an engine. Equal ones answer alike: another revision has another digest."""

    key: str  # <adapter>/<version>
    public_name: str  # what requests name as their model, and answers too: <model>:<adapter>
    digest: str  # of the version's configuration and of its files


# The adapter of the request that is being served. Tasks that a request starts inherit it, so that an engine's app can look it
# up wherever it reads the request's model.
CURRENT_ADAPTER: ContextVar[LoadedAdapter | None] = ContextVar("current_adapter", default=None)


class AdapterEngine(Protocol):
    """Keeps LoRA adapters in memory. Its app answers a request by ``CURRENT_ADAPTER``."""

    async def load(self, adapter: LoadedAdapter, folder: str) -> None:
        """Take an adapter into memory. Raises when its weights do not fit the model."""
        ...

    async def unload(self, adapter: LoadedAdapter) -> None:
        """Free an adapter that no request uses."""
        ...


class Engine(Protocol):
    """Generates tokens behind an OpenAI-compatible ASGI app."""

    async def start(self) -> AsgiApp:
        """Load the model and return the app that serves it. Raises when the model cannot be loaded."""
        ...

    def phase(self) -> str:
        """Return what the start does right now (download, load or warm-up); empty before and after it."""
        ...

    def load(self) -> EngineLoad:
        """Return waiting, running, slots, KV-cache use and tokens per second; never blocks."""
        ...

    def steps(self) -> int:
        """Return a number that grows while the engine works on any request, and stands still while it does not."""
        ...

    def adapters(self) -> AdapterEngine | None:
        """Return what loads LoRA adapters, once the engine has started; None where it has no room for any."""
        ...

    def is_dead(self) -> bool:
        """Whether the engine has died, so that what it says of requests is no answer; never blocks."""
        ...

    async def check_health(self) -> None:
        """Raise when the engine can no longer serve."""
        ...

    async def stop(self) -> None:
        """Free everything the engine holds."""
        ...
