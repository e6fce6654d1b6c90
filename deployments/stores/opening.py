"""The configured vector store."""

from __future__ import annotations

from deployments.stores.lancedb import LanceStore
from serve_app.config import VectorStoreConfig
from serve_app.contracts import VectorStore


def open_store(config: VectorStoreConfig) -> VectorStore:
    """Return the store that the configuration names; it connects at its first call."""
    return LanceStore(config.uri)
