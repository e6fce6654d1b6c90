from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from serve_app import recording
from serve_app.rag.chain import FORMS
from serve_app.streams import LeasedStream
from tests.unit.serve_app.fakes import (
    BROKEN,
    FakeEmbedder,
    FakeResponse,
)
from tests.unit.serve_app.shadowing import (
    CHAT,
    ERROR,
    ask,
    compared,
    drained,
    events,
    refusal,
    settled,
    shadowed,
    stream,
    whole,
)


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize("answer", [events, whole])
@pytest.mark.parametrize(("text", "found"), [("same", (1, 1, 1.0)), ("other", (1, 0, 0.0))])
async def test_answers_of_each_endpoint_are_compared_by_their_text(path: str, answer: Any, text: str, found: Any) -> None:
    made = shadowed(answer("same", path), answer(text, path), compare="exact")
    assert await compared(made, path) == found


async def test_halves_of_events_make_no_difference() -> None:
    one = b"".join(part for part in events("same").parts if isinstance(part, bytes))
    made = shadowed(events("same"), stream(one[:50], one[50:]), compare="exact")
    assert await compared(made) == (1, 1, 1.0)


@pytest.mark.parametrize(
    ("texts", "least", "found"),
    [
        pytest.param(("a", "abcdefgh"), 0.9, (1, 1, 0.921), id="alike"),
        pytest.param(("a", "abcdefgh"), 0.95, (1, 0, 0.921), id="not-alike-enough"),
        pytest.param(("a", ""), 0.1, (1, 0, 0.0), id="nothing-is-like-nothing-else"),
    ],
)
async def test_answers_are_compared_by_an_embedder(texts: tuple[str, str], least: float, found: Any) -> None:
    made = shadowed(*map(events, texts), compare="embedding", embedder="minilm", min_similarity=least)
    assert await compared(made) == found


@pytest.mark.parametrize(("text", "found"), [("a", (1, 1, 1.0)), ("b", (0, 0, 0.0))], ids=["equal", "different"])
async def test_an_embedder_is_asked_for_different_texts_only(
    text: str, found: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(FakeEmbedder, "embed", None)
    made = shadowed(events("a"), events(text), compare="embedding", embedder="minilm")
    assert await compared(made) == found
    assert ("a copy for canary of chat failed" in caplog.text) == (text == "b")


async def test_vectors_without_a_length_agree_in_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def zeros(_: FakeEmbedder, texts: Sequence[str]) -> list[list[float]]:
        return [[0.0, 0.0] for _ in texts]

    monkeypatch.setattr(FakeEmbedder, "embed", zeros)
    assert await compared(shadowed(events("a"), events("b"), compare="embedding", embedder="minilm")) == (1, 0, 0.0)


async def test_without_a_comparison_nothing_is_kept() -> None:
    made = shadowed(events("a"), events("a"))
    reply = await ask(made)
    assert type(reply.body) is LeasedStream
    await drained(reply)
    stats = await settled(made)
    assert (stats.copied, stats.compared, stats.slower.total + stats.faster.total) == (1, 0, 1)


@pytest.mark.parametrize("sizes", [(100, 1), (1, 100)], ids=["client", "copy"])
async def test_an_answer_that_is_too_long_is_not_compared(sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    longest = sum(len(part) for part in FORMS[CHAT].refusal_events(refusal("a" * 100)))
    for most, count in ((longest, 1), (longest - 1, 0), (100, 0)):
        monkeypatch.setattr(recording, "MOST_BYTES", most)
        made = shadowed(*(events("a" * size) for size in sizes), compare="exact")
        assert await compared(made) == (count, 0, 0.0)


@pytest.mark.parametrize("body", [b"{no json}", b"[]"])
async def test_an_answer_that_cannot_be_read_is_not_compared(body: bytes) -> None:
    assert await compared(shadowed(FakeResponse((body,)), whole("a"), compare="exact")) == (0, 0, 0.0)


@pytest.mark.parametrize("end", [BROKEN, ERROR], ids=["broken", "error"])
async def test_a_client_answer_that_broke_is_not_compared(end: bytes | Exception) -> None:
    made = shadowed(stream(*events("a").parts[:1], end), events("a"), compare="exact")
    assert await compared(made) == (0, 0, 0.0)
