"""The `x-ratelimit-*` headers, in OpenAI's formats."""

from __future__ import annotations

import math

from serve_app.errors import Headers
from serve_app.limits.bucket import MINUTE_S


def limit_headers(what: str, limit: int, left: float) -> Headers:
    """Return limit, remaining and time until nothing is used, of `requests` or `tokens`."""
    left = min(max(left, 0.0), limit)
    reset_s = (limit - left) * MINUTE_S / limit
    return (
        (f"x-ratelimit-limit-{what}", str(limit)),
        (f"x-ratelimit-remaining-{what}", str(int(left))),
        (f"x-ratelimit-reset-{what}", duration(reset_s)),
    )


def duration(seconds: float) -> str:
    """Return a duration as OpenAI writes it: ``20ms``, ``1s``, ``6m0s``, ``1h0m0s``; rounded up."""
    if seconds < 1:
        return f"{math.ceil(round(seconds * 1000, 3))}ms"
    minutes, rest = divmod(math.ceil(round(seconds, 3)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
