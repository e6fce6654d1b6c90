"""Objects to download, and what may happen to them on the way."""

from __future__ import annotations

import random
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from serve_app.storage.connection import Tuning

BUCKET = "models"
BLOCK = 64 * 1024
TUNING = Tuning(
    threads=4,
    least_range_bytes=2 * BLOCK,
    most_range_bytes=4 * BLOCK,
    block_bytes=BLOCK,
    buffer_bytes=BLOCK // 2,
    attempts=3,
    wait_s=0.0,
)
SHARD = random.Random(0).randbytes(20 * BLOCK + 123)  # noqa: S311
FILES = {"config.json": b"{}", "model.safetensors": SHARD, "sub/tokenizer.json": b"[1]" * 40_000, "sub/empty": b""}
TOTAL = sum(map(len, FILES.values()))
GETS: list[Gets] = []  # those that watch; the fixture of the client ends them
Change = Callable[[str, int, bytes], bytes]  # key, first byte, a range's content -> what arrives


def put(s3: Any, prefix: str, files: dict[str, bytes] | None = None) -> str:
    """Upload files as another tool would; return the URI."""
    for name, body in (FILES if files is None else files).items():
        s3.put_object(Bucket=BUCKET, Key=f"{prefix}/{name}", Body=body)
    return f"s3://{BUCKET}/{prefix}"


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


class Gets:
    """Sees every GET of a client, and may change what arrives, or raise in its place."""

    def __init__(self, s3: Any, change: Change | None = None) -> None:
        self.ranges: list[tuple[str, int]] = []  # key, bytes that were asked for
        self._change = change
        self._events = s3.meta.events
        GETS.append(self)
        s3.meta.events.register("provide-client-params.s3.GetObject", self._asked)
        s3.meta.events.register("after-call.s3.GetObject", self._answered)

    def refuse_heads(self) -> None:
        """Make the endpoint one that answers no HEAD."""
        self._events.register("before-call.s3.HeadObject", self._refuse)

    def close(self) -> None:
        self._events.unregister("provide-client-params.s3.GetObject", self._asked)
        self._events.unregister("after-call.s3.GetObject", self._answered)
        self._events.unregister("before-call.s3.HeadObject", self._refuse)

    def _refuse(self, **_: Any) -> None:
        raise ClientError({"Error": {"Code": "405"}}, "HeadObject")

    @property
    def total_bytes(self) -> int:
        return sum(count for _, count in self.ranges)

    def keys(self) -> set[str]:
        return {key for key, _ in self.ranges}

    def _asked(self, params: dict[str, Any], **_: Any) -> None:
        start, _, end = params.get("Range", "bytes=0--1").removeprefix("bytes=").partition("-")
        self.ranges.append((params["Key"], int(end) - int(start) + 1))

    def _answered(self, parsed: dict[str, Any], context: Any, http_response: Any, **_: Any) -> None:
        if self._change is not None and http_response.status_code == 206:
            start = int(parsed["ContentRange"].removeprefix("bytes ").partition("-")[0])
            key = http_response.url.partition(f"/{BUCKET}/")[2]
            parsed["Body"] = BytesIO(self._change(key, start, parsed["Body"].read()))
