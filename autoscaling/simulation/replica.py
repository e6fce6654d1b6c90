"""Replica: one engine with continuous batching, on a clock that counts its steps."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from enum import Enum
from heapq import heappop, heappush

from autoscaling.simulation.latency import LatencyModel
from autoscaling.simulation.requests import Requests

NEVER = float("inf")


class State(Enum):
    """Where a replica is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"


class Replica:
    """Runs its sequences one token per step, as vLLM's scheduler does; prompts are read in chunks within the same steps.

    While what runs stays the same, so does the length of its steps: a stretch of equal steps is one event, at ``due_s``.
    KV cache is reserved for the whole answer when a request is admitted; nothing is ever preempted.
    """

    __slots__ = (
        "_decoding",
        "_gaps",
        "_kv_free",
        "_model",
        "_prefilling",
        "_requests",
        "_slots_free",
        "_step",
        "_step_s",
        "_steps",
        "_stretch_s",
        "asked_s",
        "due_s",
        "gone_s",
        "number",
        "open",
        "place",
        "state",
        "waiting",
    )

    def __init__(self, number: int, asked_s: float, *, model: LatencyModel, requests: Requests) -> None:
        self.number = number
        self.asked_s = asked_s
        self.gone_s = NEVER
        self.due_s = NEVER  # time of its next event; of a starting one: when it is ready
        self.state = State.STARTING
        self.open = 0  # requests it has, waiting ones included
        self.place = 0  # owned by the Router
        self.waiting: deque[int] = deque()
        self._model = model
        self._requests = requests
        self._slots_free = model.slots
        self._kv_free = float("inf") if model.kv_tokens is None else float(model.kv_tokens)
        self._prefilling: deque[list[int]] = deque()  # request, prompt tokens still to read in later steps
        self._decoding: list[tuple[int, int, int]] = []  # heap: last step, request, first step
        self._step = 0  # steps done before this stretch
        self._stretch_s = 0.0  # time at which this stretch began
        self._step_s = 0.0  # seconds of one of its steps
        self._steps = 0  # how many there are
        self._gaps = _Gaps()

    @property
    def running(self) -> int:
        """Requests in slots."""
        return self._model.slots - self._slots_free

    @property
    def kv_reserved_tokens(self) -> float:
        """Tokens of KV cache that running requests have reserved, 0 where it has no limit."""
        return 0.0 if self._model.kv_tokens is None else self._model.kv_tokens - self._kv_free

    def take(self, request: int, now_s: float) -> bool:
        """Queue a request; return whether ``due_s`` has changed, because it is let in before that.

        One that comes at the very moment at which a step begins is let in at the next.
        """
        self.open += 1
        self.waiting.append(request)
        if self.due_s == NEVER:  # idle
            self._begin(now_s)
            return True
        if self._steps == 1 or len(self.waiting) > 1 or not self._fits(request):
            return False  # it is looked at when this step ends, or what holds back those before it holds it back too
        self._steps = min(self._steps, int((now_s - self._stretch_s) / self._step_s) + 1)
        due_s = max(now_s, self._stretch_s + self._steps * self._step_s)  # max: of two nearly equal floats
        is_sooner = due_s < self.due_s
        self.due_s = due_s
        return is_sooner

    def advance(self) -> int:
        """End the stretch that is due and begin the next one; return how many requests have finished."""
        now_s = self.due_s
        step = self._step = self._step + self._steps
        decoding = self._decoding
        finished = 0
        while decoding and decoding[0][0] == step:
            _, request, first_step = heappop(decoding)
            self._requests.gap_s[request] = self._gaps.longest_since(first_step)
            self._finish(request, now_s)
            finished += 1
        prefilling = self._prefilling
        while prefilling and prefilling[0][1] == 0:
            finished += self._first_token(prefilling.popleft()[0], now_s)
        self.open -= finished
        if self.open:
            self._begin(now_s)
        else:
            self.due_s = NEVER
            self._gaps.clear()
        return finished

    def _first_token(self, request: int, now_s: float) -> int:
        requests = self._requests
        requests.first_s[request] = now_s
        more = requests.output_tokens[request] - 1
        if more > 0:
            heappush(self._decoding, (self._step + more, request, self._step))
            return 0
        self._finish(request, now_s)
        return 1

    def _finish(self, request: int, now_s: float) -> None:
        self._requests.finished_s[request] = now_s
        self._slots_free += 1
        self._kv_free += self._kv_of(request)

    def _begin(self, now_s: float) -> None:
        decoding = self._decoding
        self._stretch_s = now_s
        step_s = self._model.step_of(len(decoding))
        if self.waiting or self._prefilling:
            step_s += self._model.prefill_s_per_token * self._prefill(now_s)
        self._steps = 1 if self._prefilling else decoding[0][0] - self._step
        self._step_s = step_s
        self._gaps.add(self._step, step_s)
        self.due_s = now_s + self._steps * step_s

    def _prefill(self, now_s: float) -> int:
        """Spread what decoding leaves of the step's tokens over prompts, first come first served; return the tokens read."""
        budget = left = self._model.max_batched_tokens - len(self._decoding)
        for entry in self._prefilling:
            chunk = min(entry[1], left)
            entry[1] -= chunk
            left -= chunk
        waiting = self.waiting
        while waiting and left > 0 and self._fits(waiting[0]):
            request = waiting.popleft()
            self._slots_free -= 1
            self._kv_free -= self._kv_of(request)
            self._requests.started_s[request] = now_s
            tokens = self._requests.prompt_tokens[request]
            chunk = min(tokens, left)
            self._prefilling.append([request, tokens - chunk])
            left -= chunk
        return budget - left

    def _fits(self, request: int) -> bool:
        return self._slots_free > 0 and self._kv_of(request) <= self._kv_free

    def _kv_of(self, request: int) -> int:
        limit = self._model.kv_tokens
        if limit is None:
            return 0
        # One that is longer than the whole cache gets all of it, or it would block its queue for ever.
        return min(limit, self._requests.prompt_tokens[request] + self._requests.output_tokens[request])


class _Gaps:
    """Longest step since a given one, from the steps that no later step has outlasted."""

    __slots__ = ("_lengths_s", "_steps")

    def __init__(self) -> None:
        self._steps: list[int] = []
        self._lengths_s: list[float] = []

    def add(self, step: int, length_s: float) -> None:
        """Note that the steps from this one on take ``length_s`` seconds."""
        steps, lengths_s = self._steps, self._lengths_s
        while lengths_s and lengths_s[-1] <= length_s:
            lengths_s.pop()
            steps.pop()
        steps.append(step)
        lengths_s.append(length_s)

    def longest_since(self, step: int) -> float:
        """Return the seconds of the longest step from ``step`` on, which is not after the last stretch noted."""
        return self._lengths_s[bisect_left(self._steps, step)]

    def clear(self) -> None:
        """Forget all steps: nothing runs that could have seen them."""
        self._steps.clear()
        self._lengths_s.clear()
