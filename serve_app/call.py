"""Call and Reply: a request that names a model, as the fronts hand it over, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serve_app.affinity import affinity_key
from serve_app.answerer import Answerer
from serve_app.config import ApiKeyConfig
from serve_app.deadline import Deadline
from serve_app.limits.permit import UNLIMITED, Permit
from serve_app.observing.record import RequestRecord, current_record
from serve_app.sse import ByteStream

SKIPPED_HEADER = "x-manta-skipped"  # names the stages that an answer does without


@dataclass(frozen=True, slots=True)
class Call:
    """One request that names a model, as the fronts hand it over."""

    path: str  # with the query string
    body: Mapping[str, Any]
    raw: bytes  # the body as received; relayed untouched to models
    caller: ApiKeyConfig
    request_id: str
    session_id: str | None = None
    content_type: str = "application/json"
    permit: Permit = UNLIMITED  # what the call may use
    answerer: Answerer = field(default_factory=Answerer)  # who answers; shared by the calls that are made for this one
    record: RequestRecord = field(default_factory=current_record)
    variant: str | None = None  # the only variant that may answer, where a pipeline's version names one
    deadline: Deadline = field(default_factory=lambda: current_record().deadline)

    @property
    def affinity(self) -> str:
        """The conversation's affinity key."""
        return affinity_key(self.caller.tenant_name, self.body, session_id=self.session_id)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: whole bytes, or an open stream that the front must close."""

    content_type: str
    body: bytes | ByteStream
    model: str
    variant: str
    pipeline_version: str | None = None
    adapter_version: str | None = None
    headers: tuple[tuple[str, str], ...] = ()  # what the caller's limits still allow
    skipped: tuple[str, ...] = ()  # stages of a pipeline that it does without
