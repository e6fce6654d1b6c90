"""The embedder's own tokens, so that a chunk's size is what the embedder sees."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from serve_app.errors import BadRequest

if TYPE_CHECKING:
    import tokenizers


class Tokenizer(Protocol):
    """Where the tokens of a text are."""

    name: str  # equal names, equal tokens; part of every content hash
    window_tokens: int | None  # most tokens the embedder reads, special tokens included; None when unknown

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Return the characters [start, end) of each token, in order; special tokens are not in it."""
        ...


class FileTokenizer:
    """A Hugging Face ``tokenizer.json``."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, *, name: str, window_tokens: int | None) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.name = name
        self.window_tokens = window_tokens

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Return the characters of each token, in order."""
        return [(start, end) for start, end in self._tokenizer.encode(text, add_special_tokens=False).offsets]


def load_tokenizer(source: Path | str) -> FileTokenizer:
    """Return the tokenizer of an embedding model: a folder, or a hub id (which may download one small file).

    Raises:
        BadRequest: there is no ``tokenizer.json``, or the hub cannot be reached.
    """
    from tokenizers import Tokenizer

    path = source / "tokenizer.json" if isinstance(source, Path) else _from_hub(source, "tokenizer.json")
    if path is None or not path.is_file():
        raise BadRequest(
            f"no tokenizer.json for embedder source {str(source)!r}; `manta ingest` cuts documents by the embedder's "
            "tokens, so the model's folder, or the hub, must be readable from here",
            param="source",
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return FileTokenizer(Tokenizer.from_file(str(path)), name=digest[:16], window_tokens=_window_tokens(path.parent))


def _window_tokens(folder: Path) -> int | None:
    config = folder / "sentence_bert_config.json"
    if not config.is_file():
        return None
    window = json.loads(config.read_text(encoding="utf-8")).get("max_seq_length")
    return window if isinstance(window, int) else None


def _from_hub(hub_id: str, file: str) -> Path | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(hf_hub_download(hub_id, file))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError):
        return None
