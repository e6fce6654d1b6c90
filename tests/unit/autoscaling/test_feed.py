from __future__ import annotations

import logging
import sys
import threading
from types import ModuleType

import pytest

from autoscaling import feed as module
from autoscaling.document import DECISIONS, HELD, SCALING, Held, ScalingDocument
from autoscaling.feed import ClusterStore, Feed

DOCUMENTS = [ScalingDocument(max_accelerators=n) for n in (4, 8)]


class Memory:
    """A store in this process, which may be away."""

    def __init__(self, **values: str) -> None:
        self.values = {key: value.encode() for key, value in values.items()}
        self.is_away = False
        self.looked_at = threading.Event()

    def get(self, key: str) -> bytes | None:
        self.looked_at.set()
        if self.is_away:
            raise ConnectionError("no store")
        return self.values.get(key)

    def put(self, key: str, data: bytes) -> None:
        self.values[key] = data

    def write(self, key: str, value: Held | ScalingDocument) -> None:
        self.values[key] = value.model_dump_json().encode()


def quiet() -> str | None:
    return None


def test_an_empty_store_tells_nothing() -> None:
    feed = Feed(Memory(), quiet)
    feed.look()
    assert (feed.document, feed.held, feed.held_news) == (None, None, 0)


def test_the_newest_documents_are_at_hand() -> None:
    store = Memory()
    feed = Feed(store, quiet)
    found = []
    for document in DOCUMENTS:
        store.write(SCALING, document)
        feed.look()
        found.append(feed.document)
    assert found == DOCUMENTS


def test_a_document_that_did_not_change_stays_the_same_object() -> None:
    store = Memory()
    store.write(SCALING, DOCUMENTS[0])
    feed = Feed(store, quiet)
    feed.look()
    first = feed.document
    feed.look()
    assert feed.document is first


def test_what_is_held_is_news_only_when_it_has_changed() -> None:
    store, news = Memory(), []
    feed = Feed(store, quiet)
    for stamp in (1.0, 1.0, 2.0, 2.0):
        store.write(HELD, Held(stamp=stamp, held={"a": 1}))
        feed.look()
        news.append(feed.held_news)
    assert news == [1, 1, 2, 2]
    assert feed.held == Held(stamp=2.0, held={"a": 1})


def test_what_cannot_be_read_keeps_the_one_before_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    store = Memory()
    feed = Feed(store, quiet)
    store.write(SCALING, DOCUMENTS[0])
    store.write(HELD, Held(stamp=1.0))
    feed.look()
    store.values |= {SCALING: b'{"budget": 4}', HELD: b"\xff"}
    with caplog.at_level(logging.ERROR, logger="ray.serve"):
        feed.look()
        feed.look()
    assert (feed.document, feed.held, feed.held_news) == (DOCUMENTS[0], Held(stamp=1.0), 1)
    assert [record.message.split(" ")[0] for record in caplog.records] == [SCALING, HELD]


def test_a_document_that_can_be_read_again_is_taken() -> None:
    store = Memory()
    feed = Feed(store, quiet)
    for value in (DOCUMENTS[0].model_dump_json(), "?", DOCUMENTS[0].model_dump_json()):
        store.values[SCALING] = value.encode()
        feed.look()
    assert feed.document == DOCUMENTS[0]


def test_a_document_that_is_deleted_stays_in_force() -> None:
    store = Memory()
    feed = Feed(store, quiet)
    store.write(SCALING, DOCUMENTS[0])
    feed.look()
    store.values.clear()
    feed.look()
    assert feed.document == DOCUMENTS[0]


def test_a_store_that_is_away_is_logged_once_each_time(caplog: pytest.LogCaptureFixture) -> None:
    store = Memory()
    store.write(SCALING, DOCUMENTS[0])
    feed, seen = Feed(store, quiet), []
    with caplog.at_level(logging.ERROR, logger="ray.serve"):
        for is_away in (False, True, True, False, True):
            store.is_away = is_away
            feed.look()
            seen.append(len(caplog.records))
    assert seen == [0, 1, 1, 1, 2]
    assert feed.document == DOCUMENTS[0]


def test_only_news_is_published() -> None:
    store, news = Memory(), iter(["one", None, "two"])
    feed, published = Feed(store, lambda: next(news)), []
    for _ in range(3):
        feed.look()
        published.append(store.values.pop(DECISIONS, None))
    assert published == [b"one", None, b"two"]


def test_started_it_looks_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.001)
    store = Memory()
    threads = set(threading.enumerate())
    Feed(store, quiet).start()
    for _ in range(3):
        assert store.looked_at.wait(1.0)
        store.looked_at.clear()
    monkeypatch.setattr(module, "POLL_S", threading.TIMEOUT_MAX)  # it ends with the process
    (thread,) = set(threading.enumerate()) - threads
    assert (thread.name, thread.daemon) == ("manta-scaling", True)


def test_it_stops_when_it_is_told() -> None:
    stop = threading.Event()
    stop.set()
    store = Memory()
    Feed(store, quiet)._keep_looking(stop)
    assert not store.looked_at.is_set()


def test_the_clusters_store_keeps_everything_in_one_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[tuple[bytes, bytes], bytes] = {}

    class InternalKv(ModuleType):
        def _internal_kv_get(self, key: bytes, namespace: bytes) -> bytes | None:
            return kept.get((namespace, key))

        def _internal_kv_put(self, key: bytes, value: bytes, namespace: bytes) -> None:
            kept[namespace, key] = value

    monkeypatch.setitem(sys.modules, "ray.experimental.internal_kv", InternalKv("internal_kv"))
    store = ClusterStore()
    store.put("a", b"1")
    assert (store.get("a"), store.get("b"), kept) == (b"1", None, {(ClusterStore.NAMESPACE, b"a"): b"1"})
