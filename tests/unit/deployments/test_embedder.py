from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from deployments.embedder import STUCK_AFTER_S, UNHEALTHY_AFTER, EmbedBatch, Embedder, EmbedOne, Text
from serve_app.config import EmbedderConfig
from serve_app.contracts import EmbeddingFingerprint
from serve_app.errors import BadRequest, DeadlineExceeded
from tests.unit.serve_app.fakes import FakeClock, turns, until

CONFIG = EmbedderConfig(name="fake", source="org/fake", max_batch_size=4)


class LengthEncoder:
    """Vector of a text: its length. Knows which passes it made and in which threads."""

    fingerprint = EmbeddingFingerprint("org/fake", dimension=1, normalized=True)
    window_tokens: int | None = 4

    def __init__(self) -> None:
        self.passes: list[list[str]] = []
        self.threads: set[str] = set()
        self.is_broken = False
        self.has_begun = threading.Event()
        self.may_encode = threading.Event()
        self.may_encode.set()

    def encode(self, texts: Sequence[str]) -> list[list[float]]:
        self.has_begun.set()
        assert self.may_encode.wait(30)
        if self.is_broken:
            raise RuntimeError("device lost")
        self.passes.append(list(texts))
        self.threads.add(threading.current_thread().name)
        return [[float(len(text))] for text in texts]

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]


def join_what_waits(embed_batch: EmbedBatch, config: EmbedderConfig) -> EmbedOne:
    """Stand in for Ray Serve's batching: what is submitted in one turn of the loop, cut by size."""
    waiting: list[tuple[Text, asyncio.Future[list[float] | None]]] = []

    async def flush() -> None:
        await asyncio.sleep(0)
        while waiting:
            batch = [waiting.pop(0) for _ in range(min(config.max_batch_size, len(waiting)))]
            try:
                vectors = await embed_batch([text for text, _ in batch])
            except RuntimeError as err:
                for _, future in batch:
                    future.set_exception(err)
                continue
            answered = [(future, vector) for (_, future), vector in zip(batch, vectors, strict=True) if not future.done()]
            for future, vector in answered:
                future.set_result(vector)

    async def one(text: Text) -> list[float] | None:
        waiting.append((text, asyncio.get_running_loop().create_future()))
        mine = waiting[-1][1]
        if len(waiting) == 1:
            tasks.append(asyncio.ensure_future(flush()))
        return await mine

    tasks: list[asyncio.Future[None]] = []
    return one


def embedder(encoder: LengthEncoder) -> Embedder:
    return Embedder(CONFIG, lambda _: encoder, batch=join_what_waits)


async def test_vectors_come_in_the_order_of_the_texts() -> None:
    texts = ["ccc", "a", "dddd", "bb", "a", "eeeee"]
    assert await embedder(LengthEncoder()).embed(texts) == [[3.0], [1.0], [4.0], [2.0], [1.0], [5.0]]


async def test_many_texts_are_cut_in_passes_and_alike_lengths_go_together() -> None:
    encoder = LengthEncoder()
    await embedder(encoder).embed(["dddd", "a", "ccc", "bb", "eeeee", "a"])
    assert encoder.passes == [["a", "a", "bb", "ccc"], ["dddd", "eeeee"]]


async def test_calls_that_arrive_together_share_a_pass_off_the_event_loop() -> None:
    encoder = LengthEncoder()
    stage = embedder(encoder)
    assert list(await asyncio.gather(stage.embed(["a"]), stage.embed(["bb"]))) == [[[1.0]], [[2.0]]]
    assert encoder.passes == [["a", "bb"]]
    assert encoder.threads == {"embed_0"}


@pytest.mark.parametrize(
    "texts", [[], "text", ["a", ""], ["a", 3], None], ids=["no-texts", "bare-text", "empty", "number", "null"]
)
async def test_unfit_input_is_refused_by_field(texts: Sequence[str]) -> None:
    stage = embedder(LengthEncoder())
    for call in (stage.embed, stage.count_tokens):
        with pytest.raises(BadRequest, match="input") as caught:
            await call(texts)
        assert caught.value.param == "input"


async def test_tokens_are_counted_over_all_texts() -> None:
    assert await embedder(LengthEncoder()).count_tokens(["two words", "one"]) == 3


async def test_a_text_over_the_window_is_refused_where_it_must_fit() -> None:
    stage = embedder(LengthEncoder())
    assert await stage.count_tokens(["a b c d", "a"], must_fit=True) == 5
    with pytest.raises(BadRequest, match=r"input\[1\] has 5 tokens, and this embedder reads 4 ") as caught:
        await stage.count_tokens(["a", "a b c d e"], must_fit=True)
    assert caught.value.param == "input"


async def test_of_a_text_that_is_cut_only_what_is_read_counts() -> None:
    assert await embedder(LengthEncoder()).count_tokens(["a b c d e f", "a"]) == 5


async def test_a_model_without_a_window_reads_everything() -> None:
    encoder = LengthEncoder()
    encoder.window_tokens = None
    assert await embedder(encoder).count_tokens(["a b c d e f"], must_fit=True) == 6


async def test_describe_is_what_the_model_says() -> None:
    assert await embedder(LengthEncoder()).describe() == LengthEncoder.fingerprint


