"""/v1/vector_stores: collections of the caller's tenant, their files, and batches of these."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from serve_app.documents.contract import Documents
from serve_app.documents.pages import parse_page
from serve_app.documents.requests import (
    parse_new_attributes,
    parse_new_batch,
    parse_new_store,
    parse_new_store_file,
    parse_search,
    parse_store_changes,
)
from serve_app.errors import Forbidden
from serve_app.inference import Inference
from serve_app.rest import document_schemas as said
from serve_app.rest.answer import Answer
from serve_app.rest.files import limited, offered
from serve_app.rest.operation import JSON_TYPE, Operation
from serve_app.rest.request import Request
from serve_app.rest.routing import Handler, Route

ALL = "/v1/vector_stores"
STORE = f"{ALL}/{{vector_store_id}}"
FILES, FILE = f"{STORE}/files", f"{STORE}/files/{{file_id}}"
BATCHES, BATCH = f"{STORE}/file_batches", f"{STORE}/file_batches/{{batch_id}}"
TAG = "vector stores"


def routes(inference: Inference, documents: Documents) -> list[Route]:
    """Return the routes."""
    stores = VectorStoreRoutes(inference, documents)
    made = [*_store_routes(stores), *_file_routes(stores), *_batch_routes(stores)]
    return [replace(route, handle=limited(inference, route.handle)) if route.method == "POST" else route for route in made]


def _store_routes(stores: VectorStoreRoutes) -> list[Route]:
    return [
        _route("POST", ALL, stores.create, _says("Make a vector store", said.STORE, body=said.NEW_STORE)),
        _route("GET", ALL, stores.list, _says("List vector stores", said.listed(said.STORE), query=said.PAGE)),
        _route("GET", STORE, stores.show, _says("Show a vector store", said.STORE)),
        _route("POST", STORE, stores.update, _says("Change a vector store", said.STORE, body=said.STORE_CHANGES)),
        _route("DELETE", STORE, stores.delete, _says("Delete a vector store", said.DELETED)),
        _route("POST", f"{STORE}/search", stores.search, _says("Search a vector store", said.RESULTS, body=said.SEARCH)),
    ]


def _file_routes(stores: VectorStoreRoutes) -> list[Route]:
    listed, query = said.listed(said.STORE_FILE), (*said.PAGE, "filter")
    return [
        _route("POST", FILES, stores.add_file, _says("Add a file", said.STORE_FILE, body=said.NEW_STORE_FILE)),
        _route("GET", FILES, stores.list_files, _says("List the files of a vector store", listed, query=query)),
        _route("GET", FILE, stores.show_file, _says("Show where a file stands", said.STORE_FILE)),
        _route("POST", FILE, stores.update_file, _says("Change attributes", said.STORE_FILE, body=said.NEW_ATTRIBUTES)),
        _route("DELETE", FILE, stores.remove_file, _says("Take a file out", said.DELETED)),
        _route("GET", f"{FILE}/content", stores.content, _says("Read a file as it was cut", said.RESULTS)),
    ]


def _batch_routes(stores: VectorStoreRoutes) -> list[Route]:
    listed, query = said.listed(said.STORE_FILE), (*said.PAGE, "filter")
    return [
        _route("POST", BATCHES, stores.create_batch, _says("Add files together", said.BATCH, body=said.NEW_BATCH)),
        _route("GET", BATCH, stores.show_batch, _says("Show where a batch stands", said.BATCH)),
        _route("POST", f"{BATCH}/cancel", stores.cancel_batch, _says("Stop a batch", said.BATCH)),
        _route("GET", f"{BATCH}/files", stores.batch_files, _says("List the files of a batch", listed, query=query)),
    ]


def _says(summary: str, answer: said.Schema, *, body: said.Schema | None = None, query: tuple[str, ...] = ()) -> Operation:
    return said.operation(summary, TAG, answer={JSON_TYPE: answer}, body={} if body is None else {JSON_TYPE: body}, query=query)


def _route(method: str, template: str, handle: Handler, operation: Operation, /) -> Route:  # noqa: PLR0917 -- rows of a table
    return Route(method, template, handle, operation=operation)


class VectorStoreRoutes:
    """Handlers over a Documents."""

    def __init__(self, inference: Inference, documents: Documents) -> None:
        self._inference = inference
        self._documents = documents

    async def create(self, request: Request, answer: Answer) -> None:
        """Make a vector store."""
        tenant = self._tenant(request)
        if request.caller.collections is not None:
            raise Forbidden("this API key may use the collections that it names, and make no others")
        new = parse_new_store(await self._body(request))
        await answer.json(await self._documents.create_store(tenant, new))

    async def list(self, request: Request, answer: Answer) -> None:
        """List vector stores; for a key that names collections, those of them that the page has."""
        found = await self._documents.stores(self._tenant(request), parse_page(request.query()))
        view = self._inference.view
        found["data"] = [store for store in found["data"] if view.may_search(request.caller, store["id"])]
        await answer.json(found)

    async def show(self, request: Request, answer: Answer) -> None:
        """Show a vector store."""
        await answer.json(await self._documents.store(*self._place(request)))

    async def update(self, request: Request, answer: Answer) -> None:
        """Change a vector store's name, metadata or expiry."""
        place = self._place(request)
        await answer.json(await self._documents.update_store(*place, parse_store_changes(await self._body(request))))

    async def delete(self, request: Request, answer: Answer) -> None:
        """Delete a vector store."""
        await answer.json(await self._documents.delete_store(*self._place(request)))

    async def search(self, request: Request, answer: Answer) -> None:
        """Search a vector store."""
        place = self._place(request)
        await answer.json(await self._documents.search(*place, parse_search(await self._body(request))))

    async def add_file(self, request: Request, answer: Answer) -> None:
        """Add an upload to a vector store."""
        place = self._place(request)
        await answer.json(await self._documents.add_file(*place, parse_new_store_file(await self._body(request))))

    async def list_files(self, request: Request, answer: Answer) -> None:
        """List the files of a vector store."""
        await answer.json(await self._documents.store_files(*self._place(request), parse_page(request.query())))

    async def show_file(self, request: Request, answer: Answer) -> None:
        """Show where a file of a vector store stands."""
        await answer.json(await self._documents.store_file(*self._place(request), request.params["file_id"]))

    async def update_file(self, request: Request, answer: Answer) -> None:
        """Give a file of a vector store other attributes."""
        place = self._place(request)
        attributes = parse_new_attributes(await self._body(request))
        await answer.json(await self._documents.update_file(*place, request.params["file_id"], attributes=attributes))

    async def remove_file(self, request: Request, answer: Answer) -> None:
        """Take a file out of a vector store."""
        await answer.json(await self._documents.remove_file(*self._place(request), request.params["file_id"]))

    async def content(self, request: Request, answer: Answer) -> None:
        """Show the text of a file as it was cut."""
        await answer.json(await self._documents.store_file_content(*self._place(request), request.params["file_id"]))

    async def create_batch(self, request: Request, answer: Answer) -> None:
        """Add uploads to a vector store."""
        place = self._place(request)
        await answer.json(await self._documents.create_batch(*place, parse_new_batch(await self._body(request))))

    async def show_batch(self, request: Request, answer: Answer) -> None:
        """Show where a batch stands."""
        await answer.json(await self._documents.batch(*self._place(request), request.params["batch_id"]))

    async def cancel_batch(self, request: Request, answer: Answer) -> None:
        """Stop what of a batch is not done yet."""
        await answer.json(await self._documents.cancel_batch(*self._place(request), request.params["batch_id"]))

    async def batch_files(self, request: Request, answer: Answer) -> None:
        """List the files of a batch."""
        place, page = self._place(request), parse_page(request.query())
        await answer.json(await self._documents.batch_files(*place, request.params["batch_id"], page=page))

    async def _body(self, request: Request) -> dict[str, Any]:
        return await request.json(limit_bytes=self._inference.view.document.limits.max_body_bytes)

    def _tenant(self, request: Request) -> str:
        offered(self._inference)
        return request.caller.tenant_name

    def _place(self, request: Request) -> tuple[str, str]:
        """Return the tenant and the vector store. Raises Forbidden when the key names others."""
        tenant, store_id = self._tenant(request), request.params["vector_store_id"]
        if not self._inference.view.may_search(request.caller, store_id):
            raise Forbidden("this API key may not use this vector store", param="vector_store_id")
        return tenant, store_id
