"""Tracing: spans of requests for OpenTelemetry, made when a request is over. Off or not sampled, nothing is computed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterator

from serve_app.config_tracing import TracingConfig
from serve_app.contracts import TraceLink
from serve_app.errors import PlatformError
from serve_app.observing.record import RequestRecord, working_on
from serve_app.observing.tracing_context import TraceContext, arrived, joined
from serve_app.observing.tracing_spans import Attributes, Root, request_root, spans_of
from serve_app.observing.tracing_writer import CLOSE_TIMEOUT_S, Sink, SpanWriter, open_otlp

logger = logging.getLogger("ray.serve")

OpenSink = Callable[[TracingConfig, str], Sink]


def open_writer(config: TracingConfig, component: str) -> Sink:
    """Return a writer of spans to the configuration's receiver."""
    return SpanWriter(functools.partial(open_otlp, config, component), target=config.target)


class Delivery:
    """Where a process's spans go: one sink, opened when there is a first span, another when the configuration changes."""

    def __init__(self, component: str, *, open_sink: OpenSink = open_writer, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._component = component
        self._open_sink = open_sink
        self._now_ns = now_ns
        self._sink: Sink | None = None
        self._config: TracingConfig | None = None

    def send(self, record: RequestRecord, context: TraceContext, root: Root, *, config: TracingConfig) -> None:
        """Send the spans of a record that has just ended."""
        if self._sink is None or (config is not self._config and config != self._config):
            self.end()
            self._sink = self._open_sink(config, self._component)
        self._config = config
        self._sink.put(spans_of(record, context, root, now_ns=self._now_ns()))

    def end(self) -> None:
        """Have what waits sent, and the sink closed by itself."""
        if self._sink is not None:
            self._sink.close(0.0)
            self._sink = self._config = None

    async def close(self) -> None:
        """Wait a moment for what has not been sent yet."""
        if (sink := self._sink) is not None:
            self._sink = self._config = None
            await asyncio.to_thread(sink.close, CLOSE_TIMEOUT_S)


class Tracing:
    """An observer of requests. One per Router; ``config`` returns what is in force."""

    def __init__(self, config: Callable[[], TracingConfig], delivery: Delivery) -> None:
        self._config = config
        self._delivery = delivery
        self._seen: TracingConfig | None = None
        self._export = ""

    def began(self, record: RequestRecord) -> None:
        """Give a request its place in a trace."""
        config = self._config()
        if config is not self._seen:
            self._take(config)
        if config.enabled:
            record.trace = arrived(record.traceparent, record.tracestate, ratio=config.sample_ratio, export=self._export)

    def ended(self, record: RequestRecord) -> None:
        """Have a request's spans sent."""
        context = record.trace
        if context is None or not context.is_sampled or (config := self._config()).enabled is False:
            return
        self._delivery.send(record, context, request_root(record), config=config)

    async def close(self) -> None:
        """Wait a moment for what has not been sent yet."""
        await self._delivery.close()

    def _take(self, config: TracingConfig) -> None:
        self._seen = config
        self._export = config.model_dump_json(exclude_defaults=True) if config.enabled else ""
        if not config.enabled:
            self._delivery.end()


class StageTracing:
    """Spans of a stage in a process of its own. It learns from each request whether, and where to, they are sent."""

    def __init__(
        self, component: str, *, delivery: Delivery | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._delivery = delivery or Delivery(component)
        self._clock = clock
        self._export = ""
        self._config: TracingConfig | None = None

    @contextlib.contextmanager
    def joined(self, link: TraceLink | None, name: str, about: Attributes) -> Iterator[None]:
        """Make spans of the work in this context, if the caller's trace is kept."""
        context = None if link is None else joined(link)
        if context is None or (config := self._told(context.export)) is None:
            yield
            return
        record = RequestRecord(clock=self._clock, began_s=self._clock(), trace=context)
        try:
            with working_on(record), _noted(record):
                yield
        finally:
            record.close()
            self._send(record, Root(name, about, None if record.error is None else record.error.code), config)

    async def close(self) -> None:
        """Wait a moment for what has not been sent yet."""
        await self._delivery.close()

    def _send(self, record: RequestRecord, root: Root, config: TracingConfig) -> None:
        try:
            if (context := record.trace) is not None:
                self._delivery.send(record, context, root, config=config)
        except Exception:
            logger.exception("the spans of a stage could not be made")

    def _told(self, export: str) -> TracingConfig | None:
        if export != self._export:
            self._export = export
            try:
                self._config = TracingConfig.model_validate_json(export)
            except ValueError:  # of another release, which knows more
                logger.exception("the caller's tracing configuration cannot be used; its requests leave no trace here")
                self._config = None
        return self._config


@contextlib.contextmanager
def _noted(record: RequestRecord) -> Iterator[None]:
    """Note on the record how the work ends."""
    try:
        yield
    except asyncio.CancelledError:
        record.leave()
        raise
    except PlatformError as err:
        record.fail(err)
        raise
    except Exception as err:
        record.fail(_Unexpected(type(err).__name__))
        raise


class _Unexpected(PlatformError):
    """What nobody expected, told by its kind only: messages may hold texts of clients."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.code = kind
