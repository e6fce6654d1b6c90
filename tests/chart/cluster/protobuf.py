"""Reads the one kind that Helm sends in Kubernetes' protobuf: the Secret that holds a release."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

MAGIC = b"k8s\x00"
_VARINT, _BYTES = 0, 2


def secret(body: bytes) -> dict[str, Any]:
    """Return a Secret in Kubernetes' JSON. Raises ValueError for anything else."""
    if not body.startswith(MAGIC):
        raise ValueError("no Kubernetes protobuf")
    (raw,) = _messages(body[len(MAGIC) :], 2)
    (metadata,) = _messages(raw, 1)
    names = {1: "name", 3: "namespace"}
    made: dict[str, Any] = {
        name: value.decode() for number, name in names.items() for value in _messages(metadata, number) if value
    }
    made["labels"] = {key.decode(): value.decode() for key, value in _map(metadata, 11)}
    data = {key.decode(): base64.b64encode(value).decode() for key, value in _map(raw, 2)}
    kind = b"".join(_messages(raw, 3)).decode()
    return {"apiVersion": "v1", "kind": "Secret", "metadata": made, "type": kind, "data": data}


def _map(message: bytes, number: int) -> Iterator[tuple[bytes, bytes]]:
    for entry in _messages(message, number):
        yield b"".join(_messages(entry, 1)), b"".join(_messages(entry, 2))


def _messages(message: bytes, number: int) -> list[bytes]:
    return [value for found, value in _fields(message) if found == number]


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        length, at = _varint(message, at)
        if wire == _BYTES:
            yield number, message[at : at + length]
            at += length
        elif wire != _VARINT:
            raise ValueError(f"wire type {wire} is in no Secret")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
