"""RequestRecord: what is known of one request, from its arrival to the end of its answer. Metrics, logs and traces read it."""

from __future__ import annotations

import contextlib
import time
from asyncio import CancelledError
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType, TracebackType
from typing import Any, Literal, NamedTuple, Self

from serve_app.answerer import Answerer
from serve_app.contracts import TraceLink
from serve_app.deadline import NO_DEADLINE, Deadline
from serve_app.errors import DeadlineExceeded, ErrorKind, PlatformError
from serve_app.observing.tracing_context import TraceContext, new_span_id
from serve_app.rollout.telemetry import Outcome
from serve_app.usage import Usage

Front = Literal["rest", "grpc"]
NONE = "none"  # the label of what nobody knows
CANCELLED = CancelledError.__name__  # how a stage ends that its client, or its time, has cut off
STAGES = ("authenticate", "admit", "condense", "retrieve", "prompt", "embed", "queue", "first_token", "answer", "stream")
Stage = Literal["authenticate", "admit", "condense", "retrieve", "prompt", "embed", "queue", "first_token", "answer", "stream"]


class RequestOutcome(StrEnum):
    """What became of a request, as its client sees it."""

    OK = "ok"
    CLIENT_ERROR = "client_error"  # the request's fault: 400, 404, 409, 413
    UNAUTHENTICATED = "unauthenticated"  # 401, 403
    RATE_LIMITED = "rate_limited"  # 429
    UNAVAILABLE = "unavailable"  # 503
    DEADLINE = "deadline"  # 504
    SERVER_ERROR = "server_error"  # 500
    BROKEN = "broken"  # a stream that ended in an error event
    CANCELLED = "cancelled"  # the client left


FAILED = frozenset({RequestOutcome.UNAVAILABLE, RequestOutcome.DEADLINE, RequestOutcome.SERVER_ERROR, RequestOutcome.BROKEN})

OUTCOME = MappingProxyType(
    {
        ErrorKind.BAD_REQUEST: RequestOutcome.CLIENT_ERROR,
        ErrorKind.UNAUTHENTICATED: RequestOutcome.UNAUTHENTICATED,
        ErrorKind.FORBIDDEN: RequestOutcome.UNAUTHENTICATED,
        ErrorKind.NOT_FOUND: RequestOutcome.CLIENT_ERROR,
        ErrorKind.METHOD_NOT_ALLOWED: RequestOutcome.CLIENT_ERROR,
        ErrorKind.CONFLICT: RequestOutcome.CLIENT_ERROR,
        ErrorKind.TOO_LARGE: RequestOutcome.CLIENT_ERROR,
        ErrorKind.RATE_LIMITED: RequestOutcome.RATE_LIMITED,
        ErrorKind.UNAVAILABLE: RequestOutcome.UNAVAILABLE,
        ErrorKind.DEADLINE: RequestOutcome.DEADLINE,
        ErrorKind.INTERNAL: RequestOutcome.SERVER_ERROR,
    }
)


class Timing(NamedTuple):
    """One stage of a request, or a part of one, in seconds of its record's clock."""

    stage: str
    began_s: float
    ended_s: float
    error: str | None  # the code of the error that it ended in
    span_id: str = ""  # where somebody was told of it already
    parent_id: str = ""  # the span of the stage that it is a part of
    about: Mapping[str, str | int] = MappingProxyType({})  # what a trace tells of it


