"""Weights from S3-compatible object storage, downloaded once per node into a folder named by their content."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from serve_app.errors import MissingWeights

logger = logging.getLogger("ray.serve")

CACHE = "MANTA_CACHE"  # folder of downloads on this node
KEEP_FREE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One object below the prefix."""

    key: str
    name: str  # relative to the prefix
    etag: str
    size: int


def download(uri: str, *, cache: Path | None = None, client: Any = None) -> Path:
    """Return a folder with every object below ``s3://bucket/prefix``; a complete earlier download is used again.

    The endpoint and the credentials are boto3's usual ones (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, roles, ...). The folder's name
    is a digest of the objects' names, sizes and ETags, so changed weights get a new one. It appears whole or not at all.

    Raises:
        MissingWeights: there is nothing there, it cannot be read, or the disk is too small.
    """
    bucket, prefix = _parts(uri)
    s3 = client or _client()
    files = _list(s3, bucket, prefix=prefix, uri=uri)
    root = cache or Path(os.environ.get(CACHE, "~/.cache/manta")).expanduser() / "models"
    root.mkdir(parents=True, exist_ok=True)
    folder = root / _digest(files)
    with _lock(root / f"{folder.name}.lock"):  # replicas of one node download once
        if not folder.is_dir():
            _fetch(s3, bucket, files, into=folder)
    return folder


def _parts(uri: str) -> tuple[str, str]:
    parts = urlsplit(uri)
    if not parts.netloc or not parts.path.strip("/"):
        raise MissingWeights(f"source {uri!r} must be s3://bucket/prefix", param="source")
    return parts.netloc, parts.path.strip("/") + "/"


def _client() -> Any:
    import boto3

    return boto3.client("s3")


def _list(s3: Any, bucket: str, *, prefix: str, uri: str) -> list[RemoteFile]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        pages = list(s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix))
    except (BotoCoreError, ClientError) as err:
        raise MissingWeights(f"source {uri!r} cannot be listed: {err}", param="source") from err
    found = [_remote(entry, prefix) for page in pages for entry in page.get("Contents", ())]
    files = [file for file in found if file.name and not file.name.endswith("/")]
    if "config.json" not in {file.name for file in files}:
        raise MissingWeights(f"source {uri!r} is no model: there is no config.json below it", param="source")
    return files


def _remote(entry: dict[str, Any], prefix: str) -> RemoteFile:
    name = entry["Key"].removeprefix(prefix)
    if ".." in PurePosixPath(name).parts or name.startswith("/"):
        raise MissingWeights(f"object {entry['Key']!r} would be written outside its folder", param="source")
    return RemoteFile(entry["Key"], name, entry["ETag"], entry["Size"])


def _digest(files: Sequence[RemoteFile]) -> str:
    lines = sorted(f"{file.name}\0{file.etag}\0{file.size}" for file in files)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def _fetch(s3: Any, bucket: str, files: Sequence[RemoteFile], *, into: Path) -> None:
    partial = into.with_suffix(".partial")
    total = sum(file.size for file in files)
    _require_space(partial.parent, total)
    done = 0
    for file in files:
        target = partial / file.name
        if not (target.is_file() and target.stat().st_size == file.size):  # left by an interrupted download
            target.parent.mkdir(parents=True, exist_ok=True)
            _fetch_one(s3, bucket, file, target=target)
        done += file.size
        logger.info("downloaded %s, %.1f of %.1f MiB", file.name, done / 2**20, total / 2**20)
    partial.rename(into)


def _fetch_one(s3: Any, bucket: str, file: RemoteFile, *, target: Path) -> None:
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        # Parallel ranged reads, retries, and a rename of each file at its end are boto3's.
        s3.download_file(bucket, file.key, str(target))
        etag = s3.head_object(Bucket=bucket, Key=file.key)["ETag"]
    except (BotoCoreError, ClientError, Boto3Error, OSError) as err:
        raise MissingWeights(f"object {file.key!r} cannot be downloaded: {err}", param="source") from err
    if (size := target.stat().st_size) != file.size or etag != file.etag:
        target.unlink()
        raise MissingWeights(
            f"object {file.key!r} came with {size} bytes of {file.size}, or changed meanwhile; try again", param="source"
        )


def _require_space(folder: Path, total: int) -> None:
    if (free := shutil.disk_usage(folder).free) < total + KEEP_FREE_BYTES:
        raise MissingWeights(
            f"the weights take {total / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free for downloads; "
            f"point {CACHE} to a larger disk",
            param="source",
        )


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
