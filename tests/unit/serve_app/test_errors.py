from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from serve_app.contracts import EmbeddingFingerprint
from serve_app.documents.errors import UnknownObject
from serve_app.engine_errors import Unreadable, UpstreamRejected
from serve_app.errors import (
    BodyTooLarge,
    EmbeddingMismatch,
    EmptyCollection,
    MethodNotAllowed,
    MissingWeights,
    PlatformError,
    RateLimited,
    UnknownCollection,
    UnknownModel,
)

OWN_ARGUMENTS: dict[type[PlatformError], tuple[Any, ...]] = {
    UnknownModel: ("chat",),
    BodyTooLarge: (1024,),
    UnknownCollection: ("docs",),
    MethodNotAllowed: ("PUT", "/v1/models", ["GET"]),
    EmptyCollection: ("docs",),
    EmbeddingMismatch: ("docs", "org/a", "org/b"),
    UpstreamRejected: (503, b"{}"),
    Unreadable: (),
    UnknownObject: ("file", "file-1"),
}

OWN_OPTIONS: dict[type[PlatformError], dict[str, Any]] = {UnknownObject: {"param": "file_id"}}


def tree(root: type[PlatformError] = PlatformError) -> Iterator[type[PlatformError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


OURS = [c for c in tree() if c.__module__.startswith(("serve_app.", "deployments."))]


def test_the_tree_is_seen_whole() -> None:
    assert {MissingWeights, UpstreamRejected, RateLimited} < set(OURS)


@pytest.mark.parametrize("cls", OURS, ids=lambda c: c.__name__)
def test_every_error_survives_its_way_between_actors(cls: type[PlatformError]) -> None:
    error = cls(*OWN_ARGUMENTS.get(cls, ("what went wrong",)), **OWN_OPTIONS.get(cls, {}))
    error.param, error.retry_after_s = "field", 2.5
    back = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(back) is cls
    assert (str(back), back.args, vars(back), back.kind, back.code) == (
        error.message,
        (error.message,),
        vars(error),
        error.kind,
        error.code,
    )


@pytest.mark.parametrize("cls", [UnknownModel, UnknownCollection])
def test_a_name_is_repeated_only_in_part(cls: type[UnknownModel | UnknownCollection]) -> None:
    message = cls("x" * 100_000).message
    assert "x" * 100 + "'" in message
    assert len(message) < 200


@pytest.mark.parametrize(
    ("source", "shown"),
    [("org/minilm", "org/minilm"), ("/srv/models/minilm/", "minilm"), ("./models/a", "a"), ("~/m", "m")],
)
def test_a_fingerprint_shows_no_path(source: str, shown: str) -> None:
    assert str(EmbeddingFingerprint(source, 2, normalized=False)) == f"{shown} (2 dimensions, not normalized)"
