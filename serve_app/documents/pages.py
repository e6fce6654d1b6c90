"""Pages of a list: OpenAI's `limit`, `order`, `after` and `before`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from serve_app.documents.records import FileStatus, id_order
from serve_app.errors import BadRequest

DEFAULT_LIMIT = 20
MAX_LIMIT = 100


class Listed(Protocol):
    """What has an identifier."""

    @property
    def id(self) -> str:
        """The identifier, which begins with a time."""
        ...


Item = TypeVar("Item", bound=Listed)


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is wanted."""

    limit: int = DEFAULT_LIMIT
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None
    before: str | None = None
    status: FileStatus | None = None  # of files in a vector store: only those that stand there


def parse_page(query: Mapping[str, str], *, most: int = MAX_LIMIT, default: int = DEFAULT_LIMIT) -> Page:
    """Return the page that a query string asks for. Raises BadRequest."""
    limit = query.get("limit", str(default))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= most):
        raise BadRequest(f"limit must be a whole number between 1 and {most}", param="limit")
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise BadRequest("order must be asc or desc", param="order")
    for param in ("after", "before"):
        if param in query:
            id_order(query[param])
    return Page(
        limit=int(limit),
        order="asc" if order == "asc" else "desc",
        after=query.get("after"),
        before=query.get("before"),
        status=_status(query.get("filter")),
    )


def _status(value: str | None) -> FileStatus | None:
    try:
        return None if value is None else FileStatus(value)
    except ValueError as err:
        raise BadRequest(f"filter must be one of {', '.join(FileStatus)}", param="filter") from err


def cut(items: Iterable[Item], page: Page, show: Callable[[Item], dict[str, Any]]) -> dict[str, Any]:
    """Return a page as OpenAI's list; what it starts after may have been deleted meanwhile."""
    found = sorted(items, key=lambda item: id_order(item.id), reverse=page.order == "desc")
    if page.after is not None:
        found = [item for item in found if _is_later(item.id, page.after, page.order)]
    if page.before is not None:
        found = [item for item in found if _is_later(page.before, item.id, page.order)]
    # Without `after` a page that ends before something is the one just before it.
    is_from_the_end = page.before is not None and page.after is None
    shown = found[-page.limit :] if is_from_the_end else found[: page.limit]
    data = [show(item) for item in shown]
    return {
        "object": "list",
        "data": data,
        "first_id": shown[0].id if shown else None,
        "last_id": shown[-1].id if shown else None,
        "has_more": len(found) > len(shown),
    }


def _is_later(left: str, right: str, order: Literal["asc", "desc"]) -> bool:
    return id_order(left) > id_order(right) if order == "asc" else id_order(left) < id_order(right)
