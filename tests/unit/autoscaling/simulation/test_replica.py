from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaling.simulation.latency import LatencyModel
from autoscaling.simulation.replica import NEVER, Replica
from autoscaling.simulation.requests import Requests
from autoscaling.simulation.trace import Trace

MODEL = LatencyModel(step_s=1.0, step_s_per_sequence=0.0, prefill_s_per_token=0.125, slots=2, max_batched_tokens=16)
Row = tuple[float, int, int]  # arrival, prompt tokens, output tokens


def requests_of(rows: list[Row]) -> Requests:
    arrivals_s, prompts, outputs = (np.array(column) for column in zip(*rows, strict=True))
    return Requests(Trace("rows", arrivals_s.astype(float), prompts, outputs, float(arrivals_s[-1]) + 1.0))


def play(model: LatencyModel, rows: list[Row]) -> Requests:
    """Send all rows to one replica, with nothing between."""
    requests = requests_of(rows)
    replica = Replica(0, 0.0, model=model, requests=requests)
    for number, (arrival_s, _, _) in enumerate(rows):
        while replica.due_s <= arrival_s:
            replica.advance()
        replica.take(number, arrival_s)
        assert replica.running <= model.slots
    while replica.due_s != NEVER:
        replica.advance()
        assert 0 <= replica.running <= model.slots
        assert 0 <= replica.kv_reserved_tokens <= (model.kv_tokens or 0)
    assert (replica.open, replica.running, replica.kv_reserved_tokens) == (0, 0, 0.0)
    return requests


class Naive:
    """The same engine, token by token."""

    def __init__(self, model: LatencyModel, rows: list[Row]) -> None:
        self.first_s, self.finished_s, self.gap_s = ([0.0] * len(rows) for _ in range(3))
        self._model = model
        self._rows = rows
        self._prompt_left = [row[1] for row in rows]
        self._tokens_left = [row[2] for row in rows]
        self._to_come = list(range(len(rows)))
        self._waiting: list[int] = []
        self._running: list[int] = []

    def play(self) -> tuple[list[float], list[float], list[float]]:
        """Return first and last tokens' times, and the longest gaps."""
        now_s = 0.0
        while self._to_come or self._waiting or self._running:
            if not self._running and not self._waiting:
                now_s = max(now_s, self._rows[self._to_come[0]][0])
                self._waiting.append(self._to_come.pop(0))
            now_s = self._step(now_s)
            while self._to_come and self._rows[self._to_come[0]][0] < now_s:
                self._waiting.append(self._to_come.pop(0))
        return self.first_s, self.finished_s, self.gap_s

    def _step(self, now_s: float) -> float:
        model, prompt_left = self._model, self._prompt_left
        decoding = [each for each in self._running if not prompt_left[each]]
        budget = model.max_batched_tokens - len(decoding)
        while self._waiting and self._is_room(budget):
            self._running.append(self._waiting.pop(0))
        step_s = model.step_s + model.step_s_per_sequence * len(decoding)
        for each in self._running:
            chunk = min(budget, prompt_left[each])
            budget -= chunk
            prompt_left[each] -= chunk
            step_s += model.prefill_s_per_token * chunk
        for each in decoding:
            self.gap_s[each] = max(self.gap_s[each], step_s)
        for each in [each for each in self._running if not prompt_left[each]]:
            self._token(each, now_s + step_s)
        return now_s + step_s

    def _is_room(self, budget: int) -> bool:
        running, limit = self._running, self._model.kv_tokens
        need = sum(sum(self._rows[each][1:]) for each in [*running, self._waiting[0]])
        fits = limit is None or not running or need <= limit
        return fits and len(running) < self._model.slots and budget > sum(self._prompt_left[each] for each in running)

    def _token(self, request: int, now_s: float) -> None:
        self.first_s[request] = self.first_s[request] or now_s
        self._tokens_left[request] -= 1
        if not self._tokens_left[request]:
            self.finished_s[request] = now_s
            self._running.remove(request)


def test_one_request_takes_its_prompt_and_one_step_per_token() -> None:
    requests = play(MODEL, [(0.5, 4, 3)])
    assert (requests.started_s, requests.first_s, requests.finished_s) == ([0.5], [2.0], [4.0])
    assert requests.gap_s == [1.0]


def test_an_answer_of_one_token_ends_with_its_first() -> None:
    requests = play(MODEL, [(0.0, 4, 1)])
    assert (requests.first_s, requests.finished_s, requests.gap_s) == ([1.5], [1.5], [0.0])


def test_a_second_request_joins_at_the_next_step_and_its_prompt_slows_the_first_one() -> None:
    model = replace(MODEL, step_s_per_sequence=0.25)
    # Steps end at 1.5 (prompt of the first), 3.25 (a token of it and the other prompt), 4.75 (a token of each).
    requests = play(model, [(0.0, 4, 3), (0.25, 4, 2)])
    assert requests.started_s == [0.0, 1.5]
    assert requests.first_s == [1.5, 3.25]
    assert requests.finished_s == [4.75, 4.75]
    assert requests.gap_s == [1.75, 1.5]


