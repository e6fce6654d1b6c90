"""The attacker's view of the REST front: none of these attempts reaches a model, and no refusal shows internals."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from serve_app import credentials
from serve_app.config import AuthConfig
from serve_app.credentials import hash_of
from serve_app.gateway import Gateway
from serve_app.rest.relayed import RELAYED_PATHS
from tests.leaks import leaks_in, told
from tests.unit.serve_app.fakes import document, entry, snapshot, upstream_of, woken_of
from tests.unit.serve_app.rest.front import ASK, CHAT, ready, request
from tests.unit.serve_app.rest.test_vector_stores import OWLS, Front, front
from tests.unit.serve_app.test_view import ANN, ANN_KEY, BOB, BOB_KEY, api_key

OLD_KEY, TIM_KEY = "manta_old_secret", "manta_tim_secret"
OLD = api_key("old", OLD_KEY, expires_at=datetime(2020, 1, 1, tzinfo=UTC))
TIM = api_key("tim", TIM_KEY, models=("minilm",))
KEYS = AuthConfig(keys=(ANN, BOB, OLD, TIM))
Headers = Sequence[tuple[str, str | bytes]]


class Attempt(NamedTuple):
    """A request that should be refused."""

    name: str
    status: int
    headers: Headers = ()
    path: str = CHAT
    method: str = "POST"
    body: dict[str, Any] = ASK


def bearer(key: str, name: str = "authorization") -> tuple[str, str]:
    return name, f"Bearer {key}"


GOOD, OTHER = bearer(ANN_KEY), bearer(BOB_KEY)
ATTEMPTS = [
    Attempt("no-key", 401),
    Attempt("empty", 401, [("authorization", "")]),
    Attempt("empty-bearer", 401, [("authorization", "Bearer ")]),
    Attempt("wrong-key", 401, [bearer("wrong")]),
    Attempt("right-name-wrong-secret", 401, [bearer("manta_ann_wrong")]),
    Attempt("secret-of-another-name", 401, [bearer("manta_bob_secret")]),
    Attempt("longer", 401, [bearer(f"{ANN_KEY}x")]),
    Attempt("shorter", 401, [bearer(ANN_KEY[:-1])]),
    Attempt("other-case", 401, [bearer(ANN_KEY.upper())]),
    Attempt("its-hash", 401, [bearer(ANN.hash)]),
    Attempt("the-name-of-nobody", 401, [bearer("manta_anonymous_")]),
    Attempt("expired", 401, [bearer(OLD_KEY)]),
    Attempt("very-long", 401, [bearer(f"manta_ann_{'x' * 20_000}")]),
    Attempt("nul", 401, [("authorization", b"Bearer " + ANN_KEY.encode() + b"\0")]),
    Attempt("no-text", 401, [("authorization", b"Bearer \xff\xfe\xc3\x28")]),
    Attempt("tab", 401, [("authorization", f"Bearer\t{ANN_KEY}")]),
    Attempt("no-scheme", 401, [("authorization", ANN_KEY)]),
    Attempt("basic", 401, [("authorization", httpx.BasicAuth("ann", ANN_KEY)._auth_header)]),
    Attempt("basic-with-the-key", 401, [("authorization", f"Basic {ANN_KEY}")]),
    Attempt("basic-beside-a-key", 401, [("authorization", "Basic YTpi"), ("x-api-key", ANN_KEY)]),
    Attempt("joined-by-a-comma", 401, [("authorization", f"Bearer wrong, Bearer {ANN_KEY}")]),
    Attempt("joined-by-a-comma-right-first", 401, [("authorization", f"Bearer {ANN_KEY}, Bearer wrong")]),
    Attempt("twice-right-first", 401, [GOOD, bearer("wrong")]),
    Attempt("twice-wrong-first", 401, [bearer("wrong"), GOOD]),
    Attempt("twice-both-right", 401, [GOOD, OTHER]),
    Attempt("twice-basic-first", 401, [("authorization", "Basic YTpi"), GOOD]),
    Attempt("x-api-key-twice", 401, [("x-api-key", ANN_KEY), ("x-api-key", BOB_KEY)]),
    Attempt("x-api-key-differs", 401, [GOOD, ("x-api-key", BOB_KEY)]),
    Attempt("x-api-key-wrong", 401, [("x-api-key", "wrong")]),
    Attempt("in-an-underscored-header", 401, [("x_api_key", ANN_KEY)]),
    Attempt("in-a-proxys-header", 401, [bearer(ANN_KEY, "proxy-authorization"), bearer(ANN_KEY, "x-forwarded-authorization")]),
    Attempt("in-the-query", 401, path=f"{CHAT}?api_key={ANN_KEY}&authorization=Bearer%20{ANN_KEY}&x-api-key={ANN_KEY}"),
    Attempt("in-a-cookie", 401, [("cookie", f"authorization=Bearer {ANN_KEY}; x-api-key={ANN_KEY}; api_key={ANN_KEY}")]),
    Attempt("in-the-body", 401, body={**ASK, "api_key": ANN_KEY, "authorization": f"Bearer {ANN_KEY}"}),
    Attempt("said-to-be-local", 401, [("x-forwarded-for", "127.0.0.1"), ("host", "localhost"), ("x-manta-model", "chat")]),
    Attempt("of-another-pipeline", 403, [GOOD], body={**ASK, "model": "docs"}),
    Attempt("of-another-model", 403, [bearer(TIM_KEY)]),
    Attempt("of-another-embedder", 403, [GOOD], "/v1/embeddings", body={"model": "minilm", "input": "hi"}),
    Attempt("status-without-admin", 403, [GOOD], "/admin/status", "GET"),
    *(Attempt(f"no-key{path.replace('/', '-')}", 401, path=path) for path in RELAYED_PATHS),
    *(
        Attempt(f"no-key-{method}-{path.strip('/').replace('/', '-')}", 401, (), path, method)
        for method in ("GET", "HEAD")
        for path in ("/v1/models", "/v1/models/chat", "/admin/status")
    ),
    *(Attempt(f"{method}", 405, [GOOD], method=method) for method in ("HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE")),
    *(
        Attempt(f"override-by-{name}", 401, [(name, "POST"), ("content-type", "application/json")], "/v1/models", "GET")
        for name in ("x-http-method-override", "x-http-method", "x-method-override")
    ),
    Attempt("override-does-not-help", 405, [GOOD, ("x-http-method-override", "POST")], CHAT, "GET"),
    *(
        Attempt(f"path-{number}", 404, (), path, "GET")
        for number, path in enumerate(
            [
                "//v1/models", "/v1//models", "/v1/models/", "/v1/models;x=/healthz",
                "/healthz/%2e%2e/v1/models", "/healthz%2f..%2fv1%2fmodels", "/V1/models",
                "/v1/models%00", "/v1%5cmodels", "/v1/models%3f", "/admin/status/", "/%61dmin%2fstatus%2f",
            ]
        )
    ),
]  # fmt: skip


async def attempt(made: Gateway, tried: Attempt) -> httpx.Response:
    body = {} if tried.method in ("GET", "HEAD") else {"json": tried.body}
    # Httpx takes literal dots out of paths: those are tried on the wire, in the integration test.
    return await request(made, tried.method, f"http://manta{tried.path}", headers=list(tried.headers), **body)


@pytest.mark.parametrize("tried", ATTEMPTS, ids=[tried.name for tried in ATTEMPTS])
async def test_an_attempt_is_refused_and_shows_nothing(tried: Attempt) -> None:
    made = ready(auth=KEYS)
    answer = await attempt(made, tried)
    assert answer.status_code == tried.status, answer.text
    assert (upstream_of(made).requests, woken_of(made).calls) == ([], [])
    assert leaks_in(told(answer.headers.multi_items(), answer.text)) == []
    assert ANN_KEY not in answer.text


async def test_the_same_key_twice_is_one_key() -> None:
    made = ready(auth=KEYS)
    answer = await attempt(made, Attempt("", 200, [GOOD, GOOD, ("x-api-key", ANN_KEY)]))
    assert (answer.status_code, len(upstream_of(made).requests)) == (200, 1)


async def test_an_encoded_path_is_the_path_and_asks_for_a_key() -> None:
    for path in ("/%76%31/models", "/v1%2fmodels", "/admin%2Fstatus"):
        assert (await attempt(ready(auth=KEYS), Attempt("", 401, (), path, "GET"))).status_code == 401, path


async def test_a_key_that_is_revoked_while_in_use_ends() -> None:
    made = ready(auth=KEYS)
    assert (await attempt(made, Attempt("", 200, [GOOD]))).status_code == 200
    made.update(snapshot(entry("r1"), routing=document(auth=AuthConfig(keys=(BOB,))), version=2))
    assert (await attempt(made, Attempt("", 401, [GOOD]))).status_code == 401
    assert len(upstream_of(made).requests) == 1


async def test_an_unknown_key_costs_the_work_that_a_known_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []

    def counted(key: str, *, salt: bytes) -> str:
        hashed.append(key)
        return hash_of(key, salt=salt)

    monkeypatch.setattr(credentials, "hash_of", counted)
    keys = [ANN_KEY, "manta_ann_wrong", "manta_nobody_secret", "nothing"]
    for key in keys:
        await attempt(ready(auth=KEYS), Attempt("", 401, [bearer(key)]))
    assert hashed == keys


async def test_a_client_cannot_name_who_answers_or_its_replica() -> None:
    made = ready(auth=KEYS)
    said = [
        ("x-manta-model", "gpt"),
        ("x-manta-variant", "canary"),
        ("x-manta-draining", "1"),
        ("x-serve-router-replica", "r9"),
    ]
    answer = await attempt(made, Attempt("", 200, [GOOD, *said]))
    assert (answer.headers["x-manta-model"], answer.headers["x-manta-variant"]) == ("chat", "stable")
    assert "gpt" not in str(answer.headers)
    assert upstream_of(made).asked == ["http://r1"]


@pytest.mark.parametrize("offered", ["a\r\nx-evil: 1", "a b", "é", "x" * 200, "<script>", "\x1b[31m"])
async def test_a_request_id_that_could_forge_lines_is_not_taken(offered: str, caplog: pytest.LogCaptureFixture) -> None:
    answer = await attempt(
        ready(RuntimeError("/tmp/secret"), auth=KEYS), Attempt("", 500, [GOOD, ("x-request-id", offered.encode())])
    )
    assert (answer.status_code, answer.headers["x-request-id"].isalnum(), "x-evil" in answer.headers) == (500, True, False)
    assert leaks_in(told(answer.headers.multi_items(), answer.text)) == []
    assert all(offered not in record.getMessage() for record in caplog.records)


async def owned(made_front: Front) -> list[tuple[str, str]]:
    """Make a file and a vector store, and return every way to reach them."""
    file = await made_front.client.files.create(file=OWLS, purpose="assistants")
    store = await made_front.client.vector_stores.create(name="birds")
    batch = await made_front.client.vector_stores.file_batches.create(store.id, file_ids=[file.id])
    one, many = f"/v1/files/{file.id}", f"/v1/vector_stores/{store.id}"
    in_store, in_batch = f"{many}/files/{file.id}", f"{many}/file_batches/{batch.id}"
    cancel = f"{in_batch}/cancel"
    return [
        ("GET", one), ("GET", f"{one}/content"), ("DELETE", one), ("GET", many), ("POST", many), ("DELETE", many),
        ("POST", f"{many}/search"), ("GET", f"{many}/files"), ("GET", in_store), ("GET", f"{in_store}/content"),
        ("POST", in_store), ("DELETE", in_store), ("GET", in_batch), ("GET", f"{in_batch}/files"), ("POST", cancel),
    ]  # fmt: skip


def body_of(path: str) -> dict[str, Any]:
    """Return a body that the path's POST would take."""
    if "/files/" in path:
        return {"attributes": {}}
    return {"search": {"query": "owls"}, "cancel": {}}.get(path.rpartition("/")[2], {"name": "mine"})


