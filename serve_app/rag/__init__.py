"""RAG pipelines, called as if they were models."""

from serve_app.rag.chain import ask

__all__ = ["ask"]
