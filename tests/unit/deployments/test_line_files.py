from __future__ import annotations

import logging
from collections.abc import Iterator
from logging.handlers import MemoryHandler
from pathlib import Path

import pytest

from deployments.line_files import AUDIT, REQUESTS, line_file, open_audit, open_requests
from serve_app.observing import audit, request_log
from tests.unit.serve_app.observing.lines import kept_lines

SERVE = logging.getLogger("ray.serve")


@pytest.fixture(autouse=True)
def _loggers_are_left_as_they_were() -> Iterator[None]:
    with kept_lines("ray.serve"), kept_lines(audit.NAME), kept_lines(request_log.NAME):
        yield


def in_replica(folder: Path) -> Path:
    """Set Serve's logger up as Serve does in a replica, and return the file of it."""
    log = folder / "serve" / "replica_router_Router_ab12.log"
    log.parent.mkdir()
    SERVE.handlers = [logging.StreamHandler(), MemoryHandler(1, target=logging.FileHandler(log, delay=True))]
    return log


def test_lines_go_beside_serves_own_log_of_the_replica(tmp_path: Path) -> None:
    log = in_replica(tmp_path)
    assert line_file(REQUESTS) == log.with_name("manta-requests-router_Router_ab12.jsonl")
    assert line_file(AUDIT) == log.with_name("manta-audit-router_Router_ab12.jsonl")


def test_outside_of_a_replica_there_is_no_file() -> None:
    assert line_file(REQUESTS) is None


def test_requests_and_audit_have_files_of_their_own(tmp_path: Path) -> None:
    log = in_replica(tmp_path)
    opened = [open_requests(), open_audit()]
    logging.getLogger(request_log.NAME).info("a request")
    logging.getLogger(audit.NAME).info("an event")
    for lines in opened:
        lines.close()
    written = {path.name: path.read_text() for path in log.parent.iterdir()}
    assert written == {
        "manta-requests-router_Router_ab12.jsonl": "a request\n",
        "manta-audit-router_Router_ab12.jsonl": "an event\n",
    }
