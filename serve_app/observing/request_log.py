"""RequestLog: one JSON line per request, of what became of it. What was asked is in it only where the configuration says so."""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable
from typing import Any

from serve_app.config_logs import LogsConfig
from serve_app.observing.json_lines import json_line, rfc3339
from serve_app.observing.masking import Masker
from serve_app.observing.prompt_texts import prompt_texts
from serve_app.observing.record import NONE, RequestOutcome, RequestRecord

NAME = "manta.requests"
DRAINING = "draining"  # an attempt at a replica that was stopping


class RequestLog:
    """An observer that writes lines to the logger ``manta.requests``. ``config`` returns the section in force."""

    def __init__(self, config: Callable[[], LogsConfig], *, wall: Callable[[], float] = time.time) -> None:
        self._config = config
        self._wall = wall
        self._logger = logging.getLogger(NAME)
        self._masks: tuple[str, ...] = ()
        self._masker = Masker()

    def began(self, record: RequestRecord) -> None:
        """Do nothing: a line is of a request that has ended."""

    def ended(self, record: RequestRecord) -> None:
        """Write a line, if there is to be one."""
        config = self._config()
        if not config.requests or not _is_sampled(record, config.sample_ratio):
            return
        fields = line_fields(record, ended_at_s=self._wall())
        if config.prompts and record.body is not None:
            fields["prompt"] = prompt_texts(record.body, self._masker_of(config), chars=config.prompt_chars)
        self._logger.info(json_line(fields))

    def _masker_of(self, config: LogsConfig) -> Masker:
        if config.mask != self._masks:
            self._masks, self._masker = config.mask, Masker(config.mask)
        return self._masker


def line_fields(record: RequestRecord, *, ended_at_s: float) -> dict[str, Any]:
    """Return what a line says, in the order of docs/logs.md; what nobody knows is None. No text of a client's is among it.

    Only the request's id is the client's choice, of at most 128 harmless characters.
    """
    by, usage = record.answerer, record.usage
    return {
        "time": rfc3339(ended_at_s),
        "request_id": record.request_id,
        "trace_id": record.trace_id or None,
        "front": record.front,
        "endpoint": _known(record.endpoint),
        "tenant": record.tenant or None,
        "key": record.key or None,
        "model": _known(record.asked),
        "variant": by.variant,
        "pipeline_version": by.pipeline_version,
        "adapter_version": by.adapter_version,
        "outcome": record.outcome.value,
        "status": str(record.status) if record.status else None,
        "error": None if record.error is None else record.error.code,
        "is_stream": record.is_stream,
        "prompt_tokens": None if usage is None else usage.prompt,
        "completion_tokens": None if usage is None else usage.completion,
        "tokens_estimated": None if usage is None else usage.is_estimated,
        "duration_ms": _ms(record.ended_s - record.began_s),
        "ttft_ms": None if record.ttft_s is None else _ms(record.ttft_s),
        "queue_ms": _ms(record.took_s("queue")) if record.attempts else None,
        "stages": _stages(record),
        "skipped": dict(record.skipped),
        "attempts": [DRAINING if outcome is None else outcome.value for outcome in record.attempts],
    }


def _stages(record: RequestRecord) -> dict[str, float]:
    """Return milliseconds by stage; one that was gone through twice is summed."""
    took_s: dict[str, float] = {}
    for timing in record.timings:
        took_s[timing.stage] = took_s.get(timing.stage, 0.0) + timing.ended_s - timing.began_s
    return {stage: _ms(each) for stage, each in took_s.items()}


def _is_sampled(record: RequestRecord, ratio: float) -> bool:
    """Whether a request has a line: by its id, so that all who see the same id decide alike."""
    return record.outcome is not RequestOutcome.OK or zlib.crc32(record.request_id.encode()) < ratio * 2**32


def _known(name: str) -> str | None:
    return None if name == NONE else name


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)
