"""`manta ingest PATH --collection NAME`; PATH may be s3://bucket/prefix."""

from __future__ import annotations

import asyncio
import os

from deployments.embedding_sources import resolve
from deployments.stores.opening import open_store
from serve_app.commands.client import API_KEY, require_url
from serve_app.config import EmbedderConfig, PlatformConfig
from serve_app.errors import CommandError, PlatformError
from serve_app.ingest.client import EmbeddingClient
from serve_app.ingest.command import IngestOptions, ingest
from serve_app.ingest.report import IngestReport
from serve_app.ingest.tokens import load_tokenizer


def run(
    options: IngestOptions, config: PlatformConfig, *, embedder: str | None, url: str, api_key: str | None = None
) -> IngestReport:
    """Ingest through the running platform's embedder into the configured store. Raises CommandError.

    The key in MANTA_API_KEY goes before ``api_key``.
    """
    require_url(url)
    chosen = choose_embedder(config, options.collection, embedder)
    client = EmbeddingClient(url, chosen.name, api_key=os.environ.get(API_KEY) or api_key)
    try:
        return asyncio.run(_ingest(options, config, chosen, client=client))
    except PlatformError as err:
        raise CommandError(err.message) from err


def choose_embedder(config: PlatformConfig, collection: str, name: str | None) -> EmbedderConfig:
    """Return the embedder named, else the one a pipeline binds to the collection, else the only one.

    Raises:
        CommandError: there is no such embedder, or none of these rules gives exactly one.
    """
    by_name = {e.name: e for e in config.embedders}
    bound = {v.embedder for p in config.pipelines for v in p.versions if v.collection == collection}
    wanted = {name} if name else (bound or set(by_name))
    if name and name not in by_name:
        raise CommandError(f"embedder {name!r} is not declared; declared: {', '.join(sorted(by_name)) or 'none'}")
    if len(wanted) != 1 or not wanted <= set(by_name):
        declared = ", ".join(sorted(by_name)) or "none"
        raise CommandError(f"choose the embedder of collection {collection!r} with --embedder; declared: {declared}")
    return by_name[wanted.pop()]


async def _ingest(
    options: IngestOptions, config: PlatformConfig, embedder: EmbedderConfig, *, client: EmbeddingClient
) -> IngestReport:
    async with client:
        tokenizer = load_tokenizer(resolve(embedder.source))
        store = open_store(config.vector_store)
        return await ingest(options, store, embedder=client, tokenizer=tokenizer)
