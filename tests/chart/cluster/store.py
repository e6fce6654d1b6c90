"""Objects as an API server keeps them: versions, generations, and everything that happened to them, for watches."""

from __future__ import annotations

import copy
import datetime
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.chart.cluster.kinds import Kind

Json = dict[str, Any]
WATCH_S = 0.5


@dataclass(frozen=True, slots=True)
class Key:
    """Which object."""

    kind: Kind
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to an object."""

    version: int
    type: str
    key: Key
    body: Json


@dataclass
class Store:
    """Every object by its key. Calls come from any thread; bodies that go in and out are copies."""

    _objects: dict[Key, Json] = field(default_factory=dict)
    _events: list[Event] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def version(self) -> int:
        """The version of the last change."""
        return len(self._events)

    def get(self, key: Key) -> Json | None:
        """Return an object, or None."""
        with self._changed:
            return copy.deepcopy(self._objects.get(key))

    def objects(self, kind: Kind, namespace: str = "", *, labels: Mapping[str, str] | None = None) -> list[Json]:
        """Return the objects of a kind, in one namespace where one is named, that have these labels."""
        with self._changed:
            found = [body for key, body in self._objects.items() if key.kind == kind and namespace in ("", key.namespace)]
            return [copy.deepcopy(body) for body in found if (labels or {}).items() <= _labels(body).items()]

    def put(self, key: Key, body: Json) -> Json:
        """Keep an object as it was sent, with what the server adds; a change of the spec makes a new generation."""
        with self._changed:
            old = self._objects.get(key)
            made = copy.deepcopy(body)
            made["metadata"] = {**made["metadata"], **self._server_fields(old, made)}
            if old is not None and "status" in old:
                made["status"] = old["status"]
            return self._record("ADDED" if old is None else "MODIFIED", key, made)

    def put_status(self, key: Key, status: Json) -> None:
        """Set the status of an object that is still there."""
        with self._changed:
            old = self._objects.get(key)
            if old is not None and old.get("status") != status:
                self._record("MODIFIED", key, {**copy.deepcopy(old), "status": copy.deepcopy(status)})

    def delete(self, key: Key) -> Json | None:
        """Delete an object and return it, or None."""
        with self._changed:
            old = self._objects.get(key)
            return None if old is None else self._record("DELETED", key, copy.deepcopy(old))

    def since(self, version: int) -> list[Event]:
        """Return what happened after a version, after a short wait when nothing did."""
        with self._changed:
            if len(self._events) <= version:
                self._changed.wait(WATCH_S)
            return self._events[version:]

    def _server_fields(self, old: Json | None, new: Json) -> Json:
        metadata = (old or {}).get("metadata", {})
        is_same = old is not None and old.get("spec") == new.get("spec")
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "uid": metadata.get("uid", str(uuid.uuid4())),
            "creationTimestamp": metadata.get("creationTimestamp", now),
            "generation": metadata.get("generation", 0) + (0 if is_same else 1),
        }

    def _record(self, change: str, key: Key, body: Json) -> Json:
        version = len(self._events) + 1
        body["metadata"]["resourceVersion"] = str(version)
        if change == "DELETED":
            self._objects.pop(key)
        else:
            self._objects[key] = body
        self._events.append(Event(version, change, key, copy.deepcopy(body)))
        self._changed.notify_all()
        return copy.deepcopy(body)


def _labels(body: Json) -> dict[str, str]:
    return body["metadata"].get("labels") or {}
