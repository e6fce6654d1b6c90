"""Where weights come from: a hub id, a folder or an S3 prefix, told apart by how it is written."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
S3_URI = re.compile(r"s3://[a-z0-9][a-z0-9.-]+/+[^\s/]\S*")
S3_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]+/*")
SourceKind = Literal["folder", "s3", "hub"]


def source_kind(source: str) -> SourceKind:
    """Return where weights come from: a folder starts with ``/``, ``./``, ``../`` or ``~``.

    Raises:
        ValueError: the text is none of the three forms, or a bucket without a prefix.
    """
    if S3_URI.fullmatch(source):
        return "s3"
    if source.startswith(("/", "./", "../", "~")):
        return "folder"
    if HUB_ID.fullmatch(source):
        return "hub"
    if S3_BUCKET.fullmatch(source):
        raise ValueError(f"{source!r} is a whole bucket; write s3://bucket/prefix, the prefix of one model or adapter")
    raise ValueError(
        f"{source!r} is no model source; write a Hugging Face id (org/name), a folder (./models/x) or s3://bucket/prefix"
    )


def _checked_source(source: str) -> str:
    source_kind(source)
    return source


Source = Annotated[str, AfterValidator(_checked_source)]
