"""What fronts ask of the service of uploads and vector stores. Everything belongs to a tenant; answers are OpenAI's JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from serve_app.documents.pages import Page
from serve_app.documents.records import BatchMember
from serve_app.documents.requests import NewStore, Search, StoreChanges
from serve_app.filters import Attributes

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Upload:
    """A file as it was sent."""

    filename: str
    purpose: str
    content: bytes
    expires_after_s: int | None = None


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file as it was sent, for its owner to read again."""

    filename: str
    content: bytes


class Documents(Protocol):
    """Uploads and vector stores. An identifier of another tenant is unknown: every method may raise UnknownObject."""

    async def create_file(self, tenant: str, upload: Upload) -> Json:
        """Keep an upload."""
        ...

    async def file(self, tenant: str, file_id: str) -> Json:
        """Return an upload's description."""
        ...

    async def files(self, tenant: str, page: Page, purpose: str | None = None) -> Json:
        """List uploads."""
        ...

    async def file_content(self, tenant: str, file_id: str) -> FileContent:
        """Return an upload's bytes."""
        ...

    async def delete_file(self, tenant: str, file_id: str) -> Json:
        """Delete an upload, and take it out of every vector store."""
        ...

    async def create_store(self, tenant: str, new: NewStore) -> Json:
        """Make a vector store. Raises BadRequest, TooManyFiles."""
        ...

    async def store(self, tenant: str, store_id: str) -> Json:
        """Return a vector store's description."""
        ...

    async def stores(self, tenant: str, page: Page) -> Json:
        """List vector stores."""
        ...

    async def update_store(self, tenant: str, store_id: str, changes: StoreChanges) -> Json:
        """Change a vector store's name, metadata or expiry."""
        ...

    async def delete_store(self, tenant: str, store_id: str) -> Json:
        """Delete a vector store; its uploads stay."""
        ...

    async def owns(self, tenant: str, store_id: str) -> bool:
        """Whether the tenant has a vector store of that identifier, to search in."""
        ...

    async def search(self, tenant: str, store_id: str, search: Search) -> Json:
        """Return the best passages. Raises StoreExpired, DeadlineExceeded, Unavailable."""
        ...

    async def add_file(self, tenant: str, store_id: str, member: BatchMember) -> Json:
        """Add an upload to a vector store. Raises BadRequest, StoreExpired, TooManyFiles."""
        ...

    async def store_file(self, tenant: str, store_id: str, file_id: str) -> Json:
        """Return where a file of a vector store stands."""
        ...

    async def store_files(self, tenant: str, store_id: str, page: Page) -> Json:
        """List the files of a vector store."""
        ...

    async def update_file(self, tenant: str, store_id: str, file_id: str, *, attributes: Attributes) -> Json:
        """Give a file of a vector store other attributes."""
        ...

    async def remove_file(self, tenant: str, store_id: str, file_id: str) -> Json:
        """Take a file out of a vector store; the upload stays."""
        ...

    async def store_file_content(self, tenant: str, store_id: str, file_id: str) -> Json:
        """Return the text of a file as it was cut."""
        ...

    async def create_batch(self, tenant: str, store_id: str, members: tuple[BatchMember, ...]) -> Json:
        """Add uploads to a vector store. Raises BadRequest, StoreExpired, TooManyFiles."""
        ...

    async def batch(self, tenant: str, store_id: str, batch_id: str) -> Json:
        """Return where a batch stands."""
        ...

    async def cancel_batch(self, tenant: str, store_id: str, batch_id: str) -> Json:
        """Stop what of a batch is not done yet."""
        ...

    async def batch_files(self, tenant: str, store_id: str, batch_id: str, *, page: Page) -> Json:
        """List the files of a batch."""
        ...
