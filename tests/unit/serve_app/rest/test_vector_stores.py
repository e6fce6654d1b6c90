"""OpenAI's own client on files and vector stores, in process."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import httpx2
import openai
import pytest
from openai import AsyncOpenAI

from serve_app.config import AuthConfig
from serve_app.documents.service import DocumentService
from serve_app.inference import Inference
from serve_app.limits.permit import Admission
from serve_app.rest import files, vector_stores
from serve_app.rest.app import RestApp
from tests.unit.serve_app.documents.platform import LetterEmbedder, made
from tests.unit.serve_app.rest.front import ready
from tests.unit.serve_app.test_inference import Counted
from tests.unit.serve_app.test_view import ANN, ANN_KEY, BOB, BOB_KEY

PENGUINS = ("penguins.md", b"# Penguins\n\nPenguins live in the Antarctic.\n")
OWLS = ("owls.txt", b"Owls hunt at night in forests.")
STORES = {"embedder": "letters", "max_file_bytes": 4096}


@dataclass
class Front:
    """The front, and OpenAI's client of it."""

    app: RestApp
    client: AsyncOpenAI
    service: DocumentService

    async def send(self, method: str, path: str, **more: Any) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://manta") as http:
            return await http.request(method, path, **more)


@contextlib.asynccontextmanager
async def front(
    folder: Path,
    *,
    vector_store: dict[str, Any] | None = STORES,
    admission: Admission | None = None,
    api_key: str = "none",
    **changes: Any,
) -> AsyncIterator[Front]:
    service = made(folder, embedder=LetterEmbedder(), max_file_bytes=4096)
    await service.open()
    inference = Inference(ready(vector_stores=vector_store, **changes), admission=admission)
    app = RestApp(inference, more=[*files.routes(inference, service), *vector_stores.routes(inference, service)])
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://manta/v1")
    async with AsyncOpenAI(api_key=api_key, base_url="http://manta/v1", http_client=http, max_retries=0) as client:
        yield Front(app, client, service)
    await service.close()


async def test_files_are_uploaded_listed_read_and_deleted(tmp_path: Path) -> None:
    async with front(tmp_path) as made_front:
        client = made_front.client
        file = await client.files.create(file=OWLS, purpose="assistants")
        assert (file.filename, file.bytes, file.purpose, file.object) == ("owls.txt", len(OWLS[1]), "assistants", "file")
        assert (await client.files.retrieve(file.id)) == file
        assert (await client.files.content(file.id)).content == OWLS[1]
        assert [f.id async for f in client.files.list()] == [file.id]
        assert [f.id async for f in client.files.list(purpose="vision")] == []
        assert (await client.files.delete(file.id)).deleted
        with pytest.raises(openai.NotFoundError):
            await client.files.retrieve(file.id)


async def test_a_file_may_expire(tmp_path: Path) -> None:
    async with front(tmp_path) as made_front:
        expires: Any = {"anchor": "created_at", "seconds": 3600}
        file = await made_front.client.files.create(file=OWLS, purpose="user_data", expires_after=expires)
        assert file.expires_at == file.created_at + 3600


async def test_vector_stores_are_made_changed_listed_and_deleted(tmp_path: Path) -> None:
    async with front(tmp_path) as made_front:
        stores = made_front.client.vector_stores
        expires: Any = {"anchor": "last_active_at", "days": 3}
        store = await stores.create(name="birds", metadata={"team": "a"}, expires_after=expires)
        assert (store.name, store.metadata, store.status, store.file_counts.total) == ("birds", {"team": "a"}, "completed", 0)
        assert store.expires_at == (store.last_active_at or 0) + 3 * 86_400
        changed = await stores.update(store.id, name="fish", metadata=None, expires_after=None)
        assert (changed.name, changed.metadata, changed.expires_at) == ("fish", {}, None)
        other = await stores.create()
        assert [s.id async for s in stores.list(limit=1)] == [other.id, store.id]  # over two pages
        assert (await stores.delete(other.id)).deleted
        assert (await stores.retrieve(store.id)) == changed


