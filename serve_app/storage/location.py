"""Where objects are: ``s3://bucket/prefix``."""

from __future__ import annotations

from dataclasses import dataclass

from serve_app.errors import MissingWeights

SCHEME = "s3://"


@dataclass(frozen=True, slots=True)
class Location:
    """A bucket and what keys in it begin with."""

    bucket: str
    prefix: str  # without slashes at its ends; "" stands for the whole bucket

    @property
    def uri(self) -> str:
        """The location as it is written in a configuration."""
        return f"{SCHEME}{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def name(self) -> str:
        """The last part, as a folder's name."""
        return (self.prefix or self.bucket).rpartition("/")[2]

    @property
    def below(self) -> str:
        """What keys below the location begin with."""
        return f"{self.prefix}/" if self.prefix else ""


def is_remote(text: str) -> bool:
    """Return whether a text names objects and not a path."""
    return text.startswith(SCHEME)


def is_utf8(text: str) -> bool:
    """Return whether a text can be sent; a file name that is not UTF-8 comes with lone surrogates, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def parse_location(uri: str, *, may_be_bucket: bool = False) -> Location:
    """Return the bucket and the prefix of a URI.

    Raises:
        MissingWeights: it has no bucket, or no prefix where one is needed, or is not UTF-8.
    """
    if not is_utf8(uri):
        raise MissingWeights(f"source {uri!a} is not UTF-8, and object keys are", param="source")
    bucket, _, prefix = uri.removeprefix(SCHEME).partition("/")
    prefix = prefix.strip("/")
    if not is_remote(uri) or not bucket or not (prefix or may_be_bucket):
        form = "s3://bucket or s3://bucket/prefix" if may_be_bucket else "s3://bucket/prefix"
        raise MissingWeights(f"source {uri!r} must be {form}", param="source")
    return Location(bucket, prefix)
