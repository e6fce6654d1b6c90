"""Where the JSON lines of a replica go: beside Serve's own log of it, in Ray's folder of logs on its node."""

from __future__ import annotations

import logging
from logging.handlers import MemoryHandler
from pathlib import Path

from serve_app.observing import audit, request_log
from serve_app.observing.json_lines import JsonLines, open_lines

FILE_BYTES = 64 * 2**20
REQUEST_FILES = 5  # the newest included: 320 MiB of a Router at most
AUDIT_FILES = 10
REQUESTS, AUDIT = "manta-requests", "manta-audit"


def open_requests() -> JsonLines:
    """Have the lines of requests written by this process; close what is returned."""
    return open_lines(request_log.NAME, line_file(REQUESTS), file_bytes=FILE_BYTES, files=REQUEST_FILES)


def open_audit() -> JsonLines:
    """Have the lines of the audit log written by this process; close what is returned."""
    return open_lines(audit.NAME, line_file(AUDIT), file_bytes=FILE_BYTES, files=AUDIT_FILES)


def line_file(kind: str) -> Path | None:
    """Return ``KIND-APP_DEPLOYMENT_ID.jsonl`` for this replica; None where Serve has given this process no file."""
    for handler in logging.getLogger("ray.serve").handlers:
        target = handler.target if isinstance(handler, MemoryHandler) else handler
        if isinstance(target, logging.FileHandler):
            log = Path(target.baseFilename)
            return log.with_name(f"{kind}-{log.stem.removeprefix('replica_')}.jsonl")
    return None