async def test_files_are_added_searched_relabelled_and_removed(tmp_path: Path) -> None:
    async with front(tmp_path) as made_front:
        client = made_front.client
        store = await client.vector_stores.create(name="birds")
        penguins = await client.files.create(file=PENGUINS, purpose="assistants")
        in_store = client.vector_stores.files
        done = await in_store.create_and_poll(
            penguins.id, vector_store_id=store.id, attributes={"year": 2024}, poll_interval_ms=5
        )
        assert (done.status, done.attributes, done.last_error) == ("completed", {"year": 2024}, None)
        owls = await in_store.upload_and_poll(vector_store_id=store.id, file=OWLS, poll_interval_ms=5)
        assert [f.id async for f in in_store.list(store.id, filter="completed")] == [owls.id, penguins.id]
        recent: Any = {"type": "and", "filters": [{"type": "gte", "key": "year", "value": 2024}]}
        page = await client.vector_stores.search(store.id, query=["owls", "penguins"], filters=recent, max_num_results=5)
        assert [(r.file_id, r.filename, r.attributes) for r in page.data] == [(penguins.id, "penguins.md", {"year": 2024})]
        assert page.data[0].content[0].text == "Penguins live in the Antarctic."
        await in_store.update(owls.id, vector_store_id=store.id, attributes={"year": 2030.5, "draft": True})
        page = await client.vector_stores.search(
            store.id, query="birds", filters=recent, ranking_options={"score_threshold": 0.1}
        )
        assert {r.filename for r in page.data} == {"owls.txt", "penguins.md"}
        content = await in_store.content(owls.id, vector_store_id=store.id)
        assert [part.text for part in content.data] == ["Owls hunt at night in forests."]
        assert (await in_store.delete(owls.id, vector_store_id=store.id)).deleted
        assert (await client.vector_stores.retrieve(store.id)).file_counts.total == 1


async def test_a_file_that_fails_says_why(tmp_path: Path) -> None:
    async with front(tmp_path) as made_front:
        store = await made_front.client.vector_stores.create()
        in_store = made_front.client.vector_stores.files
        failed = await in_store.upload_and_poll(vector_store_id=store.id, file=("a.pdf", b"%PDF nonsense"), poll_interval_ms=5)
        assert failed.status == "failed"
        assert failed.last_error is not None
        assert (failed.last_error.code, "damaged PDF" in failed.last_error.message) == ("invalid_file", True)


async def test_batches_are_made_polled_listed_and_cancelled(tmp_path: Path) -> None:
    async with front(tmp_path) as made_front:
        client = made_front.client
        store = await client.vector_stores.create()
        batches = client.vector_stores.file_batches
        ids = [(await client.files.create(file=each, purpose="assistants")).id for each in (PENGUINS, OWLS)]
        batch = await batches.create_and_poll(store.id, file_ids=ids, attributes={"a": "b"}, poll_interval_ms=5)
        assert (batch.status, batch.file_counts.completed) == ("completed", 2)
        assert (await batches.retrieve(batch.id, vector_store_id=store.id)) == batch
        listed = [f async for f in batches.list_files(batch.id, vector_store_id=store.id, limit=1)]
        assert [(f.id, f.attributes) for f in listed] == [(ids[1], {"a": "b"}), (ids[0], {"a": "b"})]
        again = await batches.create(store.id, files=[{"file_id": ids[0], "attributes": {"c": 1}}])
        assert (await batches.cancel(again.id, vector_store_id=store.id)).status in ("cancelled", "completed")
        uploaded = await batches.upload_and_poll(store.id, files=[OWLS, PENGUINS], poll_interval_ms=5)
        assert uploaded.file_counts.completed == 2


BAD = [
    pytest.param("/v1/vector_stores", {"color": "red"}, "color", id="unknown-field"),
    pytest.param("/v1/vector_stores", {"name": 1}, "name", id="name"),
    pytest.param("/v1/vector_stores", {"metadata": {"a": 1}}, "metadata.a", id="metadata"),
    pytest.param("/v1/vector_stores", {"metadata": {str(i): "" for i in range(17)}}, "metadata", id="much-metadata"),
    pytest.param("/v1/vector_stores", {"expires_after": {"anchor": "x", "days": 1}}, "expires_after", id="anchor"),
    pytest.param("/v1/vector_stores", {"expires_after": {"anchor": "last_active_at"}}, "expires_after.days", id="days"),
    pytest.param("/v1/vector_stores", {"file_ids": "file-1"}, "file_ids", id="file-ids"),
    pytest.param("/v1/vector_stores", {"chunking_strategy": {"type": "x"}}, "chunking_strategy", id="chunking"),
    pytest.param("{store}/files", {}, "file_id", id="no-file"),
    pytest.param("{store}/files", {"file_id": "file-1", "attributes": {"a": None}}, "attributes.a", id="attribute"),
    pytest.param("{store}/file_batches", {}, "file_ids", id="empty-batch"),
    pytest.param("{store}/file_batches", {"files": [{"file_id": 1}]}, "files[0].file_id", id="batch-file"),
    pytest.param("{store}/search", {}, "query", id="no-query"),
    pytest.param("{store}/search", {"query": " "}, "query", id="blank-query"),
    pytest.param("{store}/search", {"query": "a", "max_num_results": 51}, "max_num_results", id="many-results"),
    pytest.param("{store}/search", {"query": "a", "rewrite_query": True}, "rewrite_query", id="rewrite"),
    pytest.param("{store}/search", {"query": "a", "filters": {"type": "eq"}}, "filters.key", id="filter"),
    pytest.param(
        "{store}/search", {"query": "a", "ranking_options": {"ranker": "mine"}}, "ranking_options.ranker", id="ranker"
    ),
]


