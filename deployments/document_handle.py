"""The service of uploads and vector stores over its handle. Apart from the service: a Router needs none of its parsers."""

from __future__ import annotations

from typing import Any

from deployments.handles import LazyHandle
from deployments.names import DOCUMENTS_APP
from serve_app.documents.contract import FileContent, Json, Upload
from serve_app.documents.pages import Page
from serve_app.documents.records import BatchMember
from serve_app.documents.requests import NewStore, Search, StoreChanges
from serve_app.filters import Attributes


class HandleDocuments:
    """The Documents protocol over a handle. What only reads is sent again when a replica dies under it; a write never is."""

    def __init__(self, app: str = DOCUMENTS_APP) -> None:
        self._handle = LazyHandle("Documents", app)

    async def create_file(self, tenant: str, upload: Upload) -> Json:
        """Keep an upload."""
        return await self._json("create_file", tenant, upload)

    async def file(self, tenant: str, file_id: str) -> Json:
        """Return an upload's description."""
        return await self._read("file", tenant, file_id)

    async def files(self, tenant: str, page: Page, purpose: str | None = None) -> Json:
        """List uploads."""
        return await self._read("files", tenant, page, purpose)

    async def file_content(self, tenant: str, file_id: str) -> FileContent:
        """Return an upload's bytes."""
        content: FileContent = await self._handle.read("file_content", tenant, file_id)
        return content

    async def delete_file(self, tenant: str, file_id: str) -> Json:
        """Delete an upload, and take it out of every vector store."""
        return await self._json("delete_file", tenant, file_id)

    async def create_store(self, tenant: str, new: NewStore) -> Json:
        """Make a vector store."""
        return await self._json("create_store", tenant, new)

    async def store(self, tenant: str, store_id: str) -> Json:
        """Return a vector store's description."""
        return await self._read("store", tenant, store_id)

    async def stores(self, tenant: str, page: Page) -> Json:
        """List vector stores."""
        return await self._read("stores", tenant, page)

    async def update_store(self, tenant: str, store_id: str, changes: StoreChanges) -> Json:
        """Change a vector store's name, metadata or expiry."""
        return await self._json("update_store", tenant, store_id, changes)

    async def delete_store(self, tenant: str, store_id: str) -> Json:
        """Delete a vector store; its uploads stay."""
        return await self._json("delete_store", tenant, store_id)

    async def owns(self, tenant: str, store_id: str) -> bool:
        """Whether the tenant has a vector store of that identifier, to search in."""
        return bool(await self._handle.read("owns", tenant, store_id))

    async def search(self, tenant: str, store_id: str, search: Search) -> Json:
        """Return the best passages."""
        return await self._read("search", tenant, store_id, search)

    async def add_file(self, tenant: str, store_id: str, member: BatchMember) -> Json:
        """Add an upload to a vector store."""
        return await self._json("add_file", tenant, store_id, member)

    async def store_file(self, tenant: str, store_id: str, file_id: str) -> Json:
        """Return where a file of a vector store stands."""
        return await self._read("store_file", tenant, store_id, file_id)

    async def store_files(self, tenant: str, store_id: str, page: Page) -> Json:
        """List the files of a vector store."""
        return await self._read("store_files", tenant, store_id, page)

    async def update_file(self, tenant: str, store_id: str, file_id: str, *, attributes: Attributes) -> Json:
        """Give a file of a vector store other attributes."""
        return await self._json("update_file", tenant, store_id, file_id, attributes=attributes)

    async def remove_file(self, tenant: str, store_id: str, file_id: str) -> Json:
        """Take a file out of a vector store; the upload stays."""
        return await self._json("remove_file", tenant, store_id, file_id)

    async def store_file_content(self, tenant: str, store_id: str, file_id: str) -> Json:
        """Return the text of a file as it was cut."""
        return await self._read("store_file_content", tenant, store_id, file_id)

    async def create_batch(self, tenant: str, store_id: str, members: tuple[BatchMember, ...]) -> Json:
        """Add uploads to a vector store."""
        return await self._json("create_batch", tenant, store_id, members)

    async def batch(self, tenant: str, store_id: str, batch_id: str) -> Json:
        """Return where a batch stands."""
        return await self._read("batch", tenant, store_id, batch_id)

    async def cancel_batch(self, tenant: str, store_id: str, batch_id: str) -> Json:
        """Stop what of a batch is not done yet."""
        return await self._json("cancel_batch", tenant, store_id, batch_id)

    async def batch_files(self, tenant: str, store_id: str, batch_id: str, *, page: Page) -> Json:
        """List the files of a batch."""
        return await self._read("batch_files", tenant, store_id, batch_id, page=page)

    async def _json(self, method: str, *args: Any, **kwargs: Any) -> Json:
        answer: Json = await self._handle.call(method, *args, **kwargs)
        return answer

    async def _read(self, method: str, *args: Any, **kwargs: Any) -> Json:
        answer: Json = await self._handle.read(method, *args, **kwargs)
        return answer
