"""What no answer to a client may hold: where the platform runs, and what it is made of."""

from __future__ import annotations

import re
from collections.abc import Iterable

_LEAKS = re.compile(
    r"""
    Traceback | File\s" | \bline\s\d+,\sin\b                        # stack traces
    | site-packages | \w\.py\b | (?<![\w/])/(?:app|etc|home|opt|proc|root|tmp|usr|var|work)/  # paths
    | \b\d{1,3}(?:\.\d{1,3}){3}\b | \[[0-9a-f]*::[0-9a-f:]*\] | \blocalhost\b | :\d{4,5}\b  # addresses
    | \b(?:serve_app|deployments|ray|vllm|uvicorn|starlette|haproxy|httptools|asyncio|pydantic|cygrpc)\b  # modules
    | <class\s | \bobject\sat\s | \b0x[0-9a-f]{6,} | \b_\w+\(       # what Python calls things
    """,
    re.VERBOSE | re.IGNORECASE,
)
# Serve's own words for an application that it does not find; they are the same everywhere.
_ALLOWED = re.compile(r"Ping /ray\.serve\.RayServeAPIService/ListApplications for available applications\.")
# Uvicorn puts its name there, beneath everything that Serve lets us change.
_UNCHECKED = frozenset({"server", "date", "content-length"})


def leaks_in(text: str) -> list[str]:
    """Return what should not stand in an answer."""
    return [found.group() for found in _LEAKS.finditer(_ALLOWED.sub("", text))]


def told(headers: Iterable[tuple[str, str]], body: str) -> str:
    """Return everything of an HTTP answer that is checked."""
    lines = [f"{name}: {value}" for name, value in headers if name.lower() not in _UNCHECKED]
    return "\n".join([*lines, body])
