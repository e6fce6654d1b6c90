"""Small texts from object storage, such as prompts."""

from __future__ import annotations

from typing import Any

from serve_app.errors import MissingWeights
from serve_app.storage.connection import boto_errors, connect, error_code, in_words
from serve_app.storage.location import parse_location

BYTES_PER_CHARACTER = 4  # most, in UTF-8
BOM_BYTES = 3


def read_text(uri: str, most_characters: int, *, s3: Any = None) -> str:
    """Return an object's text.

    Raises:
        ValueError: what is in the way, in plain words.
    """
    most_bytes = most_characters * BYTES_PER_CHARACTER + BOM_BYTES
    try:
        place = parse_location(uri)
        body = (s3 or connect()).get_object(Bucket=place.bucket, Key=place.prefix)["Body"]
        data: bytes = body.read(most_bytes + 1)
        body.close()
    except MissingWeights as err:
        raise ValueError(err.message) from err
    except boto_errors() as err:
        raise ValueError("no such object" if error_code(err) == "NoSuchKey" else f"cannot be read: {in_words(err)}") from err
    try:
        text = data.decode("utf-8-sig") if len(data) <= most_bytes else None
    except UnicodeDecodeError as err:
        raise ValueError("this is not UTF-8 text") from err
    if text is None or len(text) > most_characters:
        raise ValueError(f"longer than the {most_characters:,} characters that are read")
    return text
