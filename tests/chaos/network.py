"""Namespaces of this machine as a network of nodes that can be cut. Needs root, iproute2 and iptables (Linux)."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from types import TracebackType

TOOLS = {"ip": "iproute2", "iptables": "iptables", "redis-server": "redis-server"}  # and their Debian packages


def why_not_here() -> str:
    """Return what is missing for namespaces on this machine; empty where nothing is."""
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if missing:
        return f"needs {', '.join(missing)}: apt-get install {' '.join(missing)}"
    return "" if os.geteuid() == 0 else "needs root, for network namespaces"


class Network:
    """A bridge, and a namespace with an address of its own for each node. Use as a context manager.

    Attributes:
        gateway: this machine's own address on the bridge.
    """

    def __init__(self) -> None:
        number = random.SystemRandom().randrange(1, 250)
        self._mark = f"mc{number}"
        self._subnet = f"10.213.{number}"
        self.gateway = f"{self._subnet}.1"
        self._nodes: dict[str, str] = {}

    def __enter__(self) -> Network:
        bridge = f"{self._mark}b"
        run("ip", "link", "add", bridge, "type", "bridge")
        run("ip", "addr", "add", f"{self.gateway}/24", "dev", bridge)
        run("ip", "link", "set", bridge, "up")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for name in self._nodes:
            run("ip", "netns", "del", self._space(name), must_work=False)
        run("ip", "link", "del", f"{self._mark}b", must_work=False)

    def add(self, name: str) -> str:
        """Return the address of a new node."""
        space, outer = self._space(name), f"{self._mark}v{len(self._nodes)}"
        address = self._nodes[name] = f"{self._subnet}.{10 + len(self._nodes)}"
        run("ip", "netns", "add", space)
        run("ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", space)
        run("ip", "link", "set", outer, "master", f"{self._mark}b", "up")
        run("ip", "-n", space, "link", "set", "lo", "up")
        run("ip", "-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
        run("ip", "-n", space, "link", "set", "eth0", "up")
        run("ip", "-n", space, "route", "add", "default", "via", self.gateway)
        return address

    def inside(self, name: str) -> list[str]:
        """Return what goes before a command that is to run on a node."""
        return ["ip", "netns", "exec", self._space(name)]

    def cut(self, name: str) -> None:
        """Drop all that a node sends and is sent, without a word to either side."""
        for chain, way in (("INPUT", "-i"), ("OUTPUT", "-o")):
            run(*self.inside(name), "iptables", "-A", chain, way, "eth0", "-j", "DROP")

    def mend(self, name: str) -> None:
        """Let a node speak again."""
        run(*self.inside(name), "iptables", "-F")

    def _space(self, name: str) -> str:
        return f"{self._mark}{name}"


def run(*command: str, must_work: bool = True) -> None:
    """Run a command of the system's."""
    subprocess.run(command, check=must_work, capture_output=True)
