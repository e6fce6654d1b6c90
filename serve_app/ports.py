"""Ports: those that processes of this machine are to listen on later, chosen so that no two want the same."""

from __future__ import annotations

import contextlib
import errno
import random
import socket

PORTS = range(12_000, 30_000)

_random = random.SystemRandom()
_promised: set[int] = set()  # to something that binds them later: 20 ports of every start, of 18,000, do meet


def promise(port: int) -> None:
    """Have `free_ports` give a port to nobody."""
    _promised.add(port)


def free_ports(count: int) -> list[int]:
    """Return distinct TCP ports that were free a moment ago, none of which this process got or asked for before.

    They lie below Linux's ephemeral range (32768-60999), or an outgoing connection could take one before it is used.

    Raises:
        OSError: there are not so many.
    """
    found: list[int] = []
    rest = sorted({*PORTS} - _promised)
    while len(found) < count and rest:
        port = rest.pop(_random.randrange(len(rest)))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            found.append(port)
    if len(found) < count:
        raise OSError(errno.EADDRINUSE, f"fewer than {count} TCP ports from {PORTS[0]} to {PORTS[-1]} are free")
    _promised.update(found)
    return found