async def test_another_tenants_files_and_stores_do_not_exist(tmp_path: Path) -> None:
    async with front(tmp_path, api_key=ANN_KEY, auth=KEYS) as made_front:
        ways = await owned(made_front)
        for key, status in ((BOB_KEY, 404), (OLD_KEY, 401), ("wrong", 401)):
            for method, path in ways:
                body = {"json": body_of(path)} if method == "POST" else {}
                answer = await made_front.send(method, path, headers=dict([bearer(key)]), **body)
                assert answer.status_code == status, (method, path, answer.text)
                assert leaks_in(told(answer.headers.multi_items(), answer.text)) == []
        assert [f.filename async for f in made_front.client.files.list()] == ["owls.txt"]


async def test_a_file_of_another_tenant_cannot_be_put_into_an_own_store(tmp_path: Path) -> None:
    async with front(tmp_path, api_key=ANN_KEY, auth=KEYS) as made_front:
        file = await made_front.client.files.create(file=OWLS, purpose="assistants")
        headers = dict([bearer(BOB_KEY)])
        store = (await made_front.send("POST", "/v1/vector_stores", json={}, headers=headers)).json()
        path = f"/v1/vector_stores/{store['id']}/files"
        answer = await made_front.send("POST", path, json={"file_id": file.id}, headers=headers)
        assert answer.status_code == 404, answer.text
        listed = await made_front.send("GET", "/v1/files", headers=headers)
        assert listed.json()["data"] == []
