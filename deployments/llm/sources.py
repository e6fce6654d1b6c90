"""Where weights and adapters come from: a folder as it is, S3 downloaded to this node, the Hugging Face hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from serve_app.config import source_kind
from serve_app.errors import MissingWeights
from serve_app.storage.cache import CachedFolder
from serve_app.storage.folders import Storage, fetch_folder
from serve_app.storage.progress import LoggedProgress, OnProgress

WEIGHTS = "config.json"
ADAPTER = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class WeightsFolder:
    """What an engine is to load.

    A download stays in the node's cache until `close()` or the end of the process, whichever comes first.
    """

    path: str  # a folder; a hub id or an s3:// URI where the engine fetches by itself
    lease: CachedFolder | None = None

    def __str__(self) -> str:
        return self.path

    def close(self) -> None:
        """Let the download be evicted when the cache needs room."""
        if self.lease is not None:
            self.lease.close()


def weights_folder(
    source: str, *, is_streamed: bool = False, on_progress: OnProgress | None = None, storage: Storage | None = None
) -> WeightsFolder:
    """Return what vLLM is to load: an existing folder, a download, or a hub id. May download for minutes.

    Args:
        source: as in the configuration.
        is_streamed: the engine reads ``s3://`` itself (``load_format: runai_streamer``), so nothing is downloaded.
        on_progress: called from the threads that download, one call at a time; by default the log says how far it is.
        storage: by default the one that the environment names.

    Raises:
        MissingWeights: the folder is missing or holds no config.json, or the download failed.
    """
    kind = source_kind(source)
    if kind == "hub" or (kind == "s3" and is_streamed):
        return WeightsFolder(source)
    if kind == "s3":
        return _download(source, WEIGHTS, on_progress, storage=storage)
    return WeightsFolder(_local(source, WEIGHTS, "model"))


def adapter_folder(source: str, on_progress: OnProgress | None = None, *, storage: Storage | None = None) -> WeightsFolder:
    """Return the folder of a LoRA adapter, downloaded from ``s3://`` or the Hugging Face hub where it is not a folder already.

    Raises:
        MissingWeights: the folder is missing or holds no adapter_config.json, or the download failed.
    """
    kind = source_kind(source)
    if kind == "s3":
        return _download(source, ADAPTER, on_progress, storage=storage)
    return WeightsFolder(_from_hub(source) if kind == "hub" else _local(source, ADAPTER, "adapter"))


def _download(source: str, needed: str, on_progress: OnProgress | None, *, storage: Storage | None) -> WeightsFolder:
    report = on_progress or LoggedProgress(source)
    lease = fetch_folder(source, needs=(needed,), on_progress=report, storage=storage)
    return WeightsFolder(str(lease), lease)


def _local(source: str, needed: str, what: str) -> str:
    folder = Path(source).expanduser()
    if not (folder / needed).is_file():
        raise MissingWeights(
            f"source {source!r} is no {what} folder: it has no {needed}; correct `source` in the configuration", param="source"
        )
    return str(folder)


def _from_hub(source: str) -> str:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(source))
    except (OSError, ValueError) as err:  # the hub's errors are among these
        fix = "correct `source`, or name a folder or s3://bucket/prefix"
        raise MissingWeights(f"adapter {source!r} cannot be downloaded from the hub: {err}; {fix}", param="source") from err
    if not (folder / ADAPTER).is_file():
        raise MissingWeights(f"source {source!r} on the hub is no adapter: it has no {ADAPTER}", param="source")
    return str(folder)
