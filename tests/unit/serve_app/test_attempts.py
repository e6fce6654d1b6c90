from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from serve_app import attempts as attempts_module
from serve_app.attempts import Attempt, Attempts
from serve_app.rollout.histogram import Histogram
from serve_app.rollout.telemetry import SCORED_GAPS, Outcome, VariantStats, Waiting
from serve_app.stream_ends import is_error_event
from tests.unit.serve_app.fakes import FakeClock

KEY = ("chat", "canary")
CHUNK = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
LAST = b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"length"}]}\n\n'
USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}\n\n'
DONE = b"data: [DONE]\n\n"
OPENAI_ERROR = b'data: {"error": {"message": "out of memory", "code": 500}}\n\n'
ANTHROPIC_ERROR = b'event: error\ndata: {"type": "error", "error": {"type": "api_error"}}\n\n'
MESSAGE_DELTA = b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}\n\n'
MESSAGE_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
COMPLETED = b'event: response.completed\ndata: {"type":"response.completed"}\n\n'
INCOMPLETE = b'event: response.incomplete\ndata: {"type":"response.incomplete"}\n\n'


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.attempts = Attempts(clock=self.clock)

    def begin(self, *, is_stream: bool = True, key: tuple[str, str] = KEY) -> Attempt:
        return self.attempts.begin(key, began_s=self.clock(), is_stream=is_stream)

    def stream(self, *pieces: bytes, gap_s: float = 0.25) -> Attempt:
        """Return an attempt whose pieces have come, one after another."""
        attempt = self.begin()
        for piece in pieces:
            self.clock.now_s += gap_s
            attempt.piece(piece)
        return attempt

    @property
    def stats(self) -> VariantStats:
        return self.attempts.stats(KEY)


@pytest.fixture
def world() -> World:
    return World()


def durations(*seconds: float) -> Histogram:
    made = Histogram()
    for each in seconds:
        made.observe(each)
    return made


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "whole"])
def test_an_attempt_is_counted_by_its_outcome(outcome: Outcome, is_stream: bool, world: World) -> None:
    world.begin(is_stream=is_stream).end(outcome)
    assert world.stats.outcomes == Counter({outcome: 1})


def test_only_the_first_end_counts(world: World) -> None:
    attempt = world.begin()
    attempt.end(Outcome.OK)
    attempt.end(Outcome.CANCELLED)
    assert world.stats.outcomes == Counter({Outcome.OK: 1})


def test_a_discarded_attempt_leaves_no_trace(world: World) -> None:
    attempt = world.begin()
    attempt.discard()
    attempt.end(Outcome.BROKEN)
    assert (world.attempts.take(), world.attempts.waiting([KEY])) == ({}, {KEY: Waiting()})


@pytest.mark.parametrize("error", [OPENAI_ERROR, ANTHROPIC_ERROR], ids=["openai", "anthropic"])
@pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.CANCELLED], ids=["ended", "client-left"])
@pytest.mark.parametrize("rest", [(), (DONE,)], ids=["last", "before-the-end"])
def test_a_stream_that_ends_in_an_error_event_is_broken(
    error: bytes, outcome: Outcome, rest: tuple[bytes, ...], world: World
) -> None:
    world.stream(CHUNK, error, *rest).end(outcome)
    assert (world.stats.outcomes, world.stats.e2e) == (Counter({Outcome.BROKEN: 1}), Histogram())


@pytest.mark.parametrize(
    ("piece", "is_error"),
    [
        (OPENAI_ERROR, True),
        (ANTHROPIC_ERROR, True),
        (b'data:{"error":{}}\n\n', True),
        (CHUNK + OPENAI_ERROR, True),
        (CHUNK, False),
        (b'data: {"choices":[{"delta":{"content":"\\ndata: {\\"error\\""}}]}\n\n', False),
        (b"event: error_free\ndata: {}\n\n", False),
        (b'{"error": {}}', False),
        (b"", False),
    ],
    ids=["openai", "anthropic", "no-space", "after-a-chunk", "chunk", "written-by-a-model", "other-event", "whole", "nothing"],
)
def test_an_error_event_is_told_from_what_a_model_wrote(piece: bytes, is_error: bool) -> None:
    assert is_error_event(piece) is is_error


