"""`manta ask "..."`: one question, streamed, with its citations."""

from __future__ import annotations

from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape

from serve_app.commands.client import connect, get_json, stream_chat
from serve_app.errors import CommandError


def run(question: str, *, model: str | None, url: str) -> None:
    """Print the answer as it comes, then its citations. Raises CommandError."""
    with connect(url) as client:
        answer(client, model or default_model(client), question, console=Console())


def default_model(client: httpx.Client) -> str:
    """Return the first pipeline, or the first model when there is no pipeline. Raises CommandError."""
    cards = get_json(client, "/v1/models")["data"]
    for kind in ("pipeline", "model"):
        for card in cards:
            if card["kind"] == kind:
                return str(card["id"])
    raise CommandError("the platform serves no pipeline and no model")


def answer(client: httpx.Client, model: str, question: str, *, console: Console) -> list[dict[str, Any]]:
    """Stream one answer to the console and return its citations. Raises CommandError."""
    citations: list[dict[str, Any]] = []
    for chunk in stream_chat(client, model, question):
        for choice in chunk.get("choices", ()):
            console.out(choice.get("delta", {}).get("content") or "", end="", highlight=False)
        citations = chunk.get("citations", citations)
    console.print()
    for citation in citations:
        title = " > ".join([citation["title"], *citation["headings"][-1:]])
        place = f"{citation['document_id']}:{citation['start']}-{citation['end']}"
        console.print(f"  [dim]\\[{citation['number']}] {escape(title)} ({escape(place)})[/]", soft_wrap=True)
    return citations
