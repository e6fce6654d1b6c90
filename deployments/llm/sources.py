"""Where weights come from: a folder as it is, a hub id left to vLLM."""

from __future__ import annotations

from pathlib import Path

from serve_app.config import source_kind
from serve_app.errors import BadRequest


class MissingWeights(BadRequest):
    """The source names nothing that can be loaded."""

    code = "missing_weights"


def weights_folder(source: str) -> str:
    """Return what vLLM is to load: an existing folder, or a hub id.

    Raises:
        MissingWeights: the folder is missing or holds no config.json, or the kind of source cannot be loaded yet.
    """
    kind = source_kind(source)
    if kind == "hub":
        return source
    if kind == "s3":
        raise MissingWeights(f"source {source!r}: download it to a folder first and name that folder", param="source")
    folder = Path(source).expanduser()
    if not (folder / "config.json").is_file():
        raise MissingWeights(
            f"source {source!r} is no model folder: it has no config.json; correct `source` in the configuration",
            param="source",
        )
    return str(folder)
