"""Download: a folder's objects into a partial folder, in parallel and verified; what is there is not fetched again."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from os import pwrite
from pathlib import Path
from typing import Any

from serve_app.errors import MissingWeights
from serve_app.storage.connection import Tuning
from serve_app.storage.digests import Mismatch, RunningDigest, Verifier, algorithm_for
from serve_app.storage.journal import Journal, JournalHead, boot_id
from serve_app.storage.partial import PartialFile
from serve_app.storage.progress import OnProgress, ProgressCounter
from serve_app.storage.ranges import Span, range_bytes
from serve_app.storage.remote import RemoteFolder
from serve_app.storage.stream import BrokenStreamError, read_range

logger = logging.getLogger("ray.serve")
JOURNAL = "journal"
FILES = "files"  # below the partial folder: what becomes the final one


class _Stopped(Exception):
    """Another thread's failure has ended the download."""


class Download:
    """One attempt at a folder. Whoever starts it holds the lock on the partial folder."""

    def __init__(self, s3: Any, folder: RemoteFolder, partial: Path, *, tuning: Tuning) -> None:
        self._s3 = s3
        self._folder = folder
        self._bucket = folder.location.bucket
        self._partial = partial
        self._tuning = tuning
        self._stop = threading.Event()
        self._buffer_bytes = min(tuning.buffer_bytes, tuning.block_bytes)

    def run(self, on_progress: OnProgress | None = None, *, sleep: Callable[[float], None] = time.sleep) -> Path:
        """Fetch what is missing, and return the folder in which every file is there and verified.

        Raises:
            MissingWeights: an object changed, is corrupt, or cannot be read.
            OSError: the disk is full, or cannot be written.
        """
        self._sleep = sleep
        self._partial.mkdir(parents=True, exist_ok=True)
        head = JournalHead(self._tuning.block_bytes, self._folder.total_bytes, boot_id())
        with ExitStack() as stack:
            journal = Journal(self._partial / JOURNAL, head)
            stack.callback(journal.close)
            files = self._files(journal)
            done = sum(file.done_bytes for file in files)
            self._counter = ProgressCounter(self._folder.total_bytes, on_progress, done_bytes=done)
            hashing = stack.enter_context(ThreadPoolExecutor(len(os.sched_getaffinity(0)), "storage-hash"))
            self._verifier = Verifier(self._s3, self._bucket, hashing)
            pool = stack.enter_context(ThreadPoolExecutor(self._tuning.threads, "storage-get"))
            self._wait_for(self._submit(files, pool, missing=self._folder.total_bytes - done))
        return self._partial / FILES

    def _files(self, journal: Journal) -> list[PartialFile]:
        root, block = self._partial / FILES, self._tuning.block_bytes
        files = [
            PartialFile(remote, index, folder=root, journal=journal, block_bytes=block)
            for index, remote in enumerate(self._folder.files)
        ]
        for file in files:
            file.digest = self._new_digest(file)
        return sorted(files, key=lambda file: file.remote.size, reverse=True)  # small ones fill the gaps at the end

    def _new_digest(self, file: PartialFile) -> RunningDigest:
        return RunningDigest(algorithm_for(file.remote, self._bucket))

    def _submit(self, files: list[PartialFile], pool: Executor, *, missing: int) -> list[Future[None]]:
        most = range_bytes(missing, self._tuning)
        jobs = []
        for file in files:
            spans = list(file.missing(most)) or [Span(0, 0)]  # one that is there, or is empty, is only verified
            jobs += [pool.submit(self._work, file, span) for span in spans]
        return jobs

    def _wait_for(self, jobs: list[Future[None]]) -> None:
        try:
            for job in as_completed(jobs):
                job.result()
        except BaseException:
            self._stop.set()
            for job in jobs:
                job.cancel()
            raise

    def _work(self, file: PartialFile, span: Span) -> None:
        self._fetch(file, span)
        if file.take_if_whole() and (wrong := self._verify(file)) is not None:
            self._fetch_again(file, wrong)

    def _verify(self, file: PartialFile) -> Mismatch | None:
        return self._verifier.check(file.remote, file.path, file.digest)

    def _fetch_again(self, file: PartialFile, wrong: Mismatch) -> None:
        logger.warning(
            "object %s came corrupt (expected %s, found %s) and is fetched again", file.remote.key, wrong.expected, wrong.found
        )
        self._counter.expect_again(file.remote.size)
        file.start_again(self._new_digest(file))
        for span in list(file.missing(self._tuning.most_range_bytes)):
            self._fetch(file, span)
        if (still := self._verify(file)) is not None:
            file.start_again(self._new_digest(file))  # the next attempt begins with nothing of it
            raise MissingWeights(
                f"object {file.remote.key!r} is corrupt, twice: expected {still.expected}, found {still.found}; "
                f"it was damaged in the store or on the way: upload it again",
                param="source",
            )

    def _fetch(self, file: PartialFile, span: Span) -> None:
        """Write a range of an object; after a break go on where it was, as long as blocks get finished."""
        at, failures = span.start, 0
        fd = file.open()
        try:
            while at < span.end:
                noted = at
                try:
                    for data in read_range(
                        self._s3, self._bucket, file.remote, span=Span(at, span.end), buffer_bytes=self._buffer_bytes
                    ):
                        at = self._write(file, fd, data, at=at)
                except BrokenStreamError as err:
                    failures = self._count_failure(err, failures if at - noted < self._tuning.block_bytes else 0)
        finally:
            os.close(fd)

    def _write(self, file: PartialFile, fd: int, data: bytes, *, at: int) -> int:
        """Return where the next data goes."""
        if self._stop.is_set():
            raise _Stopped
        end = at + len(data)
        left = memoryview(data)
        while left:
            left = left[pwrite(fd, left, end - len(left)) :]
        file.digest.feed(data, at)
        file.finish_blocks(at, end)
        self._counter.add(len(data))
        return end

    def _count_failure(self, err: BrokenStreamError, failures: int) -> int:
        if self._stop.is_set():
            raise _Stopped
        if failures + 1 >= self._tuning.attempts:
            raise MissingWeights(f"{err} ({failures + 1} attempts)", param="source") from err
        logger.info("%s; going on where it was", err)
        self._sleep(self._tuning.wait_s * 2**failures)
        return failures + 1
