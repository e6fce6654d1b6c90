"""What LanceDB must be told of an S3-compatible store beside the environment, so that boto3's variables are enough."""

from __future__ import annotations

from collections.abc import Mapping


def storage_options(uri: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return LanceDB's storage options for a store's URI; none for a folder.

    LanceDB reads keys, region and ``AWS_ENDPOINT_URL`` by itself, but not ``AWS_ENDPOINT_URL_S3``, and refuses an endpoint
    without TLS unless it is told that one is meant: https://docs.rs/object_store, AmazonS3ConfigKey and ClientConfigKey.
    """
    if not uri.startswith("s3://"):
        return {}
    endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or environ.get("AWS_ENDPOINT") or ""
    options = {"aws_endpoint": endpoint} if endpoint else {}
    return {**options, "allow_http": "true"} if endpoint.startswith("http://") else options