def test_a_whole_answer_about_errors_is_ok(world: World) -> None:
    world.begin(is_stream=False).end(Outcome.OK, b'event: error\n{"choices": []}')
    assert world.stats.outcomes == Counter({Outcome.OK: 1})


@pytest.mark.parametrize(
    "last", [DONE, MESSAGE_STOP, COMPLETED, INCOMPLETE, LAST + DONE], ids=lambda piece: piece[:24].decode()
)
def test_a_client_that_leaves_after_the_last_event_has_its_answer(last: bytes, world: World) -> None:
    world.stream(CHUNK, last).end(Outcome.CANCELLED)
    assert world.stats.outcomes == Counter({Outcome.OK: 1})


def test_a_client_that_leaves_before_is_counted_so_and_not_timed(world: World) -> None:
    world.stream(CHUNK, CHUNK).end(Outcome.CANCELLED)
    assert (world.stats.outcomes, world.stats.e2e, world.stats.itl) == (
        Counter({Outcome.CANCELLED: 1}),
        Histogram(),
        Histogram(),
    )


def test_the_first_piece_the_gaps_and_the_whole_are_timed(world: World) -> None:
    world.stream(CHUNK, CHUNK, LAST, gap_s=0.25).end(Outcome.OK)
    stats = world.stats
    assert (stats.ttft, stats.gaps, stats.itl, stats.e2e) == (
        durations(0.25),
        durations(0.25, 0.25),
        durations(0.25),
        durations(0.75),
    )


def test_a_stream_of_one_piece_has_no_gap(world: World) -> None:
    world.stream(CHUNK).end(Outcome.OK)
    assert (world.stats.gaps, world.stats.itl) == (Histogram(), Histogram())


def test_a_long_stream_is_scored_once_by_its_first_gaps(world: World) -> None:
    attempt = world.stream(*[CHUNK] * SCORED_GAPS, gap_s=0.25)
    before = world.stats.itl.total
    world.clock.now_s += 0.25
    attempt.piece(CHUNK)
    scored = durations(0.25)
    for _ in range(10):  # what comes later is slow, and no longer asked for
        world.clock.now_s += 5.0
        attempt.piece(CHUNK)
    attempt.end(Outcome.OK)
    assert (before, world.stats.itl) == (0, scored)


@pytest.mark.parametrize("pieces", [2, SCORED_GAPS, SCORED_GAPS + 1, SCORED_GAPS + 2])
def test_every_stream_that_ends_well_is_scored_once(pieces: int, world: World) -> None:
    world.stream(*[CHUNK] * pieces).end(Outcome.OK)
    assert world.stats.itl == durations(0.25)


def test_a_whole_answer_has_no_first_piece(world: World) -> None:
    attempt = world.begin(is_stream=False)
    world.clock.now_s += 2.0
    attempt.end(Outcome.OK, b"{}")
    stats = world.stats
    assert (stats.ttft, stats.gaps, stats.itl, stats.e2e) == (Histogram(), Histogram(), Histogram(), durations(2.0))


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ((CHUNK, LAST, DONE), "length"),
        ((CHUNK, LAST, USAGE, DONE), "length"),
        ((CHUNK + LAST + USAGE + DONE,), "length"),
        ((MESSAGE_DELTA, MESSAGE_STOP), "end_turn"),
    ],
    ids=["openai", "openai-with-usage", "in-one-piece", "anthropic"],
)
def test_a_stream_says_why_it_ended(pieces: tuple[bytes, ...], reason: str, world: World) -> None:
    world.stream(*pieces).end(Outcome.OK)
    assert world.stats.finish_reasons == Counter({reason: 1})


def test_a_whole_answer_says_why_it_ended_and_how_many_tokens_it_has(world: World) -> None:
    body = b'{"choices":[{"finish_reason": "stop"}],"usage":{"prompt_tokens":3,"completion_tokens":12}}'
    world.begin(is_stream=False).end(Outcome.OK, body)
    assert (world.stats.finish_reasons, world.stats.tokens) == (Counter(stop=1), 12)


def test_every_piece_of_a_stream_is_a_token(world: World) -> None:
    world.stream(CHUNK, CHUNK, CHUNK).end(Outcome.OK)
    assert world.stats.tokens == 3


