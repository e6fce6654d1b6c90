from __future__ import annotations

import re

import pytest

from serve_app.config_auth import KEY_HASH
from serve_app.credentials import KeyRing, credential, hash_of, new_key, only
from serve_app.errors import Unauthenticated
from tests.unit.serve_app.test_view import ANN, ANN_KEY


@pytest.mark.parametrize(
    ("authorization", "x_api_key", "found"),
    [
        (None, None, None),
        (None, "", None),
        (None, " k ", "k"),
        ("Bearer k", None, "k"),
        ("Bearer k", "k", "k"),
        ("Bearer k", " ", "k"),
    ],
)
def test_a_key_comes_in_either_header(authorization: str | None, x_api_key: str | None, found: str | None) -> None:
    assert credential(authorization, x_api_key) == found


@pytest.mark.parametrize(
    ("authorization", "x_api_key", "why"),
    [
        ("Bearer k", "other", "two different"),
        ("Basic k", "k", "no API key"),
        ("Bearer", "k", "no API key"),
        ("", "k", "no API key"),
        ("k", None, "no API key"),
    ],
)
def test_other_schemes_and_two_keys_are_refused(authorization: str, x_api_key: str | None, why: str) -> None:
    with pytest.raises(Unauthenticated, match=why):
        credential(authorization, x_api_key)


def test_a_header_that_comes_twice_must_say_the_same() -> None:
    assert [only(values) for values in ((), ["a"], ["a", "a"])] == [None, "a", "a"]
    for values in (["a", "b"], ["b", "a"], ["a", ""]):
        with pytest.raises(Unauthenticated, match="two different"):
            only(values)


def test_a_new_key_names_its_record_and_is_kept_as_a_hash_with_a_salt_of_its_own() -> None:
    key = new_key("ann")
    assert re.fullmatch(r"manta_ann_[\w-]{43}", key)
    assert key != new_key("ann")
    hashes = {hash_of(key), hash_of(key)}
    assert len(hashes) == 2
    assert all(re.fullmatch(KEY_HASH, each) for each in hashes)


def test_an_unknown_name_costs_the_same_work_as_a_wrong_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []

    def compare(offered: str, kept: str) -> bool:
        compared.append((len(offered), len(kept)))
        return offered == kept

    monkeypatch.setattr("serve_app.credentials.hmac.compare_digest", compare)
    for key in ("manta_ann_wrong", "manta_bob_wrong", "wrong"):
        with pytest.raises(Unauthenticated, match="not known"):
            KeyRing((ANN,)).find(key)
    assert len(compared) == 3
    assert len(set(compared)) == 1


def test_no_secret_fits_the_hash_of_nobody() -> None:
    ring = KeyRing(())
    for key in (ANN_KEY, "", "manta__", "manta_anonymous_", "\ud800"):
        with pytest.raises(Unauthenticated):
            ring.find(key)
