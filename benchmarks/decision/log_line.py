"""What a request's line in the log costs a Router's event loop, with the file written.

python -m benchmarks.decision.log_line
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from serve_app.config import LogsConfig
from serve_app.observing.json_lines import open_lines
from serve_app.observing.record import RequestRecord
from serve_app.observing.recorder import Recorder
from serve_app.observing.request_log import NAME, RequestLog
from serve_app.rollout.telemetry import Outcome
from serve_app.usage import Usage

LINES, ROUNDS = 300, 20
PAUSE_S = 0.2  # so that the thread has written, and no line waits or is lost
CONFIGS = {
    "a line": LogsConfig(),
    "with a prompt of 2,000 characters": LogsConfig(prompts=True),
    "with one expression more": LogsConfig(prompts=True, mask=("EMP-[0-9]{6}",)),
}


def answered() -> RequestRecord:
    """Return the record of a stream that went well."""
    record = Recorder().begin("rest", request_id="0123456789abcdef0123456789abcdef")
    for stage in ("authenticate", "admit", "queue", "first_token"):
        with record.stage(stage):
            pass
    record.endpoint, record.asked, record.answerer.variant = "/v1/chat/completions", "chat", "stable"
    record.tenant = record.key = "ann"
    record.is_stream, record.status = True, 200
    record.begin_answer()
    record.attempted(Outcome.OK, told=Usage(10, 20))
    record.close()
    text = "The quick brown fox jumps over the lazy dog, at 10:15 on 3 May. " * 40
    record.body = {"model": "chat", "messages": [{"role": "user", "content": text}]}
    return record


def line_us(config: LogsConfig) -> float:
    """Return microseconds for a line: of the best round, since others share the machine."""
    log, record = RequestLog(lambda: config), answered()
    took_s = []
    for _ in range(ROUNDS):
        began_s = time.perf_counter()
        for _ in range(LINES):
            log.ended(record)
        took_s.append((time.perf_counter() - began_s) / LINES)
        time.sleep(PAUSE_S)
    return min(took_s) * 1e6


def main() -> int:
    """Print the figures; return 1 when a line was lost, as the figures would be too good."""
    with tempfile.TemporaryDirectory() as folder:
        lines = open_lines(NAME, Path(folder) / "requests.jsonl", file_bytes=2**26, files=2)
        for name, config in CONFIGS.items():
            sys.stdout.write(f"{name}: {line_us(config):.0f} us\n")
        lines.close()
    return 1 if lines.losses.count else 0


if __name__ == "__main__":
    sys.exit(main())
