"""Ways to bring the objects of a prefix into a folder."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve_app.storage.cache import Cache
from serve_app.storage.connection import Tuning
from serve_app.storage.folders import Storage, fetch_folder

BUCKET = "bench"
PUSHED = "pushed"  # by `manta models push`: a manifest with the sha256 of each file
PLAIN = "plain"  # by boto3: parts of 8 MiB, and their MD5s in the ETags
READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Store:
    """The same shards below both prefixes."""

    s3: Any
    names: Sequence[str]


Download = Callable[[Store, Path], None]


def manta(prefix: str) -> Download:
    """Return Manta's own download, into a cache of its own."""

    def download(store: Store, folder: Path) -> None:
        fetch_folder(f"s3://{BUCKET}/{prefix}", storage=Storage(store.s3, Cache(folder), Tuning())).close()

    return download


def download_file_loop(store: Store, folder: Path) -> None:
    """Fetch one file after the other with boto3's managed transfer: ten threads, ranges of 8 MiB."""
    for name in store.names:
        store.s3.download_file(BUCKET, f"{PLAIN}/{name}", str(folder / name))


def get_object_loop(store: Store, folder: Path) -> None:
    """Fetch one file after the other by one GET each."""
    for name in store.names:
        _get(store, name, folder)


def get_object_loop_with_sha256(store: Store, folder: Path) -> None:
    """Do the same, and hash what arrives, as a download that is verified must."""
    for name in store.names:
        _get(store, name, folder, digest=hashlib.sha256())


def _get(store: Store, name: str, folder: Path, *, digest: Any = None) -> None:
    body = store.s3.get_object(Bucket=BUCKET, Key=f"{PLAIN}/{name}")["Body"]
    with (folder / name).open("wb") as file:
        while data := body.read(READ_BYTES):
            file.write(data)
            if digest is not None:
                digest.update(data)


CONTESTANTS: Mapping[str, Download] = {
    "manta, pushed by manta (sha256 verified)": manta(PUSHED),
    "manta, uploaded by boto3 (MD5 of parts verified)": manta(PLAIN),
    "loop of download_file": download_file_loop,
    "loop of get_object": get_object_loop,
    "loop of get_object, sha256 of each": get_object_loop_with_sha256,
}


def settle() -> None:
    """Wait for what a download does after it has ended: Manta brings its folder to the disk in the background."""
    for thread in threading.enumerate():
        if thread.name == "storage-sync":
            thread.join()
