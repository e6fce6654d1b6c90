"""A process that downloads: `downloader.py URI [BYTES]`; it is killed after BYTES, and prints what it asked for."""

from __future__ import annotations

import os
import signal
import sys

from serve_app.storage.cache import cache_from
from serve_app.storage.connection import connect
from serve_app.storage.folders import Storage, fetch_folder
from serve_app.storage.progress import Progress
from tests.unit.serve_app.storage.objects import TUNING, Gets

uri, *limit = sys.argv[1:]


def report(progress: Progress) -> None:
    if limit and progress.done_bytes >= int(limit[0]):
        os.kill(os.getpid(), signal.SIGKILL)


storage = Storage(connect(TUNING), cache_from(), TUNING)
gets = Gets(storage.s3)
folder = fetch_folder(uri, on_progress=report, storage=storage)
sys.stdout.write(f"{gets.total_bytes} {folder}")
