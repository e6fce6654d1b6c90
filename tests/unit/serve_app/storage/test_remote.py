from __future__ import annotations

from typing import Any

import pytest

from serve_app.errors import MissingWeights
from serve_app.storage.connection import connect
from serve_app.storage.location import Location, parse_location
from serve_app.storage.manifest import MANIFEST
from serve_app.storage.remote import list_folder
from tests.unit.serve_app.storage.objects import BUCKET, put


@pytest.mark.parametrize(
    ("uri", "location"),
    [("s3://b/p", Location("b", "p")), ("s3://b/p/q/", Location("b", "p/q"))],
    ids=["one-part", "two-parts-and-a-slash"],
)
def test_a_uri_is_a_bucket_and_a_prefix(uri: str, location: Location) -> None:
    assert parse_location(uri) == location


@pytest.mark.parametrize("uri", ["s3://b", "s3://b/", "s3:///p", "https://b/p"])
def test_a_uri_without_bucket_or_prefix_is_refused(uri: str) -> None:
    with pytest.raises(MissingWeights, match=r"must be s3://bucket/prefix") as caught:
        parse_location(uri)
    assert caught.value.param == "source"


def test_a_whole_bucket_is_a_location_where_that_is_asked_for() -> None:
    whole = parse_location("s3://b", may_be_bucket=True)
    assert (whole.below, whole.name, whole.uri) == ("", "b", "s3://b")


def test_folders_that_consoles_make_and_neighbours_are_no_objects_of_it(s3: Any) -> None:
    put(s3, "tiny", {"": b"", "sub/": b"", "sub/one": b"1"})
    put(s3, "tiny-2", {"two": b"2"})
    assert [file.name for file in list_folder(s3, Location(BUCKET, "tiny")).files] == ["sub/one"]


@pytest.mark.parametrize(
    ("location", "message"),
    [
        (Location(BUCKET, "nothing"), "there is no config.json below it"),
        (Location("nobody", "tiny"), r"cannot be listed: .*NoSuchBucket.*; check the bucket's name and AWS_ENDPOINT_URL"),
    ],
    ids=["empty-prefix", "no-bucket"],
)
def test_what_is_not_there_names_the_source(s3: Any, location: Location, message: str) -> None:
    with pytest.raises(MissingWeights, match=message) as caught:
        list_folder(s3, location, needs=("config.json",))
    assert (location.uri in caught.value.message, caught.value.param) == (True, "source")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../evil", "outside its folder"),
        ("a//b", "empty part"),
        ("./b", "empty part"),
        ("ok/below", "below 'ok'"),
    ],
    ids=["above", "empty", "dot", "below-an-object"],
)
def test_a_key_that_can_be_no_file_is_refused(s3: Any, name: str, message: str) -> None:
    put(s3, "tiny", {"ok": b"", name: b"x"})
    with pytest.raises(MissingWeights, match=message):
        list_folder(s3, Location(BUCKET, "tiny"))


def test_a_manifest_that_cannot_be_read_names_itself_and_the_fix(s3: Any) -> None:
    put(s3, "tiny", {"one": b"", MANIFEST: b'{"version": 9}'})
    with pytest.raises(MissingWeights, match=r"tiny/manta-manifest.json cannot be read: version 9 .* push the folder again"):
        list_folder(s3, Location(BUCKET, "tiny"))


def test_no_credentials_are_named_with_what_to_set(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    with pytest.raises(MissingWeights, match=r"set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        list_folder(connect(), Location(BUCKET, "tiny"))


def test_an_endpoint_that_is_no_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "not an address")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with pytest.raises(MissingWeights, match=r"object storage cannot be reached: .*not an address"):
        connect()