@pytest.mark.parametrize(("path", "body", "param"), BAD)
async def test_a_bad_request_is_refused_and_its_field_named(tmp_path: Path, path: str, body: Any, param: str) -> None:
    async with front(tmp_path) as made_front:
        store = await made_front.client.vector_stores.create()
        response = await made_front.send("POST", path.format(store=f"/v1/vector_stores/{store.id}"), json=body)
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)
        assert param in response.json()["error"]["message"]


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "order=up", "after=file-x", "before=1"])
async def test_a_bad_page_is_refused(tmp_path: Path, query: str) -> None:
    async with front(tmp_path) as made_front:
        response = await made_front.send("GET", f"/v1/vector_stores?{query}")
        assert response.status_code == 400


BOUNDARY = "multipart/form-data; boundary=b"


def part(disposition: str, body: str = "x") -> str:
    return f"--b\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{body}\r\n"


FILE = part('name="file"; filename="a.txt"')
PURPOSE = part('name="purpose"', "assistants")


@pytest.mark.parametrize(
    ("content_type", "body", "param"),
    [
        pytest.param("application/json", "{}", "content-type", id="json"),
        pytest.param("multipart/form-data", FILE, "content-type", id="no-boundary"),
        pytest.param(BOUNDARY, "nonsense", None, id="nonsense"),
        pytest.param(BOUNDARY, FILE + PURPOSE, None, id="cut-short"),
        pytest.param(BOUNDARY, PURPOSE + "--b--\r\n", "file", id="no-file"),
        pytest.param(BOUNDARY, part('name="file"') + PURPOSE + "--b--\r\n", "file", id="no-filename"),
        pytest.param(BOUNDARY, part('name="file"; filename="a/"') + PURPOSE + "--b--\r\n", "file", id="empty-filename"),
        pytest.param(BOUNDARY, FILE + "--b--\r\n", "purpose", id="no-purpose"),
        pytest.param(BOUNDARY, FILE + part('name="purpose"', "fun") + "--b--\r\n", "purpose", id="unknown-purpose"),
        pytest.param(BOUNDARY, FILE + part('name="purpose"', "x" * 2000) + "--b--\r\n", "purpose", id="long-field"),
        pytest.param(BOUNDARY, FILE + FILE + PURPOSE + "--b--\r\n", "file", id="two-files"),
        pytest.param(BOUNDARY, FILE + PURPOSE + part('name="color"') + "--b--\r\n", "color", id="unknown-field"),
        pytest.param(
            BOUNDARY, FILE + PURPOSE + part('name="expires_after[seconds]"', "9") + "--b--\r\n", "expires_after", id="expiry"
        ),
        pytest.param(BOUNDARY, "--b\r\n\r\nx\r\n--b--\r\n", None, id="no-name"),
    ],
)
async def test_a_bad_upload_is_refused(tmp_path: Path, content_type: str, body: str, param: str | None) -> None:
    async with front(tmp_path) as made_front:
        response = await made_front.send("POST", "/v1/files", content=body, headers={"content-type": content_type})
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_an_upload_over_the_limit_is_refused(tmp_path: Path) -> None:
    async with front(tmp_path) as made_front:
        with pytest.raises(openai.APIStatusError) as refusal:
            await made_front.client.files.create(file=("big.txt", b"x" * 4097), purpose="assistants")
        assert refusal.value.status_code == 413
        response = await made_front.send("POST", "/v1/files", content=b"", headers={"content-length": str(2**40)})
        assert response.status_code == 413


