"""Fleet: the replicas of one deployment, the events they make, and the requests that pass through them."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush

from autoscaling.observation import Observation
from autoscaling.simulation.latency import LatencyModel
from autoscaling.simulation.replica import NEVER, Replica, State
from autoscaling.simulation.requests import Requests
from autoscaling.simulation.router import Router


class Fleet:
    """Starts with ``ready`` replicas that serve at second 0; ``scale`` changes their number, ``advance`` lets time pass.

    Removing replicas cancels those that start first, newest first, then drains the least loaded: a draining one takes no
    more requests, finishes those it has, and counts until it is gone.
    """

    def __init__(self, requests: Requests, model: LatencyModel, *, ready: int, max_leases: int) -> None:
        self.now_s = 0.0
        self.target = ready
        self.arrived = 0
        self.finished = 0
        self._requests = requests
        self._model = model
        self._router = Router(max_leases)
        self._events: list[tuple[float, int]] = []  # heap: time, number of the replica; stale unless its due_s agrees
        self._replicas: list[Replica] = []  # by number, gone ones too
        self._starting: list[Replica] = []  # oldest first
        self._ready: dict[int, Replica] = {}
        self._draining = 0
        for _ in range(ready):
            self._make_ready(self._new())

    def advance(self, until_s: float) -> None:
        """Let everything happen that is due until then; what replicas do comes before arrivals of the same moment."""
        events, replicas, arrivals = self._events, self._replicas, self._requests.arrived_s
        next_request, count = self.arrived, len(arrivals)
        while True:
            arrival_s = arrivals[next_request] if next_request < count else NEVER
            if events and events[0][0] <= arrival_s:
                if events[0][0] > until_s:
                    break
                time_s, number = heappop(events)
                replica = replicas[number]
                if replica.due_s == time_s:
                    self._happen(replica, time_s)
            elif arrival_s <= until_s:
                self._send(next_request, arrival_s)
                next_request += 1
            else:
                break
        self.arrived = next_request
        self.now_s = until_s

    def scale(self, target: int) -> None:
        """Ask for that many replicas from now on, draining ones not included."""
        for _ in range(target - self.target):
            replica = self._new()
            replica.due_s = self.now_s + self._model.startup_s
            self._starting.append(replica)
            heappush(self._events, (replica.due_s, replica.number))
        surplus = self.target - target
        while surplus > 0 and self._starting:
            self._end(self._starting.pop(), self.now_s)
            surplus -= 1
        for replica in self._router.least_loaded(max(surplus, 0)):
            self._drain(replica)
        self.target = target

    def observe(self) -> Observation:
        """Return the load at this moment. Draining replicas are not in it: Serve does not ask them either."""
        open_requests = waiting = 0
        for replica in self._ready.values():
            open_requests += replica.open
            waiting += len(replica.waiting)
        return Observation(
            now_s=self.now_s,
            target=self.target,
            ready=len(self._ready),
            waiting=waiting,
            held=len(self._router.held),
            running=open_requests - waiting,
            arrived=self.arrived,
            slots=self._model.slots,
            kv_cache_usage=self._kv_cache_usage(open_requests - waiting),
        )

    @property
    def ready(self) -> int:
        """Replicas that take requests."""
        return len(self._ready)

    @property
    def alive(self) -> int:
        """Replicas that cost: starting, ready and draining ones."""
        return len(self._starting) + len(self._ready) + self._draining

    @property
    def replicas(self) -> Sequence[Replica]:
        """All replicas there have been, in the order in which they were asked for."""
        return self._replicas

    def lifespans(self) -> list[tuple[float, float]]:
        """Return when each replica was asked for and when it was gone, infinity for one that is there."""
        return [(each.asked_s, each.gone_s) for each in self._replicas]

    def _kv_cache_usage(self, running: int) -> float:
        """Return the mean share of KV cache that is reserved; of slots where the cache has no limit."""
        count, limit = len(self._ready), self._model.kv_tokens
        if not count:
            return 0.0
        if limit is None:
            return running / (count * self._model.slots)
        return sum(replica.kv_reserved_tokens for replica in self._ready.values()) / (count * limit)

    def _happen(self, replica: Replica, now_s: float) -> None:
        if replica.state is State.STARTING:
            self._starting.remove(replica)  # the oldest: found at once
            self._make_ready(replica)
            replica.due_s = NEVER
            self._hand_over(now_s)
            return
        count = replica.advance()
        if replica.due_s != NEVER:
            heappush(self._events, (replica.due_s, replica.number))
        if not count:
            return
        self.finished += count
        if replica.state is State.READY:
            self._router.has_finished(replica, count)
            self._hand_over(now_s)
        elif not replica.open:
            self._draining -= 1
            self._end(replica, now_s)

    def _hand_over(self, now_s: float) -> None:
        """Give held requests to replicas for as long as one may take another."""
        held = self._router.held
        while held and (replica := self._router.pick()) is not None:
            self._give(held.popleft(), replica, now_s)

    def _send(self, request: int, now_s: float) -> None:
        # While requests are held, no replica has a place: whatever makes one free hands it to them at once.
        if (replica := self._router.pick()) is None:
            self._router.held.append(request)
        else:
            self._give(request, replica, now_s)

    def _give(self, request: int, replica: Replica, now_s: float) -> None:
        if replica.take(request, now_s):
            heappush(self._events, (replica.due_s, replica.number))

    def _new(self) -> Replica:
        replica = Replica(len(self._replicas), self.now_s, model=self._model, requests=self._requests)
        self._replicas.append(replica)
        return replica

    def _make_ready(self, replica: Replica) -> None:
        replica.state = State.READY
        self._ready[replica.number] = replica
        self._router.add(replica)

    def _drain(self, replica: Replica) -> None:
        self._router.remove(replica)
        del self._ready[replica.number]
        if replica.open:
            replica.state = State.DRAINING
            self._draining += 1
        else:
            self._end(replica, self.now_s)

    def _end(self, replica: Replica, now_s: float) -> None:
        replica.state = State.GONE
        replica.gone_s = now_s
        replica.due_s = NEVER
