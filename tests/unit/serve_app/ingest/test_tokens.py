from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from serve_app.errors import BadRequest
from serve_app.ingest.tokens import load_tokenizer


def saved(folder: Path, *, config: str | None = None) -> Path:
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "one": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.enable_truncation(2)
    tokenizer.save(str(folder / "tokenizer.json"))
    if config:
        (folder / "sentence_bert_config.json").write_text(config)
    return folder


def test_offsets_cover_the_whole_text_even_past_the_models_window(tmp_path: Path) -> None:
    assert load_tokenizer(saved(tmp_path)).offsets("one  two, é") == [(0, 3), (5, 8), (8, 9), (10, 11)]


@pytest.mark.parametrize(
    ("config", "expected"), [(None, None), ('{"max_seq_length": 256}', 256), ('{"max_seq_length": null}', None)]
)
def test_the_window_is_read_from_the_model(tmp_path: Path, config: str | None, expected: int | None) -> None:
    assert load_tokenizer(saved(tmp_path, config=config)).window_tokens == expected


def test_the_name_is_of_the_content(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    assert load_tokenizer(saved(first)).name == load_tokenizer(saved(second)).name


def test_a_model_without_a_tokenizer_file_names_the_fix(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"no tokenizer\.json") as caught:
        load_tokenizer(tmp_path)
    assert caught.value.param == "source"