async def test_passes_that_keep_failing_make_it_unhealthy_until_one_works() -> None:
    encoder = LengthEncoder()
    stage = embedder(encoder)
    encoder.is_broken = True
    for _ in range(UNHEALTHY_AFTER):
        await stage.check_health()
        with pytest.raises(RuntimeError, match="device lost"):
            await stage.embed(["a"])
    with pytest.raises(RuntimeError, match="last 3 forward passes failed"):
        await stage.check_health()
    encoder.is_broken = False
    await stage.embed(["a"])
    await stage.check_health()


async def test_a_pass_that_does_not_end_makes_it_unhealthy() -> None:
    encoder, clock = LengthEncoder(), FakeClock()
    stage = Embedder(CONFIG, lambda _: encoder, batch=join_what_waits, clock=clock)
    encoder.may_encode.clear()
    call = asyncio.create_task(stage.embed(["a"]))
    await until(encoder.has_begun.is_set)
    await stage.check_health()
    clock.now_s += STUCK_AFTER_S
    with pytest.raises(RuntimeError, match="has not ended for 300 s"):
        await stage.check_health()
    encoder.may_encode.set()
    await call
    await stage.check_health()


async def load(stage: Embedder) -> tuple[float, ...]:
    """Return (waiting, running, slots, arrived)."""
    signals = await stage.record_autoscaling_stats()
    return tuple(signals[f"manta_{name}"] for name in ("waiting", "running", "slots", "arrived"))


async def test_its_load_is_counted_in_texts() -> None:
    encoder = LengthEncoder()
    stage = embedder(encoder)
    assert await load(stage) == (0, 0, 4, 0)
    encoder.may_encode.clear()
    calls = [asyncio.create_task(stage.embed(["a"] * count)) for count in (6, 1)]
    await turns()
    assert await load(stage) == (3, 4, 4, 7)
    encoder.may_encode.set()
    await asyncio.gather(*calls)
    assert await load(stage) == (0, 0, 4, 7)


async def test_refused_texts_and_failed_passes_leave_no_load() -> None:
    encoder = LengthEncoder()
    stage = embedder(encoder)
    encoder.is_broken = True
    with pytest.raises(RuntimeError, match="device lost"):
        await stage.embed(["a", "b"])
    with pytest.raises(BadRequest):
        await stage.embed([])
    await turns()
    assert await load(stage) == (0, 0, 4, 2)


async def test_a_caller_that_leaves_takes_its_texts_off_and_the_pass_it_is_in_goes_on() -> None:
    encoder = LengthEncoder()
    stage = embedder(encoder)
    encoder.may_encode.clear()
    call = asyncio.create_task(stage.embed(["a"] * 4))
    await asyncio.to_thread(encoder.has_begun.wait, 10)
    call.cancel()
    await asyncio.wait([call])
    await turns()
    assert await load(stage) == (0, 4, 4, 4)
    encoder.may_encode.set()
    await stage.embed(["b"])
    assert await load(stage) == (0, 0, 4, 5)


def test_a_model_that_cannot_load_fails_the_constructor() -> None:
    def load(_: EmbedderConfig) -> LengthEncoder:
        raise BadRequest("no model there", param="source")

    with pytest.raises(BadRequest, match="no model there"):
        Embedder(CONFIG, load, batch=join_what_waits)


async def test_forward_passes_are_timed_and_their_texts_counted() -> None:
    clock = FakeClock()

    class SlowEncoder(LengthEncoder):
        def encode(self, texts: Sequence[str]) -> list[list[float]]:
            clock.now_s += 0.5
            return super().encode(texts)

    stage = Embedder(CONFIG, lambda _: SlowEncoder(), batch=join_what_waits, clock=clock)
    await stage.embed(["a"] * 6)
    assert measured(stage) == (6, 2, 1.0)


async def test_a_pass_that_fails_has_embedded_nothing() -> None:
    encoder = LengthEncoder()
    encoder.is_broken = True
    stage = embedder(encoder)
    with pytest.raises(RuntimeError, match="device lost"):
        await stage.embed(["a"])
    assert measured(stage) == (0, 0, 0)


def measured(stage: Embedder) -> tuple[float | None, ...]:
    """Return texts, passes and their seconds."""
    names = ("manta_embedded_texts_total", "manta_embed_seconds_count", "manta_embed_seconds_sum")
    return tuple(stage.registry.get_sample_value(name, {"model": "fake"}) for name in names)


async def test_texts_whose_time_is_over_are_in_no_pass() -> None:
    encoder, clock = LengthEncoder(), FakeClock()
    stage = Embedder(CONFIG, lambda _: encoder, batch=join_what_waits, clock=clock)
    late, patient = asyncio.create_task(stage.embed(["aa"], budget_s=1.0)), asyncio.create_task(stage.embed(["b"]))
    await asyncio.sleep(0)
    clock.now_s += 2.0
    assert await patient == [[1.0]]
    with pytest.raises(DeadlineExceeded):
        await late
    assert encoder.passes == [["b"]]


async def test_no_pass_is_spent_where_nobody_waits() -> None:
    encoder = LengthEncoder()
    with pytest.raises(DeadlineExceeded):
        await embedder(encoder).embed(["a"], budget_s=0.0)
    assert encoder.passes == []
