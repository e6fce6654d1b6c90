"""WireForm: what the chain needs to know of an endpoint's requests and answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from serve_app.rag.turns import Asked

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that no model gave."""

    text: str
    model: str  # under whose name it is given
    id: str
    created: int  # Unix seconds
    body: Mapping[str, Any]  # of the request


class WireForm(Protocol):
    """One endpoint. Documents of any shape are accepted: engines write them."""

    def read(self, body: Mapping[str, Any]) -> Asked:
        """Return the request's question. Raises BadRequest when it has none."""
        ...

    def text(self, answer: Document) -> str:
        """Return what a whole answer says."""
        ...

    def said(self, event: Document) -> str:
        """Return what a stream's event adds to the answer."""
        ...

    def named(self, event: Document) -> Document | None:
        """Return the object in an event that names the model."""
        ...

    def ending(self, event: Document) -> Document | None:
        """Return the object that gets the citations, in the event that ends the answer."""
        ...

    def refusal(self, refusal: Refusal) -> Document:
        """Return a whole answer."""
        ...

    def refusal_events(self, refusal: Refusal) -> Iterator[bytes]:
        """Yield the answer as events."""
        ...


def objects(value: object) -> list[Document]:
    """Return the objects in a list; of anything else nothing."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def joined(parts: Sequence[object]) -> str:
    """Return the texts among the parts, one after the other."""
    return "".join(part for part in parts if isinstance(part, str))
