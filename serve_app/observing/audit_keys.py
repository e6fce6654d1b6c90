"""What has become of keys and limits between two states, as entries of the audit log. No secret is among it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

from serve_app.config import ApiKeyConfig, LimitsConfig
from serve_app.observing.audit import PLATFORM, Entry, Event

HASH_CHARS = 8  # of the digest: enough to tell two keys of a name apart, and nothing to a guesser of 256 bits
LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests", "priority")
Said = dict[str, Any]


def key_entries(before: Iterable[ApiKeyConfig], after: Iterable[ApiKeyConfig], *, actor: str) -> Iterator[Entry]:
    """Yield what has become of keys: of one that changed, only what did."""
    old, new = ({key.name: _said(key) for key in keys} for keys in (before, after))
    for name in sorted(old.keys() - new.keys()):
        yield Entry(Event.KEY_REMOVED, actor, name, before=_set(old[name]))
    for name in sorted(new.keys() - old.keys()):
        yield Entry(Event.KEY_ADDED, actor, name, after=_set(new[name]))
    for name in sorted(old.keys() & new.keys()):
        changed = [field for field in {**old[name], **new[name]} if old[name].get(field) != new[name].get(field)]
        for event, fields in (
            (Event.KEY_CHANGED, [field for field in changed if field not in LIMITS]),
            (Event.LIMITS_CHANGED, [field for field in changed if field in LIMITS]),
        ):
            if fields:
                yield Entry(event, actor, name, _only(old[name], fields), _only(new[name], fields))


def limit_entries(before: LimitsConfig, after: LimitsConfig, *, actor: str) -> Iterator[Entry]:
    """Yield what has become of the bounds that hold for everybody."""
    old, new = before.model_dump(mode="json"), after.model_dump(mode="json")
    if changed := [field for field in new if old[field] != new[field]]:
        yield Entry(Event.LIMITS_CHANGED, actor, PLATFORM, _only(old, changed), _only(new, changed))


def _only(said: Said, fields: Iterable[str]) -> Said:
    return {field: said.get(field) for field in fields}


def keys_digest(keys: Iterable[ApiKeyConfig]) -> str:
    """Return what tells two sets of keys, with all that they may do, apart: the same on every Router."""
    return hashlib.sha256("\n".join(key.model_dump_json() for key in keys).encode()).hexdigest()[:12]


def _set(said: Said) -> Said:
    return {field: value for field, value in said.items() if value is not None}


def _said(key: ApiKeyConfig) -> Said:
    """Return what may be told of a key."""
    return {**key.model_dump(mode="json", exclude={"name"}), "hash": key.hash.rpartition(":")[2][:HASH_CHARS]}