def test_what_was_counted_is_taken_once_and_a_stream_under_way_counts_on(world: World) -> None:
    attempt = world.stream(CHUNK, CHUNK)
    first = world.attempts.take()
    world.clock.now_s += 0.25
    attempt.piece(LAST)
    attempt.end(Outcome.OK)
    second = world.attempts.take()
    assert (first[KEY].tokens, first[KEY].ttft, first[KEY].outcomes) == (2, durations(0.25), Counter())
    assert (second[KEY].tokens, second[KEY].ttft, second[KEY].outcomes) == (1, Histogram(), Counter({Outcome.OK: 1}))
    assert (second[KEY].itl, second[KEY].e2e, world.attempts.take()) == (durations(0.25), durations(0.75), {})


def test_open_attempts_are_told_by_their_ages(world: World) -> None:
    world.begin(is_stream=False)
    world.begin()
    begun = world.begin()
    world.clock.now_s += 1.0
    begun.piece(CHUNK)
    begun.piece(CHUNK)
    world.clock.now_s += 4.0
    assert world.attempts.waiting([KEY, ("chat", "stable")]) == {
        KEY: Waiting(first=durations(5.0), whole=durations(5.0, 5.0, 5.0), gap=durations(2.0)),
        ("chat", "stable"): Waiting(),
    }


def test_a_stream_that_is_scored_has_no_gap_to_wait_for(world: World) -> None:
    world.stream(*[CHUNK] * (SCORED_GAPS + 1))
    assert world.attempts.waiting([KEY])[KEY].gap == Histogram()


def test_only_the_oldest_ages_are_looked_at(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts_module, "MOST_AGED", 2)
    for _ in range(4):
        world.begin()
        world.clock.now_s += 1.0
    assert world.attempts.waiting([KEY])[KEY].whole == durations(4.0, 3.0)


def test_nothing_is_open_when_all_have_ended(world: World) -> None:
    for attempt in [world.begin(), world.begin()]:
        attempt.end(Outcome.OK)
    assert world.attempts._open == {}


async def limited(attempt: Attempt, arrives: asyncio.Event) -> str:
    """Wait for the first byte as the relay does."""
    try:
        async with asyncio.timeout(None) as limit:
            attempt.limit = limit
            await arrives.wait()
    except TimeoutError:
        return "withdrawn" if attempt.is_withdrawn else "late"
    attempt.piece(CHUNK)
    return "answered"


async def test_withdrawing_a_variant_ends_the_wait_for_its_first_bytes_at_once(world: World) -> None:
    waiting = [asyncio.create_task(limited(world.begin(), asyncio.Event())) for _ in range(2)]
    await asyncio.sleep(0)
    world.attempts.withdraw(KEY)
    assert await asyncio.gather(*waiting) == ["withdrawn"] * 2


async def test_withdrawing_another_variant_disturbs_nobody(world: World) -> None:
    arrives = asyncio.Event()
    waiting = asyncio.create_task(limited(world.begin(), arrives))
    await asyncio.sleep(0)
    world.attempts.withdraw(("chat", "stable"))
    arrives.set()
    assert await waiting == "answered"


@pytest.mark.parametrize("first", [CHUNK, b""], ids=["a-piece", "nothing"])
async def test_a_stream_that_has_begun_or_ended_is_not_taken_back(first: bytes, world: World) -> None:
    attempt = world.begin()
    async with asyncio.timeout(None) as limit:
        attempt.limit = limit
        await asyncio.sleep(0)
        attempt.piece(first)
    world.attempts.withdraw(KEY)
    assert not attempt.is_withdrawn


async def test_withdrawing_twice_is_as_once(world: World) -> None:
    waiting = asyncio.create_task(limited(world.begin(), asyncio.Event()))
    await asyncio.sleep(0)
    world.attempts.withdraw(KEY)
    world.attempts.withdraw(KEY)
    assert await waiting == "withdrawn"


def test_what_nobody_else_may_answer_is_not_taken_back(world: World) -> None:
    attempt = world.begin()
    world.attempts.withdraw(KEY)
    assert not attempt.is_withdrawn
