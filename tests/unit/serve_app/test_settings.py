from __future__ import annotations

import pytest

from serve_app.settings import INTERNAL_TOKEN, LOCAL_ONLY, REPLICA_HOST, Settings, new_token, read_settings


def test_the_token_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(INTERNAL_TOKEN, "t" * 16)
    assert read_settings() == read_settings({INTERNAL_TOKEN: "t" * 16}) == Settings("t" * 16)


def test_a_local_platform_says_so_to_its_routers() -> None:
    env = {INTERNAL_TOKEN: "t" * 16}
    assert [read_settings({**env, **more}).is_local_only for more in ({}, {LOCAL_ONLY: "1"}, {LOCAL_ONLY: "0"})] == [
        False,
        True,
        False,
    ]


def test_replicas_listen_on_the_nodes_address_unless_told_otherwise() -> None:
    env = {INTERNAL_TOKEN: "t" * 16}
    found = [read_settings({**env, **more}).replica_host for more in ({}, {REPLICA_HOST: ""}, {REPLICA_HOST: "127.0.0.1"})]
    assert found == [None, None, "127.0.0.1"]


@pytest.mark.parametrize("env", [{}, {INTERNAL_TOKEN: ""}, {INTERNAL_TOKEN: "t" * 15}], ids=["missing", "empty", "short"])
def test_a_token_that_protects_nothing_is_refused(env: dict[str, str]) -> None:
    with pytest.raises(RuntimeError, match="at least 16 characters"):
        read_settings(env)


def test_the_token_does_not_show_in_logs() -> None:
    assert "secret" not in f"{Settings('secret' * 3)!r} {Settings('secret' * 3)}"


def test_new_tokens_are_long_and_differ() -> None:
    made = {new_token() for _ in range(10)}
    assert (len(made), {read_settings({INTERNAL_TOKEN: t}).internal_token for t in made}) == (10, made)
