"""Where weights come from: a folder as it is, S3 downloaded to this node, a hub id left to vLLM."""

from __future__ import annotations

from pathlib import Path

from serve_app.config import source_kind
from serve_app.errors import MissingWeights


def weights_folder(source: str) -> str:
    """Return what vLLM is to load: an existing folder, or a hub id. May download for minutes.

    Raises:
        MissingWeights: the folder is missing or holds no config.json, or the download failed.
    """
    kind = source_kind(source)
    if kind == "hub":
        return source
    if kind == "s3":
        from deployments.llm.s3 import download

        return str(download(source))
    folder = Path(source).expanduser()
    if not (folder / "config.json").is_file():
        raise MissingWeights(
            f"source {source!r} is no model folder: it has no config.json; correct `source` in the configuration",
            param="source",
        )
    return str(folder)