def test_a_request_that_arrives_between_steps_of_a_long_answer_joins_at_the_next_one() -> None:
    requests = play(MODEL, [(0.0, 8, 10), (4.25, 8, 2)])  # steps end at 2, 3, 4, 5
    assert requests.started_s == [0.0, 5.0]
    assert requests.first_s == [2.0, 7.0]
    assert requests.finished_s == [12.0, 8.0]


def test_a_request_that_arrives_as_a_step_ends_joins_at_the_next_one() -> None:
    assert play(MODEL, [(0.0, 8, 10), (4.0, 8, 2)]).started_s == [0.0, 5.0]


def test_requests_beyond_the_slots_wait_in_order() -> None:
    # Slots are free at 6 and 8; the last two read their prompts in one step.
    requests = play(MODEL, [(0.0, 8, 4), (0.0, 8, 4), (0.1, 8, 1), (0.2, 8, 1), (0.3, 8, 1)])
    assert requests.first_s == [2.0, 4.0, 8.0, 11.0, 11.0]
    assert requests.started_s == [0.0, 2.0, 6.0, 8.0, 8.0]


def test_a_prompt_longer_than_a_step_takes_is_read_in_chunks() -> None:
    requests = play(MODEL, [(0.0, 40, 2)])  # 16, 16 and 8 tokens: 3 + 3 + 2 seconds
    assert (requests.first_s, requests.finished_s) == ([8.0], [9.0])


def test_decoding_sequences_take_their_tokens_of_the_step_first() -> None:
    # From 1.125 on: 15 tokens of the prompt with one that decodes, then the last one.
    requests = play(MODEL, [(0.0, 1, 3), (0.5, 16, 1)])
    assert requests.finished_s == [5.125, 5.125]


def test_a_request_waits_until_the_cache_holds_it_and_holds_back_those_behind_it() -> None:
    model = replace(MODEL, slots=4, kv_tokens=20)
    requests = play(model, [(0.0, 8, 4), (0.1, 8, 4), (0.2, 1, 1)])
    assert requests.started_s == [0.0, 5.0, 5.0]


def test_a_request_longer_than_the_cache_runs_alone() -> None:
    model = replace(MODEL, kv_tokens=10)
    assert play(model, [(0.0, 1, 2), (0.1, 16, 8), (0.2, 1, 1)]).started_s == [0.0, 2.125, 12.125]


def test_taking_a_request_tells_whether_the_next_event_comes_sooner() -> None:
    replica = Replica(0, 0.0, model=MODEL, requests=requests_of([(0.0, 8, 9), (1.0, 8, 9), (4.5, 8, 1), (4.6, 8, 1)]))
    assert (replica.take(0, 0.0), replica.due_s) == (True, 2.0)
    assert (replica.take(1, 1.0), replica.due_s) == (False, 2.0)
    replica.advance()
    replica.advance()
    assert replica.due_s == 11.0  # both decode: the first one ends after eight tokens more, seven from here
    assert (replica.take(2, 4.5), replica.due_s) == (False, 11.0)  # no slot is free before
    assert (replica.running, len(replica.waiting), replica.open) == (2, 1, 3)


def test_a_request_that_arrives_in_the_last_step_of_a_stretch_changes_nothing() -> None:
    replica = Replica(0, 0.0, model=MODEL, requests=requests_of([(0.0, 8, 3), (3.5, 8, 1)]))
    replica.take(0, 0.0)
    replica.advance()
    assert (replica.take(1, 3.5), replica.due_s) == (False, 4.0)


MODELS = st.builds(
    LatencyModel,
    step_s=st.sampled_from([0.5, 1.0, 2.0]),
    step_s_per_sequence=st.sampled_from([0.0, 0.25]),
    prefill_s_per_token=st.sampled_from([0.0, 0.125]),
    slots=st.integers(1, 4),
    max_batched_tokens=st.integers(4, 12),
    kv_tokens=st.sampled_from([None, 8, 40]),
)
ROWS = st.lists(st.tuples(st.integers(0, 120).map(lambda n: n / 4), st.integers(1, 30), st.integers(1, 12)), min_size=1)


@settings(max_examples=150, deadline=None)
@given(model=MODELS, rows=ROWS.map(sorted))
def test_stretches_of_steps_give_what_single_steps_give(model: LatencyModel, rows: list[Row]) -> None:
    requests = play(model, rows)
    # All times are binary fractions: exact.
    assert (requests.first_s, requests.finished_s, requests.gap_s) == Naive(model, rows).play()
    ideal_s = [model.step_s + row[1] * model.prefill_s_per_token for row in rows]
    waited_s = [first - row[0] - ideal for first, row, ideal in zip(requests.first_s, rows, ideal_s, strict=True)]
    assert min(waited_s) >= 0  # nothing is faster than physics
    assert requests.started_s == sorted(requests.started_s)  # first come, first served
