"""/v1/files: uploads of the caller's tenant."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

from serve_app.documents.contract import Documents
from serve_app.documents.pages import parse_page
from serve_app.errors import UnknownRoute
from serve_app.inference import Inference
from serve_app.rest.answer import Answer
from serve_app.rest.document_schemas import DELETED, FILE, UPLOAD, listed, operation
from serve_app.rest.operation import FORM_TYPE, JSON_TYPE, NOTHING
from serve_app.rest.request import Request
from serve_app.rest.routing import Handler, Route
from serve_app.rest.uploads import OVERHEAD_BYTES, parse_upload
from serve_app.rollout.document import RoutedVectorStores

BYTES_TYPE = "application/octet-stream"
MOST_LISTED = 10_000
TAG = "files"
ONE = "/v1/files/{file_id}"


def routes(inference: Inference, documents: Documents) -> list[Route]:
    """Return the routes."""
    files = FileRoutes(inference, documents)
    uploads = operation("Upload a file", TAG, body={FORM_TYPE: UPLOAD}, answer={JSON_TYPE: FILE})
    lists = operation(
        "List uploaded files", TAG, answer={JSON_TYPE: listed(FILE)}, query=("limit", "order", "after", "purpose")
    )
    reads = operation("Read an uploaded file", TAG, answer={BYTES_TYPE: NOTHING})
    return [
        Route("POST", "/v1/files", limited(inference, files.create), operation=uploads),
        Route("GET", "/v1/files", files.list, operation=lists),
        Route("GET", ONE, files.show, operation=operation("Show an uploaded file", TAG, answer={JSON_TYPE: FILE})),
        Route("GET", f"{ONE}/content", files.content, operation=reads),
        Route("DELETE", ONE, files.delete, operation=operation("Delete an uploaded file", TAG, answer={JSON_TYPE: DELETED})),
    ]


def limited(inference: Inference, handle: Handler) -> Handler:
    """Return the handler as one request that counts against the caller's limits; polls for a status do not."""

    async def admitted(request: Request, answer: Answer) -> None:
        async with inference.admitted(request.caller) as answer.headers:
            await handle(request, answer)

    return admitted


def offered(inference: Inference) -> RoutedVectorStores:
    """Return what the platform says of vector stores. Raises UnknownRoute where it offers none."""
    if (stores := inference.view.document.vector_stores) is None:
        raise UnknownRoute("files and vector stores are not offered here: the configuration has no `vector_stores`")
    return stores


class FileRoutes:
    """Handlers over a Documents."""

    def __init__(self, inference: Inference, documents: Documents) -> None:
        self._inference = inference
        self._documents = documents

    async def create(self, request: Request, answer: Answer) -> None:
        """Keep an upload."""
        most = offered(self._inference).max_file_bytes
        raw = await request.body(limit_bytes=most + OVERHEAD_BYTES)
        # A large form takes a while, and streams of others run on this event loop.
        upload = await asyncio.to_thread(parse_upload, raw, request.header("content-type") or "")
        await answer.json(await self._documents.create_file(self._tenant(request), upload))

    async def list(self, request: Request, answer: Answer) -> None:
        """List uploads."""
        query = request.query()
        page = parse_page(query, most=MOST_LISTED, default=MOST_LISTED)
        await answer.json(await self._documents.files(self._tenant(request), page, query.get("purpose")))

    async def show(self, request: Request, answer: Answer) -> None:
        """Show an upload."""
        await answer.json(await self._documents.file(self._tenant(request), request.params["file_id"]))

    async def content(self, request: Request, answer: Answer) -> None:
        """Send an upload's bytes; browsers are told to save and not to show them."""
        found = await self._documents.file_content(self._tenant(request), request.params["file_id"])
        disposition = f"attachment; filename*=UTF-8''{quote(found.filename, safe='')}"
        headers = (("content-disposition", disposition), ("x-content-type-options", "nosniff"))
        await answer.bytes(found.content, content_type=BYTES_TYPE, headers=headers)

    async def delete(self, request: Request, answer: Answer) -> None:
        """Delete an upload, and take it out of every vector store."""
        await answer.json(await self._documents.delete_file(self._tenant(request), request.params["file_id"]))

    def _tenant(self, request: Request) -> str:
        offered(self._inference)
        return request.caller.tenant_name
