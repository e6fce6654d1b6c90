"""RequestMetrics: what clients see of the platform, counted by model and variant."""

from __future__ import annotations

from serve_app import metrics
from serve_app.errors import RateLimited
from serve_app.observing.record import CANCELLED, RequestOutcome, RequestRecord
from serve_app.registry import Registry

LEFT = CANCELLED  # the client left in the middle of a stage, which is no fault of that stage


class RequestMetrics:
    """An observer that counts. Labels come from what is deployed: what a client writes is never one."""

    def __init__(self, registry: Registry) -> None:
        self._requests = registry.counter(metrics.REQUESTS)
        self._seconds = registry.histogram(metrics.REQUEST_SECONDS)
        self._first = registry.histogram(metrics.FIRST_TOKEN_SECONDS)
        self._queue = registry.histogram(metrics.QUEUE_WAIT_SECONDS)
        self._stages = registry.histogram(metrics.STAGE_SECONDS)
        self._failures = registry.counter(metrics.STAGE_FAILURES)
        self._skipped = registry.counter(metrics.STAGES_SKIPPED)
        self._tokens = registry.counter(metrics.TOKENS)
        self._retries = registry.counter(metrics.RETRIES)
        self._continued = registry.counter(metrics.STREAMS_CONTINUED)
        self._limits = registry.counter(metrics.LIMITS_HIT)
        self._passages = registry.histogram(metrics.PASSAGES)

    def began(self, record: RequestRecord) -> None:
        """Do nothing: what has not ended is in the gauges."""

    def ended(self, record: RequestRecord) -> None:
        """Count a request."""
        who = record.asked, record.variant
        self._requests.labels(record.front, *who, record.outcome.value).inc()
        if isinstance(record.error, RateLimited):
            self._limits.labels(record.error.limit).inc()
        if record.outcome is RequestOutcome.OK:
            self._seconds.labels(*who).observe(record.ended_s - record.began_s)
        if record.is_stream and record.ttft_s is not None:
            self._first.labels(*who).observe(record.ttft_s)
        if record.passages is not None:
            self._passages.labels(record.asked).observe(record.passages)
        if (usage := record.usage) is not None:
            self._tokens.labels(*who, "prompt").inc(usage.prompt)
            self._tokens.labels(*who, "completion").inc(usage.completion)
        self._count_attempts(record)
        self._count_stages(record)

    def _count_attempts(self, record: RequestRecord) -> None:
        if record.attempts:
            self._queue.labels(record.asked, record.variant).observe(record.took_s("queue"))
        for outcome in record.attempts[:-1]:
            self._retries.labels(record.asked, "draining" if outcome is None else outcome.value).inc()
        if record.continued:
            self._continued.labels(record.asked).inc(record.continued)

    def _count_stages(self, record: RequestRecord) -> None:
        for timing in record.timings:
            self._stages.labels(record.asked, timing.stage).observe(timing.ended_s - timing.began_s)
            if timing.error not in (None, LEFT):
                self._failures.labels(record.asked, timing.stage).inc()
        for stage, reason in record.skipped.items():
            self._skipped.labels(record.asked, stage, reason).inc()
