from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from serve_app.config import PlatformConfig
from serve_app.config_files import FileResolver
from serve_app.rollout.document import RoutedVectorStores, RoutingDocument, routing_document

EMBEDDERS = [{"name": "minilm", "source": "org/embedder"}]


def config(**stores: Any) -> PlatformConfig:
    return PlatformConfig.model_validate({"embedders": EMBEDDERS, "vector_stores": {"embedder": "minilm", **stores}})


@pytest.mark.parametrize(
    ("stores", "place", "message"),
    [
        pytest.param({"embedder": "minilim"}, ("vector_stores", "embedder"), "'minilim' is not declared", id="embedder"),
        pytest.param({"overlap_tokens": 61}, ("vector_stores", "overlap_tokens"), "over half of chunk_tokens", id="overlap"),
        pytest.param({"max_file_bytes": 2**30}, ("vector_stores", "max_file_bytes"), "less than or equal", id="file-size"),
    ],
)
def test_what_cannot_work_is_refused_where_it_stands(stores: dict[str, Any], place: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        config(**stores)
    [error] = refusal.value.errors()
    # A check of a whole section tells the places itself.
    assert error["loc"] == place or place[-1] in str(error)
    assert message in str(refusal.value)


def with_override(embedder: str) -> dict[str, Any]:
    version = {"name": "v1", "embedder": embedder, "collection": "docs", "model": "chat", "prompt": "{{ question }}"}
    return {
        "models": [{"name": "chat", "variants": [{"name": "stable", "source": "org/model"}]}],
        "embedders": [*EMBEDDERS, {"name": "other", "source": "org/other"}],
        "pipelines": [{"name": "docs", "versions": [{**version, "overrides": {"vector_stores": True}}]}],
        "vector_stores": {"embedder": "minilm"},
    }


def test_a_pipeline_may_search_the_stores_that_its_embedder_fills() -> None:
    assert PlatformConfig.model_validate(with_override("minilm")).pipelines[0].versions[0].overrides.vector_stores


def test_a_pipeline_may_not_search_stores_that_another_embedder_fills() -> None:
    with pytest.raises(ValidationError, match="filled by embedder 'minilm', this version's is 'other'; use one embedder"):
        PlatformConfig.model_validate(with_override("other"))


def test_routers_learn_whether_there_are_vector_stores_and_how_large_files_may_be() -> None:
    document = routing_document(config(max_file_bytes=2048))
    assert document.vector_stores == RoutedVectorStores(embedder="minilm", max_file_bytes=2048)
    assert RoutingDocument.model_validate_json(document.model_dump_json()) == document
    assert routing_document(PlatformConfig()).vector_stores is None


@pytest.mark.parametrize(
    ("stores", "uri"),
    [({}, "/etc/manta/data/lance-documents"), ({"uri": "files"}, "/etc/manta/files"), ({"uri": "s3://b/p"}, "s3://b/p")],
    ids=["next-to-the-collections", "relative", "s3"],
)
def test_uploads_have_a_place_that_does_not_depend_on_the_working_folder(stores: dict[str, Any], uri: str) -> None:
    resolved = FileResolver(Path("/etc/manta"), check_files=False).resolve(config(**stores))
    assert resolved.vector_stores is not None
    assert resolved.vector_stores.uri == uri
