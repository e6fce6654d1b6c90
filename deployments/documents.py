"""Documents: uploads and vector stores, as a Serve deployment of one replica."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from deployments.blobs import open_blobs
from deployments.embedding_sources import resolve
from deployments.handles import HandleEmbedder, HandleRetriever
from deployments.names import RETRIEVER_APP, embedder_app
from deployments.stores.opening import open_store
from serve_app.config import VectorStoreConfig, VectorStoresConfig
from serve_app.documents.ingestor import Ingestor
from serve_app.documents.records import Chunking
from serve_app.documents.registry import Registry, wall_clock_ns
from serve_app.documents.service import DocumentService
from serve_app.documents.steps import Steps
from serve_app.documents.worker import Worker
from serve_app.ingest.tokens import load_tokenizer


class ServedDocuments(DocumentService):
    """The service over Serve handles. Its arguments are JSON; it starts once every record is read."""

    async def __init__(  # type: ignore[misc]
        self, *, config: dict[str, Any], store: dict[str, Any], uri: str, embedder_source: str
    ) -> None:  # fmt: skip
        logging.getLogger("pypdf").setLevel(logging.ERROR)  # it warns about every oddity of a file that it can read
        stores = VectorStoresConfig.model_validate(config)
        steps = Steps(Registry(open_blobs(uri), now_ns=wall_clock_ns), open_store(VectorStoreConfig.model_validate(store)))
        tokenizer = await asyncio.to_thread(load_tokenizer, resolve(embedder_source))
        auto = Chunking(stores.chunk_tokens, stores.overlap_tokens)
        ingestor = Ingestor(HandleEmbedder(embedder_app(stores.embedder)), tokenizer, auto=auto)
        super().__init__(
            steps, Worker(steps, ingestor), ingestor=ingestor, retriever=HandleRetriever(RETRIEVER_APP), config=stores
        )
        await self.open()

    async def check_health(self) -> None:
        """Nothing can be wrong with the service itself: what it keeps answers for itself."""

    async def __del__(self) -> None:
        """Stop; what is not done is taken up at the next start."""
        if hasattr(self, "_worker"):
            await self.close()