@dataclass(slots=True)
class RequestRecord:
    """Filled in by whoever works on the request; a request that nobody records has one as well, which nobody reads."""

    front: Front = "rest"
    request_id: str = ""
    traceparent: str | None = None  # W3C's headers, as the client sent them
    tracestate: str | None = None
    clock: Callable[[], float] = time.monotonic
    began_s: float = 0.0
    ended_s: float = 0.0
    endpoint: str = NONE  # the route's template or the RPC's name
    method: str = ""  # of HTTP
    status: int | str = 0  # HTTP's number or gRPC's name; 0: nothing was answered
    asked: str = NONE  # the model, adapter, pipeline or embedder; only a name that is served
    tenant: str = ""
    key: str = ""  # the API key's name
    is_counted: bool = True  # False: a probe or a page, which says nothing of how the platform serves
    is_stream: bool = False
    answerer: Answerer = field(default_factory=Answerer)
    timings: list[Timing] = field(default_factory=list)
    details: list[Timing] = field(default_factory=list)  # parts of stages, for traces only
    attempts: list[Outcome | None] = field(default_factory=list)  # None: the replica was stopping and refused
    first_s: float | None = None  # when the first bytes of the answer came
    continued: int = 0  # times that its stream went on at another replica
    passages: int | None = None  # that a pipeline found
    prompt_estimate: int = 0  # tokens, for want of an answer that tells them
    usage: Usage | None = None
    outcome: RequestOutcome = RequestOutcome.OK
    error: PlatformError | None = None
    deadline: Deadline = NO_DEADLINE
    skipped: dict[Stage, str] = field(default_factory=dict)  # stages that the answer does without, and why
    body: Mapping[str, Any] | None = None  # what is asked; only where `logs.prompts` says so
    trace: TraceContext | None = None  # set by the tracer, where one looks on

    @property
    def trace_id(self) -> str:
        """The id of its trace; empty where nobody traces."""
        return "" if self.trace is None else self.trace.trace_id

    @property
    def variant(self) -> str:
        """Who answered, as metrics name it: of a pipeline its version."""
        return self.answerer.pipeline_version or self.answerer.variant or NONE

    @property
    def ttft_s(self) -> float | None:
        """From arrival to the first bytes of the answer."""
        return None if self.first_s is None else self.first_s - self.began_s

    def stage(self, name: Stage) -> StageTimer:
        """Return a context that times a stage."""
        return StageTimer(self, name, self.timings)

    def detail(self, name: str) -> AbstractContextManager[object]:
        """Return a context that times a part of a stage, if there is a trace to tell it to."""
        is_told = self.trace is not None and self.trace.is_sampled
        return StageTimer(self, name, self.details) if is_told else _UNTOLD

    def took_s(self, stage: Stage) -> float:
        """Return what a stage took in all."""
        return sum(timing.ended_s - timing.began_s for timing in self.timings if timing.stage == stage)

    def begin_answer(self) -> None:
        """Note that the answer's first bytes are here."""
        if self.first_s is None:
            self.first_s = self.clock()

    def attempted(self, outcome: Outcome | None, *, told: Usage | None = None, events: int = 0) -> None:
        """Note what became of an attempt to have it answered: what it told of its usage, or of how many events it was."""
        self.attempts.append(outcome)
        if told is not None:
            self.usage = told
        elif events or outcome is Outcome.CANCELLED:
            self.usage = Usage(self.prompt_estimate, events, is_estimated=True)

    def fail(self, error: PlatformError) -> None:
        """Note what the client was told."""
        self.error = error
        self.outcome = OUTCOME[error.kind]

    def cut_off(self) -> str:
        """Note that the stage which was cancelled last had run out of time, and return its name; NONE between stages."""
        for i, timing in reversed(list(enumerate(self.timings))):
            if timing.error == CANCELLED:
                self.timings[i] = timing._replace(error=DeadlineExceeded.code)
                return timing.stage
        return NONE

    def leave(self) -> None:
        """Note that the client has left; it may have had its answer by then, or heard of an error."""
        if self.error is not None:
            return
        self.outcome = RequestOutcome.OK if self._last is Outcome.OK else RequestOutcome.CANCELLED

    def close(self) -> None:
        """Note that the request is over."""
        self.ended_s = self.clock()
        if self.outcome is RequestOutcome.OK and self._last in (Outcome.BROKEN, Outcome.SERVER_ERROR):
            self.outcome = RequestOutcome.BROKEN
        if self.first_s is not None and self.is_stream:
            self.timings.append(Timing("stream", self.first_s, self.ended_s, self._broke_by))

    @property
    def _broke_by(self) -> str | None:
        """What ended a stream before its time, other than its client."""
        if self.error is not None:
            return self.error.code
        return self.outcome.value if self.outcome is RequestOutcome.BROKEN else None

    @property
    def _last(self) -> Outcome | None:
        return self.attempts[-1] if self.attempts else None


_current: ContextVar[RequestRecord | None] = ContextVar("manta_request_record", default=None)
_timer: ContextVar[StageTimer | None] = ContextVar("manta_stage_timer", default=None)
_UNTOLD = contextlib.nullcontext()


def current_record() -> RequestRecord:
    """Return the record of the request that this task works on; one that nobody reads where nobody records it."""
    return _current.get() or RequestRecord()


def set_current(record: RequestRecord) -> None:
    """Have this task, and those that it starts, work on a request."""
    _current.set(record)


@contextlib.contextmanager
def working_on(record: RequestRecord) -> Iterator[None]:
    """Have this task work on a record in this context."""
    token = _current.set(record)
    try:
        yield
    finally:
        _current.reset(token)


def current_link(*, is_sampled: bool = False) -> TraceLink | None:
    """Return where in a trace this task's work stands, for the process that goes on with it; None where nobody traces.

    Args:
        is_sampled: only where the trace is kept: who makes no trace of its own need not hear of one that is not.
    """
    timer = _timer.get()
    if timer is None or (trace := timer.record.trace) is None or (is_sampled and not trace.is_sampled):
        return None
    return trace.link(timer.span_id if trace.is_sampled else trace.span_id)


class StageTimer:
    """Times one stage, or a part of one, also where it fails."""

    __slots__ = ("_began_s", "_into", "_parent_id", "_span_id", "_stage", "_token", "about", "record")

    def __init__(self, record: RequestRecord, stage: str, into: list[Timing]) -> None:
        self.record = record
        self.about: Mapping[str, str | int] = {}
        self._stage = stage
        self._into = into
        self._span_id = self._parent_id = ""
        self._token: Token[StageTimer | None] | None = None

    @property
    def span_id(self) -> str:
        """The id of its span, from when somebody asks for it."""
        self._span_id = self._span_id or new_span_id()
        return self._span_id

    def __enter__(self) -> Self:
        if self.record.trace is not None:
            outer = _timer.get()
            if outer is not None and outer.record is self.record:
                self._parent_id = outer.span_id
            self._token = _timer.set(self)
        self._began_s = self.record.clock()
        return self

    def __exit__(self, _: type[BaseException] | None, err: BaseException | None, __: TracebackType | None) -> None:
        error = None
        if err is not None:
            error = err.code if isinstance(err, PlatformError) else type(err).__name__
        ended_s = self.record.clock()
        self._into.append(Timing(self._stage, self._began_s, ended_s, error, self._span_id, self._parent_id, self.about))
        if self._token is not None:
            _timer.reset(self._token)
