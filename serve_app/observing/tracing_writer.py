"""SpanWriter: a thread that sends a process's spans. Requests never wait for it, and it never fails them."""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol
from urllib.parse import unquote

from serve_app.config_tracing import GRPC, HTTP, TracingConfig
from serve_app.observing.tracing_spans import Traced

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

    from serve_app.observing.tracing_sdk import SpanMaker

logger = logging.getLogger("ray.serve")

EVERY_S = 1.0
MOST_WAITING = 2048  # requests whose spans wait to be sent; further ones leave no trace
BATCH_SPANS = 512
CLOSE_TIMEOUT_S = 3.0
PACKAGES = {HTTP: "opentelemetry.exporter.otlp.proto.http", GRPC: "opentelemetry.exporter.otlp.proto.grpc"}


class Sink(Protocol):
    """Where spans go."""

    def put(self, traced: Traced) -> None:
        """Take one record's spans; never waits."""
        ...

    def close(self, timeout_s: float) -> None:
        """Send what is left; waits for that at most so long."""
        ...


class Opened(NamedTuple):
    """What the thread works with."""

    maker: SpanMaker
    exporter: SpanExporter


class TracingUnavailable(Exception):
    """This process cannot send traces; the message says what it lacks."""


def missing_package(config: TracingConfig) -> str | None:
    """Return what this environment lacks to send traces, and how it is installed; None where nothing is missing."""
    package = PACKAGES[config.protocol]
    try:
        is_there = importlib.util.find_spec(package) is not None
    except ImportError:  # of a package above it
        is_there = False
    return None if is_there else f"{package} is not installed: pip install 'manta-serve[tracing]'"


class LastWords(logging.Handler):
    """Keeps the exporters' last complaint instead of writing each: they repeat it for every batch."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.text = record.getMessage()


LAST_WORDS = LastWords()


def open_otlp(config: TracingConfig, component: str, env: Mapping[str, str] | None = None) -> Opened:
    """Return the exporter of a configuration, and what makes its spans.

    Raises:
        TracingUnavailable: a package or the environment variable of headers is missing.
    """
    headers = _headers(config, os.environ if env is None else env)
    if (missing := missing_package(config)) is not None:
        raise TracingUnavailable(missing)
    from serve_app.observing.tracing_sdk import SpanMaker, open_exporter

    exporter = open_exporter(config, headers)
    complaints = logging.getLogger("opentelemetry.exporter.otlp")
    complaints.propagate = False
    complaints.addHandler(LAST_WORDS)
    resource = {
        "service.name": config.service_name,
        "service.instance.id": str(uuid.uuid4()),
        "manta.component": component,
    }
    return Opened(SpanMaker(resource), exporter)


class SpanWriter:
    """Sends spans each ``every_s`` seconds. ``open_target`` is called in its thread: it imports much."""

    def __init__(self, open_target: Callable[[], Opened], *, target: str, every_s: float = EVERY_S) -> None:
        self._open = open_target
        self._target = target
        self._every_s = every_s
        self._waiting: deque[Traced] = deque()
        self._closing = threading.Event()
        self._is_dead = False
        self._is_failing = False
        self._lost = 0  # spans since it last worked
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def put(self, traced: Traced) -> None:
        """Take one record's spans, unless too many wait."""
        if self._is_dead or len(self._waiting) >= MOST_WAITING:
            self._lost += len(traced.spans)
            return
        self._waiting.append(traced)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Send what waits and end the thread; after ``timeout_s`` what is left is lost."""
        self._closing.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            opened = self._open()
        except Exception as err:
            self._is_dead = True
            self._waiting.clear()
            is_odd = not isinstance(err, TracingUnavailable)
            logger.error("this process sends no traces: %s", err, exc_info=is_odd)  # noqa: TRY400  (said by its message)
            return
        is_closing = False
        while not is_closing:
            is_closing = self._closing.wait(self._every_s)
            self._send(opened)
        opened.exporter.shutdown()

    def _send(self, opened: Opened) -> None:
        """Send what waits; at the end, one failure is enough."""
        while self._waiting:
            spans: list[ReadableSpan] = []
            while self._waiting and len(spans) < BATCH_SPANS:
                spans += opened.maker.make(self._waiting.popleft())
            self._note(len(spans), is_sent=_export(opened.exporter, spans))
            if self._is_failing and self._closing.is_set():
                self._lost += sum(len(traced.spans) for traced in self._waiting)
                self._waiting.clear()

    def _note(self, count: int, *, is_sent: bool) -> None:
        """Log the first failure of a row, and the end of one."""
        if not is_sent:
            self._lost += count
            if not self._is_failing:
                why = LAST_WORDS.text or "no reason is known"
                logger.warning("spans cannot be sent to %s: %s. Said once, until they can be sent again", self._target, why)
        elif self._lost:
            logger.warning("spans are sent to %s again; %d were lost", self._target, self._lost)
            self._lost = 0
        self._is_failing = not is_sent


def _export(exporter: SpanExporter, spans: list[ReadableSpan]) -> bool:
    try:
        return exporter.export(spans).name == "SUCCESS"
    except Exception as err:
        LAST_WORDS.text = f"{type(err).__name__}: {err}"
        return False


def _headers(config: TracingConfig, env: Mapping[str, str]) -> dict[str, str] | None:
    """Return the receiver's headers, by OpenTelemetry's own form of them. Raises TracingUnavailable; never shows a value."""
    if (name := config.headers_env) is None:
        return None
    pairs = [part.partition("=") for part in env.get(name, "").split(",") if part.strip()]
    if not pairs or not all(key.strip() and equals for key, equals, _ in pairs):
        raise TracingUnavailable(
            f"`tracing.headers_env` names {name}, which must hold name=value,name=value in the environment of every Ray node"
        )
    return {key.strip().lower(): unquote(value.strip()) for key, _, value in pairs}
