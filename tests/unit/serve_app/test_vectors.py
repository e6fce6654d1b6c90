"""The gateway's rules, held to the vectors that any other plane is held to as well."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from serve_app import errors
from serve_app.affinity import affinity_key
from serve_app.config import ApiKeyConfig, AuthConfig
from serve_app.credentials import hash_of
from serve_app.errors import BadRequest, ErrorKind, PlatformError, Unauthenticated
from serve_app.inference import check_choices
from serve_app.request_ids import request_id_for
from serve_app.rest.core import is_relayed
from serve_app.rest.errors import STATUS, error_body, error_headers
from serve_app.rollout.document import RoutingDocument
from serve_app.rollout.table import bucket_of, pick, ranges
from serve_app.view import ANONYMOUS, RoutingView

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "vectors" / "routing.json").read_text())
AUTHORIZATION: dict[str, Any] = VECTORS["authorization"]
KEYS = tuple(ApiKeyConfig.model_validate(record) for record in AUTHORIZATION["keys"])
VIEW = RoutingView(RoutingDocument(auth=AuthConfig(keys=KEYS)))

Vector = dict[str, Any]


def each(name: str, *, label: str = "why") -> pytest.MarkDecorator:
    vectors: list[Vector] = VECTORS[name]
    return pytest.mark.parametrize("vector", vectors, ids=[ascii(vector[label])[:60] for vector in vectors])


@each("affinity_keys")
def test_affinity_key(vector: Vector) -> None:
    key = affinity_key(vector["tenant"], vector["body"], session_id=vector["session"])
    assert (key, bucket_of(key)) == (vector["key"], vector["bucket"])


@pytest.mark.parametrize("vector", [v for v in VECTORS["affinity_keys"] if "canonical" in v], ids=lambda v: str(v["why"]))
def test_the_digest_is_blake2b_of_the_canonical_json(vector: Vector) -> None:
    canonical = vector["canonical"].encode("utf-8", "surrogatepass")
    assert vector["key"].rsplit("/", 1)[1] == hashlib.blake2b(canonical, digest_size=12).hexdigest()


@each("buckets", label="key")
def test_bucket(vector: Vector) -> None:
    assert bucket_of(vector["key"]) == vector["bucket"] == vector["crc32"] % 10_000


@each("traffic_ranges")
def test_traffic_ranges(vector: Vector) -> None:
    weights = [(name, weight) for name, weight in vector["weights"]]
    if vector["ranges"] is None:
        with pytest.raises(ValueError, match="weights must be 0 or more and sum to 100"):
            ranges(weights)
    else:
        assert [[r.variant, r.start, r.stop] for r in ranges(weights)] == vector["ranges"]


@each("picks", label="weights")
def test_pick(vector: Vector) -> None:
    table = ranges([(name, weight) for name, weight in vector["weights"]])
    assert (bucket_of(vector["key"]), pick(table, vector["key"])) == (vector["bucket"], vector["variant"])


@each("key_hashes", label="key")
def test_key_hash(vector: Vector) -> None:
    salt = bytes.fromhex(vector["salt"])
    digest = hashlib.sha256(salt + vector["key"].encode()).hexdigest()
    assert hash_of(vector["key"], salt=salt) == vector["hash"] == f"sha256:{vector['salt']}:{digest}"


@pytest.mark.parametrize("case", AUTHORIZATION["cases"], ids=[case["why"] for case in AUTHORIZATION["cases"]])
def test_authorization(case: Vector) -> None:
    if case["key"] is None:
        with pytest.raises(Unauthenticated):
            VIEW.authenticate(case["header"])
    else:
        assert VIEW.authenticate(case["header"]).name == case["key"]


@pytest.mark.parametrize("case", AUTHORIZATION["cases"], ids=[case["why"] for case in AUTHORIZATION["cases"]])
def test_where_no_key_is_configured_everybody_is_let_in(case: Vector) -> None:
    assert RoutingView(RoutingDocument()).authenticate(case["header"]) == ANONYMOUS


@each("post_paths", label="path")
def test_post_path(vector: Vector) -> None:
    path = vector["path"]
    assert is_relayed(path) == vector["is_relayed"]


@each("request_ids", label="offered")
def test_request_id(vector: Vector) -> None:
    assert (request_id_for(vector["offered"]) == vector["offered"]) == vector["is_kept"]


@each("choices", label="body")
def test_choices(vector: Vector) -> None:
    if vector["refused"] is None:
        check_choices(vector["body"], most=vector["most"])
        return
    with pytest.raises(BadRequest) as caught:
        check_choices(vector["body"], most=vector["most"])
    assert caught.value.param == vector["refused"]


@each("error_kinds", label="kind")
def test_error_kind(vector: Vector) -> None:
    error = PlatformError("no")
    error.kind = ErrorKind(vector["kind"])
    assert STATUS[error.kind] == vector["status"]
    assert json.loads(error_body(error))["error"]["type"] == vector["type"]


def test_every_kind_of_error_has_a_vector() -> None:
    assert {vector["kind"] for vector in VECTORS["error_kinds"]} == set(ErrorKind)


@each("errors", label="class")
def test_error(vector: Vector) -> None:
    error: PlatformError = getattr(errors, vector["class"])(*vector["arguments"], **vector["options"])
    assert STATUS[error.kind] == vector["status"]
    assert error_body(error).decode() == vector["body"]
    assert {name.decode(): value.decode() for name, value in error_headers(error)} == vector["headers"]
