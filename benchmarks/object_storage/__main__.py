"""Downloads of a sharded model from an S3 server on this machine: `python -m benchmarks.object_storage`."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import httpx
import typer

from benchmarks.data_path.machine import facts
from benchmarks.object_storage.contestants import BUCKET, CONTESTANTS, PLAIN, PUSHED, Store, settle
from serve_app.cluster import free_ports
from serve_app.storage.connection import Tuning, connect
from serve_app.storage.location import Location
from serve_app.storage.upload import Push, hash_files, local_files

START_TIMEOUT_S = 60.0
SERVER = "import sys; from moto.server import main; main(sys.argv[1:])"
MB = 1_000_000
OURS = next(iter(CONTESTANTS))


@dataclass(frozen=True, slots=True)
class Size:
    """What is downloaded."""

    shards: int
    shard_bytes: int

    @property
    def megabytes(self) -> float:
        """All of it."""
        return self.shards * self.shard_bytes / MB


@contextmanager
def served() -> Iterator[None]:
    """Run a moto server in a process of its own, and point boto3 to it. Raises TimeoutError: it does not start."""
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-c", SERVER, "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
    try:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not is_up(url):
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"the S3 server did not start within {START_TIMEOUT_S} s")
            time.sleep(0.2)
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
        os.environ.update(keys, AWS_ENDPOINT_URL=url)
        yield
    finally:
        server.terminate()
        server.wait()


def is_up(url: str) -> bool:
    """Return whether the server answers."""
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


def fill(size: Size, folder: Path) -> Store:
    """Upload random shards as Manta and as boto3 do."""
    s3 = connect()
    s3.create_bucket(Bucket=BUCKET)
    (folder / "config.json").write_text("{}")
    for number in range(size.shards):
        (folder / f"model-{number}.safetensors").write_bytes(os.urandom(size.shard_bytes))
    files = local_files(folder)
    Push(s3, Location(BUCKET, PUSHED), tuning=Tuning()).run(files, hash_files(files))
    for file in files:
        s3.upload_file(str(file.path), BUCKET, f"{PLAIN}/{file.name}")
    return Store(s3, [file.name for file in files])


def measure(store: Store, rounds: int, *, size: Size, scratch: Path) -> dict[str, list[float]]:
    """Return each contestant's MB/s in every round; the order is another one in each."""
    found: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    names = list(CONTESTANTS)
    for number in range(-1, rounds):  # the first one warms the server up
        for name in names[number % len(names) :] + names[: number % len(names)]:
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                os.sync()  # what was written before must not slow this one down
                began = time.perf_counter()
                CONTESTANTS[name](store, Path(folder))
                rate = size.megabytes / (time.perf_counter() - began)
                settle()
            if number >= 0:
                found[name].append(rate)
                typer.echo(f"round {number}: {name}: {rate:.0f} MB/s", err=True)
    return found


def table(found: Mapping[str, Sequence[float]]) -> str:
    """Return medians with the lowest and highest round, and Manta's ratio to each within the same round."""
    lines = ["| download | MB/s | manta (first row) against it |", "| --- | ---: | ---: |"]
    for name, rates in found.items():
        ratios = [ours / theirs for ours, theirs in zip(found[OURS], rates, strict=True)]
        against = "-" if name == OURS else f"{spread(ratios, 2)}x"
        lines.append(f"| {name} | {spread(rates, 0)} | {against} |")
    return "\n".join(lines)


def spread(values: Sequence[float], digits: int) -> str:
    """Return the median, with the lowest and the highest."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main(
    *,
    shards: Annotated[int, typer.Option(min=1, help="Files of the model.")] = 8,
    shard_mb: Annotated[int, typer.Option(min=1, help="Megabytes (10^6) of each.")] = 125,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    scratch: Annotated[Path | None, typer.Option(help="Folder on the disk to measure; by default the temporary one.")] = None,
) -> None:
    """Measure every way to download, and print a table."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # a kill ends the server, too
    size, disk = Size(shards, shard_mb * MB), scratch or Path(tempfile.gettempdir())
    typer.echo(json.dumps(facts()))
    with served():
        with tempfile.TemporaryDirectory(dir=disk) as folder:
            store = fill(size, Path(folder))
        typer.echo(table(measure(store, rounds, size=size, scratch=disk)))
    typer.echo(f"load average at the end: {os.getloadavg()}")


if __name__ == "__main__":
    typer.run(main)
