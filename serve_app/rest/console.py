"""GET /console: a page for operators. It is open and holds no figure: it asks the API for them, with its reader's key."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from importlib.resources import files
from types import MappingProxyType

from serve_app.errors import UnknownRoute, quoted
from serve_app.rest.answer import Answer
from serve_app.rest.operation import NOTHING, Operation
from serve_app.rest.request import Request
from serve_app.rest.routing import Route

PAGE, PARTS = "/console", "/console/{file}"
TYPES = MappingProxyType({"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"})
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Not stored, so that the parts are always of the Router that answers: a page of two versions would break.
HEADERS = (
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
)
_NO_KEYS, _HAS_KEYS = b'data-keys="off"', b'data-keys="on"'
CONSOLE = Operation("A page that shows the platform and tries its models", "operations", answers={"text/html": NOTHING})
MOVED = Operation(
    "The way to that page, for who asks with a slash at the end", "operations", answers={"text/html": NOTHING}, status=308
)
PART = Operation(
    "A script, a style sheet or a picture of that page",
    "operations",
    answers=dict.fromkeys(TYPES.values(), NOTHING),
    errors=(404,),
)


class ConsoleRoutes:
    """Handlers; ``has_keys`` says whether the page has to ask for a key."""

    def __init__(self, *, has_keys: Callable[[], bool]) -> None:
        self._has_keys = has_keys

    def routes(self) -> Iterator[Route]:
        """Yield the routes."""
        yield Route("GET", PAGE, self._page, is_open=True, operation=CONSOLE)
        yield Route("GET", f"{PAGE}/", self._moved, is_open=True, operation=MOVED)
        yield Route("GET", PARTS, self._part, is_open=True, operation=PART)

    async def _page(self, _: Request, answer: Answer) -> None:
        page = console_page()
        if self._has_keys():
            page = page.replace(_NO_KEYS, _HAS_KEYS)
        await answer.bytes(page, content_type="text/html; charset=utf-8", headers=HEADERS)

    async def _moved(self, _: Request, answer: Answer) -> None:
        # Relative, as the page's own addresses are: a gateway may have taken a prefix off the path.
        await answer.bytes(
            b"", content_type="text/html; charset=utf-8", status=308, headers=(*HEADERS, ("location", "../console"))
        )

    async def _part(self, request: Request, answer: Answer) -> None:
        name = request.params["file"]
        if (found := console_parts().get(name)) is None:
            raise UnknownRoute(f"the console has no part {quoted(name)}")
        kind = TYPES[name.rpartition(".")[2]]
        await answer.bytes(found, content_type=f"{kind}; charset=utf-8", headers=HEADERS)


@functools.cache
def console_page() -> bytes:
    """Return the page, as it is where no keys are asked for."""
    return files("serve_app").joinpath("console", "index.html").read_bytes()


@functools.cache
def console_parts() -> dict[str, bytes]:
    """Return what the page is made of, by name: only what is here is ever served."""
    folder = files("serve_app").joinpath("console")
    return {part.name: part.read_bytes() for part in folder.iterdir() if part.name.rpartition(".")[2] in TYPES}
