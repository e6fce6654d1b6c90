"""What LanceDB must be told of an S3-compatible store beside the environment, so that boto3's variables are enough."""

from __future__ import annotations

from collections.abc import Mapping

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


def storage_options(uri: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return LanceDB's storage options for a store's URI.

    It reads keys, region and endpoint by itself, but refuses an endpoint without TLS unless it is told that one is meant:
    https://docs.rs/object_store, ``ClientConfigKey::AllowHttp``.
    """
    is_plain = any(environ.get(name, "").startswith("http://") for name in ENDPOINTS)
    return {"allow_http": "true"} if is_plain and uri.startswith("s3://") else {}
