"""The configured BlobStore: a local folder, or S3-compatible object storage."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from serve_app.documents.blobs import BlobStore, FolderBlobs
from serve_app.errors import Unavailable

Result = TypeVar("Result")
NOT_THERE = frozenset({"NoSuchKey", "404"})


def open_blobs(uri: str) -> BlobStore:
    """Return where uploads and their records are kept: a folder, or s3://bucket/prefix."""
    if not uri.startswith("s3://"):
        return FolderBlobs(Path(uri))
    import boto3

    parts = urlsplit(uri)
    return S3Blobs(boto3.client("s3"), parts.netloc, prefix=parts.path.strip("/"))


class S3Blobs:
    """Objects below a prefix of a bucket; S3 replaces an object as a whole, and keeps it once it has answered.

    The endpoint and the credentials are boto3's usual ones (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, roles, ...).
    """

    def __init__(self, client: Any, bucket: str, *, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""

    async def put(self, key: str, data: bytes) -> None:
        """Store an object in place of what was there. Raises Unavailable."""
        await self._call("put_object", Key=self._prefix + key, Body=data)

    async def get(self, key: str) -> bytes:
        """Return an object. Raises KeyError when it is not there; Unavailable."""

        def read() -> bytes:
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
            with answer["Body"] as body:
                return bytes(body.read())

        return await _in_thread(read, key)

    async def delete(self, key: str) -> None:
        """Delete an object; one that is not there is no error. Raises Unavailable."""
        await self._call("delete_object", Key=self._prefix + key)

    async def keys(self) -> list[str]:
        """Return the key of every object. Raises Unavailable."""

        def read() -> list[str]:
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            return [entry["Key"].removeprefix(self._prefix) for page in pages for entry in page.get("Contents", ())]

        return await _in_thread(read, self._prefix)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    async def _call(self, method: str, **of: Any) -> Any:
        return await _in_thread(lambda: getattr(self._client, method)(Bucket=self._bucket, **of), of["Key"])


async def _in_thread(work: Callable[[], Result], key: str) -> Result:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return await asyncio.to_thread(work)
    except ClientError as err:
        if err.response.get("Error", {}).get("Code") in NOT_THERE:
            raise KeyError(key) from err
        raise Unavailable("the object store refused; uploads cannot be read or written now", retry_after_s=5) from err
    except BotoCoreError as err:
        raise Unavailable("the object store is away; uploads cannot be read or written now", retry_after_s=5) from err