async def test_folders_in_a_file_name_are_dropped_and_any_name_is_sent_back(tmp_path: Path) -> None:
    async with front(tmp_path) as made_front:
        file = await made_front.client.files.create(file=("../../etc/päs swd.txt", b"x"), purpose="assistants")
        assert file.filename == "päs swd.txt"
        response = await made_front.send("GET", f"/v1/files/{file.id}/content")
        assert response.headers["content-disposition"] == "attachment; filename*=UTF-8''p%C3%A4s%20swd.txt"


async def test_a_platform_without_vector_stores_has_no_such_routes(tmp_path: Path) -> None:
    async with front(tmp_path, vector_store=None) as made_front:
        for method, path in (
            ("GET", "/v1/files"),
            ("POST", "/v1/files"),
            ("GET", "/v1/vector_stores"),
            ("POST", "/v1/vector_stores"),
        ):
            response = await made_front.send(method, path, json={} if method == "POST" else None)
            assert (response.status_code, "vector_stores" in response.json()["error"]["message"]) == (404, True)


async def test_an_unknown_identifier_is_not_found(tmp_path: Path) -> None:
    async with front(tmp_path) as made_front:
        for path in ("/v1/files/file-x", "/v1/vector_stores/vs_x", "/v1/vector_stores/..", "/v1/files/%2e%2e/content"):
            response = await made_front.send("GET", path)
            assert response.status_code == 404, path
            json.loads(response.content)


async def test_what_makes_work_counts_against_limits_and_polls_do_not(tmp_path: Path) -> None:
    admission = Counted()
    async with front(tmp_path, admission=admission) as made_front:
        store = await made_front.client.vector_stores.create()
        await made_front.client.files.create(file=OWLS, purpose="assistants")
        await made_front.client.vector_stores.search(store.id, query="owls")
        await made_front.client.vector_stores.retrieve(store.id)
        await made_front.client.files.list()
        assert admission.released == 3


async def test_answers_that_count_against_limits_say_what_is_left(tmp_path: Path) -> None:
    async with front(tmp_path, admission=Counted()) as made_front:
        made = await made_front.send("POST", "/v1/vector_stores", json={})
        uploaded = await made_front.send("POST", "/v1/files", files={"file": OWLS}, data={"purpose": "assistants"})
        listed = await made_front.send("GET", "/v1/files")
    said = [(each.status_code, each.headers.get("x-ratelimit-limit-requests")) for each in (made, uploaded, listed)]
    assert said == [(200, "9"), (200, "9"), (200, None)]


async def test_without_a_key_nothing_is_shown(tmp_path: Path) -> None:
    async with front(tmp_path, auth=AuthConfig(keys=(ANN, BOB))) as made_front:
        for method, path in (
            ("GET", "/v1/files"),
            ("POST", "/v1/files"),
            ("GET", "/v1/vector_stores/vs_1/files/file-1/content"),
        ):
            assert (await made_front.send(method, path)).status_code == 401


async def test_what_belongs_to_another_tenant_is_not_found(tmp_path: Path) -> None:
    async with front(tmp_path, auth=AuthConfig(keys=(ANN, BOB)), api_key=ANN_KEY) as made_front:
        store = await made_front.client.vector_stores.create()
        file = await made_front.client.files.create(file=OWLS, purpose="assistants")
        bob = made_front.client.with_options(api_key=BOB_KEY)
        assert [f.id async for f in bob.files.list()] == []
        for attempt in (
            bob.files.content(file.id),
            bob.vector_stores.retrieve(store.id),
            bob.vector_stores.search(store.id, query="owls"),
            bob.vector_stores.files.create(store.id, file_id=file.id),
        ):
            with pytest.raises(openai.NotFoundError):
                await attempt


async def test_a_key_that_names_collections_reaches_no_other_store_of_its_tenant(tmp_path: Path) -> None:
    async with front(tmp_path, auth=AuthConfig(keys=(ANN, BOB)), api_key=ANN_KEY) as made_front:
        mine = await made_front.client.vector_stores.create()
    bound = ANN.model_copy(update={"collections": ("vs_other",)})
    async with front(tmp_path, auth=AuthConfig(keys=(bound, BOB)), api_key=ANN_KEY) as made_front:
        stores = made_front.client.vector_stores
        assert [store.id async for store in stores.list()] == []
        for attempt in (stores.retrieve(mine.id), stores.search(mine.id, query="owls"), stores.create()):
            with pytest.raises(openai.PermissionDeniedError):
                await attempt
