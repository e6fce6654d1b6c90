"""What of a partial download is on this machine's disk, so that a killed one can go on."""

from __future__ import annotations

import json
import os
import re
import threading
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

LINE = re.compile(r"(\d+) (?:(\d+) (\d+)|-)\n")  # a file, and a block with its bytes; or that its blocks are worthless
Blocks = dict[int, dict[int, int]]
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Return what tells this run of the kernel from others.

    What was written in this run is there to be read, whichever process died since. After another start it may be lost,
    unless it was synced: that would cost a download the speed of the disk.
    """
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return "unknown"


@dataclass(frozen=True, slots=True)
class JournalHead:
    """What a journal's entries refer to; with another head they mean nothing."""

    block_bytes: int
    total_bytes: int
    boot: str

    def line(self) -> str:
        """Return the journal's first line."""
        return json.dumps({"block_bytes": self.block_bytes, "total_bytes": self.total_bytes, "boot": self.boot}) + "\n"


class Journal:
    """Finished blocks by file. A line is appended after the block's data was written, so what it says is true.

    Attributes:
        done: finished blocks, by the file's index and the block's, with their bytes, as they were when the journal was opened.
    """

    def __init__(self, path: Path, head: JournalHead) -> None:
        """Go on with the journal at ``path``, or begin one. Raises OSError."""
        self.done = _read(path, head)
        self._lock = threading.Lock()
        # Written anew: nothing may be appended to a line that a killed process has left unfinished.
        fresh = path.with_suffix(".fresh")
        lines = (f"{file} {block} {size}\n" for file, blocks in self.done.items() for block, size in blocks.items())
        fresh.write_text(head.line() + "".join(lines))
        fresh.replace(path)
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND)

    def add(self, file: int, block: int, size: int) -> None:
        """Note that a block's data was written. Raises OSError."""
        self._append(f"{file} {block} {size}\n")

    def forget(self, file: int) -> None:
        """Note that a file's blocks are worthless. Raises OSError."""
        self._append(f"{file} -\n")

    def close(self) -> None:
        """Write no more."""
        os.close(self._fd)

    def _append(self, line: str) -> None:
        with self._lock:
            os.write(self._fd, line.encode())


def progress_of(path: Path) -> tuple[int, int] | None:
    """Return how many bytes another process's download has, of how many; None where there is none."""
    try:
        text = path.read_text()
        head = JournalHead(**json.loads(text.partition("\n")[0]))
    except (OSError, ValueError, TypeError):
        return None
    return sum(sum(blocks.values()) for blocks in _parse(text).values()), head.total_bytes


def _read(path: Path, head: JournalHead) -> Blocks:
    try:
        text = path.read_text()
    except (FileNotFoundError, UnicodeDecodeError):
        return {}
    return _parse(text) if text.startswith(head.line()) else {}


def _parse(text: str) -> Blocks:
    done: Blocks = defaultdict(dict)
    for line in text.splitlines(keepends=True)[1:]:
        if (said := LINE.fullmatch(line)) is None:
            break  # the process was killed while it wrote this
        file, block, size = said.groups()
        if block is None:
            done[int(file)].clear()
        else:
            done[int(file)][int(block)] = int(size)
    return {file: blocks for file, blocks in done.items() if blocks}
