"""Uploads: a document goes into a vector store, and is waited for until it can be searched."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import gevent
from gevent.lock import BoundedSemaphore

from loadtests.exchange import Exchange
from loadtests.outcomes import Outcome, RequestFailed
from loadtests.scenario import Entry
from loadtests.users import rest
from loadtests.users.session import Session, Task
from loadtests.wire.client import Call

FILES, STORES = "/v1/files", "/v1/vector_stores"
ASK_AGAIN_S = 0.2
BOUNDARY = "manta-loadtest-boundary"
CLEAN_UP_S = 10.0


class _Store:
    """The vector store of a session, made by the first upload and deleted with its files at the end."""

    def __init__(self, session: Session, name: str) -> None:
        self._session = session
        self._name = name
        self._lock = BoundedSemaphore()
        self._id: str | None = None
        self.files: list[str] = []
        session.at_end.append(self._delete)

    def id(self, deadline_s: float) -> str:
        """Return its id. Raises RequestFailed."""
        with self._lock:  # users begin together, and one makes it
            if self._id is None:
                self._id = str(_post(self._session, STORES, {"name": self._name}, deadline_s=deadline_s)["id"])
        return self._id

    def _delete(self) -> None:
        paths = [f"{FILES}/{name}" for name in self.files]
        if self._id is not None:
            paths.insert(0, f"{STORES}/{self._id}")
        until_s = time.perf_counter() + CLEAN_UP_S
        for path in paths:
            try:
                self._session.http.run(Call(path, method="DELETE"), deadline_s=until_s)
            except RequestFailed:
                return  # the platform is gone or overloaded: what is left there is named loadtest


_STORES: WeakKeyDictionary[Session, dict[str, _Store]] = WeakKeyDictionary()


def ingest(session: Session, entry: Entry, task: Task) -> None:
    """Upload a document of the prompt's length; it took until the platform says that it is ingested."""
    stores = _STORES.setdefault(session, {})
    if entry.vector_store not in stores:
        stores[entry.vector_store] = _Store(session, entry.vector_store)
    store = stores[entry.vector_store]
    document = rest.prompt(entry, task)
    seen = Exchange(entry.label, entry.vector_store, f"{STORES}/files", task.intended_s)

    def attempt(seen: Exchange, deadline_s: float) -> None:
        seen.sent_s = time.perf_counter()
        where = f"{STORES}/{store.id(deadline_s)}/files"
        upload = Call(FILES, _form(document), content_type=f"multipart/form-data; boundary={BOUNDARY}")
        session.http.run(upload, deadline_s=deadline_s)
        file_id = str(upload.json()["id"])
        store.files.append(file_id)
        state = _post(session, where, {"file_id": file_id}, deadline_s=deadline_s)
        while state["status"] == "in_progress":
            gevent.sleep(ASK_AGAIN_S)
            call = Call(f"{where}/{file_id}", method="GET")
            session.http.run(call, deadline_s=deadline_s)
            state = call.json()
        seen.ended_s = time.perf_counter()
        if state["status"] != "completed":
            said = (state.get("last_error") or {}).get("message", state["status"])
            raise RequestFailed(Outcome.SERVER_ERROR, f"the document was not ingested: {said}")

    session.exchange(seen, attempt)


def _post(session: Session, path: str, body: Mapping[str, Any], *, deadline_s: float) -> dict[str, Any]:
    call = Call(path, json.dumps(body).encode())
    session.http.run(call, deadline_s=deadline_s)
    return call.json()


def _form(document: str) -> bytes:
    parts = (
        ('name="purpose"', "assistants"),
        (f'name="file"; filename="loadtest-{time.time_ns():x}.txt"\r\nContent-Type: text/plain', document),
    )
    body = "".join(f"--{BOUNDARY}\r\nContent-Disposition: form-data; {head}\r\n\r\n{text}\r\n" for head, text in parts)
    return f"{body}--{BOUNDARY}--\r\n".encode()
