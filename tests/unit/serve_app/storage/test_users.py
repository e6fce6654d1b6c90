"""Document sets, prompts, weights and adapters from object storage, as those who need them ask for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from deployments.llm.sources import adapter_folder, weights_folder
from serve_app.config_error import ConfigError
from serve_app.errors import MissingWeights
from serve_app.ingest.sources import SourceSet, opened
from serve_app.loading import load_platform
from serve_app.storage.folders import Storage
from tests.unit.serve_app.storage.objects import BUCKET, FILES, Gets, contents, put

DOCUMENTS = {"a.md": b"# A", "sub/b.txt": b"b", "movie.mp4": b"x" * 1000, ".cache/c.txt": b"c"}
PLATFORM = """
models:
  - name: chat
    variants: [{name: stable, source: org/model}]
embedders: [{name: small, source: org/small}]
pipelines:
  - name: docs
    versions:
      - {name: v1, embedder: small, collection: docs, model: chat, prompt: "%s"}
"""
PROMPT = "{% for hit in hits %}{{ hit }}{% endfor %}{{ question }}"


def sources(uri: str, root_name: str | None = None) -> SourceSet:
    with opened(uri, root_name, console=Console(stderr=True, force_terminal=False)) as found:
        assert all(file.path.is_file() for file in found.files)
        return found


def test_a_document_set_is_named_by_its_prefix_and_only_what_can_be_read_is_fetched(s3: Any, tmp_path: Path) -> None:
    first = sources(put(s3, "team/handbook", DOCUMENTS))
    put(s3, "team/handbook", {"a.md": b"# Another A"})
    second = sources(f"s3://{BUCKET}/team/handbook/")
    ids = ["handbook/a.md", "handbook/sub/b.txt"]
    assert [[file.document_id for file in each.files] for each in (first, second)] == [ids, ids]
    assert (first.root, first.ignored, first.is_whole) == ("handbook", 2, True)
    assert first.files[0].path != second.files[0].path
    assert all(tmp_path / "cache" / "documents" in file.path.parents for file in first.files)


def test_a_name_may_replace_the_prefixes(s3: Any) -> None:
    assert sources(put(s3, "team/handbook", DOCUMENTS), "rules").files[0].document_id == "rules/a.md"


def test_a_prefix_without_documents_says_what_is_there(s3: Any) -> None:
    with pytest.raises(MissingWeights, match=r"s3://models/films' has nothing below it that can be used \(1 objects"):
        sources(put(s3, "films", {"a.mp4": b""}))


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., str]:
    """Return the prompt of a platform's pipeline."""

    def read(prompt: str, *, check_files: bool = True) -> str:
        (tmp_path / "platform.yaml").write_text(PLATFORM % prompt)
        config = load_platform(tmp_path / "platform.yaml", check_files=check_files)
        return config.pipelines[0].versions[0].prompt

    return read


def test_a_prompt_is_read_from_object_storage(s3: Any, load: Callable[..., str]) -> None:
    put(s3, "prompts", {"cite.j2": b"\xef\xbb\xbf" + PROMPT.encode()})
    assert load(f"s3://{BUCKET}/prompts/cite.j2") == PROMPT


def test_without_files_a_prompt_in_object_storage_is_left_alone(s3: Any, load: Callable[..., str]) -> None:
    assert load(f"s3://{BUCKET}/prompts/none.j2", check_files=False) == f"s3://{BUCKET}/prompts/none.j2"


@pytest.mark.parametrize(
    ("key", "body", "message"),
    [
        ("none.j2", None, "no such object"),
        ("big.j2", b"x" * (64 * 1024 + 1), "longer than the 65,536 characters"),
        ("huge.j2", b"x" * (5 * 64 * 1024), "longer than the 65,536 characters"),
        ("binary.j2", b"\xff\xfe", "this is not UTF-8 text"),
        ("cite.txt", b"", r"a template's name ends in \.j2"),
    ],
)
def test_a_prompt_that_cannot_be_read_names_field_and_fix(
    s3: Any, load: Callable[..., str], key: str, body: bytes | None, message: str
) -> None:
    if body is not None:
        put(s3, "prompts", {key: body})
    fix = r"write s3://bucket/key\.j2 of a template that can be read"
    with pytest.raises(ConfigError, match=rf"prompt: the prompt 's3://models/prompts/{key}': {message}.*; {fix}"):
        load(f"s3://{BUCKET}/prompts/{key}")


def test_a_template_in_object_storage_is_checked_as_others_are(s3: Any, load: Callable[..., str]) -> None:
    put(s3, "prompts", {"cite.j2": b"{% if %}"})
    with pytest.raises(ConfigError, match=r"no valid Jinja2 template: line 1"):
        load(f"s3://{BUCKET}/prompts/cite.j2")


def test_weights_are_a_folder_that_stays(s3: Any, storage: Storage) -> None:
    weights = weights_folder(put(s3, "tiny"), storage=storage)
    assert contents(Path(str(weights))) == FILES
    [entry] = storage.cache.entries()
    assert entry.slot.is_in_use()
    weights.close()
    assert not entry.slot.is_in_use()


def test_weights_that_the_engine_streams_are_not_downloaded(s3: Any, storage: Storage) -> None:
    uri, gets = put(s3, "tiny"), Gets(s3)
    assert (weights_folder(uri, is_streamed=True, storage=storage).path, gets.ranges) == (uri, [])


def test_an_adapter_is_told_by_its_file(s3: Any, storage: Storage) -> None:
    uri = put(s3, "lora", {"adapter_config.json": b"{}"})
    assert contents(Path(adapter_folder(uri, storage=storage).path)) == {"adapter_config.json": b"{}"}
    for find, message in ((adapter_folder, "no adapter_config.json"), (weights_folder, "no config.json")):
        with pytest.raises(MissingWeights, match=message):
            find(put(s3, "other", {"one": b""}), storage=storage)
