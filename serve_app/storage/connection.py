"""A client for any S3-compatible endpoint, and what its errors mean. boto3 is imported when it is first needed."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, field
from typing import Any

from serve_app.errors import MissingWeights

HINTS = {
    "AccessDenied": "the credentials must allow s3:ListBucket and s3:GetObject (to push: s3:PutObject)",
    "AuthorizationHeaderMalformed": "set AWS_REGION to the bucket's region",
    "InvalidAccessKeyId": "check AWS_ACCESS_KEY_ID",
    "NoSuchBucket": "check the bucket's name and AWS_ENDPOINT_URL",
    "PermanentRedirect": "set AWS_REGION to the bucket's region",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY",
    "InvalidObjectState": "the object is archived; restore it first",
}
CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role"


def _threads() -> int:
    # One stream from an object store brings some 80 MB/s; on few cores more threads only wait for each other.
    return min(16, max(4, 4 * len(os.sched_getaffinity(0))))


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a transfer is cut up. Memory: ``threads * buffer_bytes``, and what the kernel buffers."""

    threads: int = field(default_factory=_threads)
    most_range_bytes: int = 256 << 20  # of one GET
    least_range_bytes: int = 16 << 20
    block_bytes: int = 8 << 20  # what a killed download may lose per thread
    buffer_bytes: int = 1 << 20
    attempts: int = 6  # for one block, each with boto3's own retries
    wait_s: float = 0.2  # before the second attempt; it doubles


def connect(tuning: Tuning | None = None) -> Any:
    """Return an S3 client. Endpoint, region and credentials come from boto3's own chain (AWS_ENDPOINT_URL, roles, ...).

    Raises:
        MissingWeights: boto3 refuses what it finds there.
    """
    import boto3
    import botocore.session
    from botocore.config import Config

    errors: tuple[type[Exception], ...] = (ValueError, *boto_errors())
    threads = (tuning or Tuning()).threads
    config = Config(
        max_pool_connections=threads + 2,  # questions beside the streams
        retries={"mode": "standard"},  # AWS_MAX_ATTEMPTS says how often
        connect_timeout=10,
        read_timeout=60,
        tcp_keepalive=True,
        response_checksum_validation="when_required",  # contents are verified here, whatever the endpoint can do
    )
    try:
        # A session of its own: boto3's default one must not be used by several threads.
        session = botocore.session.get_session()
        session.register_component("data_loader", _loader())
        return boto3.session.Session(botocore_session=session).client("s3", config=config)
    except errors as err:
        raise MissingWeights(f"object storage cannot be reached: {in_words(err)}", param="source") from err


@functools.cache
def _loader() -> Any:
    """Return what has read S3's description: that is most of what a client costs, and the same for all."""
    import botocore.session

    return botocore.session.get_session().get_component("data_loader")


def boto_errors() -> tuple[type[Exception], ...]:
    """Return what boto3 raises when a request fails."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    return BotoCoreError, ClientError, Boto3Error


def error_code(err: Exception) -> str:
    """Return S3's code of an error, or "" where S3 has not answered."""
    answer = getattr(err, "response", None)
    return str(answer["Error"]["Code"]) if isinstance(answer, dict) and "Error" in answer else ""


def status(err: Exception) -> int:
    """Return the HTTP status of an error, or 0 where S3 has not answered."""
    answer = getattr(err, "response", None)
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) if isinstance(answer, dict) else 0


def in_words(err: Exception) -> str:
    """Return what boto3 says, and what to do about it where that is known."""
    hint = HINTS.get(error_code(err)) or _hint_for(type(err).__name__)
    return f"{err}; {hint}" if hint else str(err)


def _hint_for(name: str) -> str:
    if "Credentials" in name or "Token" in name or "Profile" in name:
        return CREDENTIALS
    return "check AWS_ENDPOINT_URL" if name in ("EndpointConnectionError", "ConnectTimeoutError") else ""
