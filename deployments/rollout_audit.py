"""AuditedRollouts: Rollouts that writes down what it takes, what it refuses, and what becomes of rollouts.

Here and not in Routers: a change of the configuration is one event, however many Routers follow it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from deployments.declared import KEY
from deployments.rollout_load_tests import LoadTestedRollouts
from serve_app.errors import PlatformError
from serve_app.observing.audit import CONFIGURATION, GATES, PLATFORM, Audit, Entry, Event
from serve_app.observing.audit_config import MOST_CHANGES, changes, digest
from serve_app.observing.audit_keys import key_entries, limit_entries
from serve_app.rollout.document import RoutingDocument
from serve_app.rollout.history import Decision

BY_CONFIGURATION = frozenset({"started", "restarted", "overridden", "refitted", "changed"})


class Command(NamedTuple):
    """What an operator has said."""

    by: str
    verb: str
    request_id: str | None


_command: ContextVar[Command | None] = ContextVar("manta_rollout_command", default=None)


class AuditedRollouts(LoadTestedRollouts):
    """Rollouts with an audit log."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._audit = Audit(wall=self._controller.wall)
        self._controller.told = lambda made: self._audit.write(decided(made, _command.get()))
        self._document: Mapping[str, Any] | None = None  # in force, as it was written; None: this process has taken none

    async def reconfigure(self, user_config: dict[str, object]) -> None:
        """Take a new platform document, as ``Rollouts`` does."""
        if not self._is_restored:
            await self._restore()
        before = self._routing  # by now what an earlier process had in force, too
        try:
            await super().reconfigure(user_config)
        except ValueError:
            self._audit.write(self._seen(Event.CONFIG_REFUSED, user_config))
            raise
        if self._refused is not None:
            self._audit.write(self._seen(Event.CONFIG_REFUSED, user_config))
            return
        if (document := _document(user_config)) != self._document:
            self._audit.write(self._seen(Event.CONFIG_TAKEN, user_config), *_access_entries(before, self._routing))
            self._document = document

    async def command_rollout(self, name: str, verb: str, by: str, *, request_id: str | None = None) -> dict[str, Any]:
        """Do what an operator says, as ``Rollouts`` does. Raises UnknownRollout, RolloutConflict."""
        with _commanding(Command(by, verb, request_id)):
            try:
                return await super().command_rollout(name, verb, by)
            except PlatformError as err:
                more = {"verb": verb, "error": err.code}
                self._audit.write(Entry(Event.ROLLOUT_REFUSED, by, name, request_id=request_id, more=more))
                raise

    def _seen(self, event: Event, user_config: Mapping[str, object]) -> Entry:
        """Return what there is to tell of a document, compared with the one in force."""
        was, now = self._document, _document(user_config)
        more: dict[str, Any] = {"changes": None}
        if was is not None:
            found = changes(was, now)
            more = {"changes": found[:MOST_CHANGES], "changes_count": len(found)}
        before = None if was is None else {"digest": digest(was)}
        return Entry(event, CONFIGURATION, PLATFORM, before, {"digest": digest(now)}, more=more)


def decided(made: Decision, command: Command | None) -> Entry:
    """Return the entry of a decision: with who has commanded it, or with the figures that the gates decided by."""
    before, after = ({"weights": dict(weights)} for weights in (made.before, made.weights))
    more: dict[str, Any] = {"action": made.action, "phase": made.phase.value, "step": made.step, "reason": made.reason}
    if command is not None:
        said = {"verb": command.verb, **more}
        return Entry(Event.ROLLOUT_COMMANDED, command.by, made.name, before, after, command.request_id, said)
    actor = CONFIGURATION if made.action in BY_CONFIGURATION else GATES
    more["readings"] = [dict(reading) for reading in made.readings]
    return Entry(Event.ROLLOUT_DECIDED, actor, made.name, before, after, more=more)


@contextmanager
def _commanding(command: Command) -> Iterator[None]:
    """Have what is decided in this context told as commanded; rollouts are looked at in another one meanwhile."""
    token = _command.set(command)
    try:
        yield
    finally:
        _command.reset(token)


def _document(user_config: Mapping[str, object]) -> Mapping[str, Any]:
    found = user_config.get(KEY)
    return found if isinstance(found, Mapping) else {}


def _access_entries(before: str, after: str) -> Iterator[Entry]:
    """Yield what has become of keys and limits between two routing documents as they are kept."""
    if not before or before == after:
        return
    old, new = (RoutingDocument.model_validate_json(each) for each in (before, after))
    yield from key_entries(old.auth.keys, new.auth.keys, actor=CONFIGURATION)
    yield from limit_entries(old.limits, new.limits, actor=CONFIGURATION)
