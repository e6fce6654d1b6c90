"""manta-manifest.json: what `manta models push` says of the objects beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from serve_app.errors import MissingWeights

MANIFEST = "manta-manifest.json"
VERSION = 1


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One object as it was pushed."""

    sha256: str
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The objects of a prefix. Until a push has ended it is not whole, and names only what is there already."""

    is_whole: bool
    files: Mapping[str, ManifestFile] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Return the object's body."""
        files = {name: asdict(file) for name, file in sorted(self.files.items())}
        return json.dumps({"version": VERSION, "is_whole": self.is_whole, "files": files}, indent=1).encode()


def parse_manifest(body: bytes, *, uri: str) -> Manifest:
    """Return what a manifest says.

    Raises:
        MissingWeights: it is no manifest, or one of a later version.
    """
    try:
        document: dict[str, Any] = json.loads(body)
        if document["version"] != VERSION:
            raise ValueError(f"version {document['version']!r} is not {VERSION}, the one that is known here")  # noqa: TRY301
        files = {name: ManifestFile(**of) for name, of in document["files"].items()}
        return Manifest(bool(document["is_whole"]), files)
    except (ValueError, TypeError, KeyError, AttributeError) as err:
        raise MissingWeights(
            f"{uri}/{MANIFEST} cannot be read: {err}; push the folder again, or delete this object", param="source"
        ) from err
