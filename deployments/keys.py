"""KeyFollower: keeps a Router's keys on the file that the routing document names."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from serve_app.config_auth import ApiKeyConfig
from serve_app.config_error import ConfigError
from serve_app.gateway import Gateway
from serve_app.key_file import KeyFile
from serve_app.observing.audit import KEYS_FILE, PLATFORM, Audit, Entry, Event
from serve_app.observing.audit_keys import key_entries, keys_digest
from serve_app.view import RoutingView

logger = logging.getLogger("ray.serve")

POLL_S = 2.0


class KeyFollower:
    """The file of keys of the routing document in force.

    Raises:
        ConfigError: the file is missing or bad at the start; a Router without it would know nobody.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._view: RoutingView | None = None  # that has the keys
        self._keys: tuple[ApiKeyConfig, ...] | None = None  # that are written down
        self._audit = Audit()
        self._file = self._open(gateway.view)
        self.apply()

    def apply(self) -> None:
        """Give the view in force its keys; to be called before anything else runs after the view may have changed."""
        view = self._gateway.view
        if view is self._view:
            return
        if (None if self._file is None else str(self._file.path)) != view.document.auth.keys_file:
            try:
                self._file = self._open(view)
            except ConfigError:
                logger.exception("the new file of keys cannot be used: none of its keys is accepted")
                self._file = None
        self._put(view)

    async def poll(self) -> None:
        """Read the file again, and put its keys in force if they have changed."""
        if self._file is None:
            self._view = None if self._gateway.view.document.auth.keys_file else self._view
            self.apply()  # a file that could not be used may be there now
        elif await asyncio.to_thread(self._file.poll):
            self._put(self._gateway.view)

    def _put(self, view: RoutingView) -> None:
        keys = () if self._file is None else self._file.keys
        view.use_key_file(keys)
        self._view = view
        self._write(keys)

    def _write(self, keys: tuple[ApiKeyConfig, ...]) -> None:
        """Write down what has become of the file's keys. Every Router does: each puts them in force when it sees them."""
        if self._keys is None:
            if self._file is not None:
                said = {"keys_count": len(keys), "digest": keys_digest(keys)}
                self._audit.write(Entry(Event.KEYS_LOADED, KEYS_FILE, PLATFORM, after=said))
        elif keys != self._keys:
            self._audit.write(*key_entries(self._keys, keys, actor=KEYS_FILE))
        self._keys = keys

    @staticmethod
    def _open(view: RoutingView) -> KeyFile | None:
        auth = view.document.auth
        return KeyFile(Path(auth.keys_file), taken=[key.name for key in auth.keys]) if auth.keys_file else None


async def follow_keys(follower: KeyFollower) -> None:
    """Poll the file of keys for ever."""
    while True:
        await asyncio.sleep(POLL_S)
        await follower.poll()
