"""Request ids: a client's own where it is harmless, else a new one."""

from __future__ import annotations

import re
import uuid

REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


def request_id_for(offered: str | None) -> str:
    """Return the client's id, or a new one: it goes into logs and headers, so only harmless ones are kept."""
    # Serve gives every request one and puts it on the answer.
    return offered if offered is not None and REQUEST_ID.fullmatch(offered) else uuid.uuid4().hex
