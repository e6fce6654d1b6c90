"""The peers that come from PyPI: each at a pinned version, in a virtual environment of its own, made on first use."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

FOLDER = Path(__file__).resolve().parent / ".peers"
REQUIRES = "import importlib.metadata, json, sys; json.dump(importlib.metadata.requires(sys.argv[1]) or [], sys.stdout)"


class PeerError(RuntimeError):
    """A peer could not be installed."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A program of another project and the package that brings it."""

    program: str
    package: str  # pinned; `installed.txt` in the environment says which versions of the rest a run had
    loose: tuple[str, ...] = ()  # its requirements that are taken at any version


PEERS = {
    "vllm-router": Peer(program="vllm-router", package="vllm-router==0.1.17"),
    # Mirrors of PyPI get these two later than it asks for them. Plain HTTP reads no list of certificate authorities, and a
    # proxy without a database makes no migrations: neither is on the path that we measure.
    "litellm": Peer(program="litellm", package="litellm[proxy]==1.109.1", loose=("certifi", "litellm-proxy-extras")),
}


def program(name: str, *, folder: Path = FOLDER) -> Path:
    """Return the peer's program, after making its environment if need be. Raises PeerError when that fails."""
    peer, home = PEERS[name], folder / name
    found, record = home / "bin" / peer.program, home / "installed.txt"
    if found.exists() and record.exists() and record.read_text().startswith(f"# {peer.package}\n"):
        return found
    sys.stderr.write(f"making {home} with {peer.package} (once; minutes on a slow machine)\n")
    _make(home, peer)
    if not found.exists():
        raise PeerError(f"{peer.package} is installed in {home}, but brought no program named {peer.program}")
    # Written last: an environment that was cut short has no record and is made again.
    record.write_text(f"# {peer.package}\n{_python(home, '-m', 'pip', 'freeze')}")
    return found


def _make(home: Path, peer: Peer) -> None:
    shutil.rmtree(home, ignore_errors=True)
    home.parent.mkdir(parents=True, exist_ok=True)
    made = subprocess.run([sys.executable, "-m", "venv", str(home)], check=False)  # noqa: S603
    if made.returncode:
        raise PeerError(f"python -m venv {home} failed; on Debian and Ubuntu it needs the package python3-venv")
    if not peer.loose:
        _install(home, peer.package)
        return
    # pip cannot override one requirement of a package: the package goes in alone, and what it asks for after it.
    _install(home, "--no-deps", peer.package)
    wanted = Requirement(peer.package)
    asked = json.loads(_python(home, "-c", REQUIRES, wanted.name))
    _install(home, *_without_bounds(asked, extras=wanted.extras, loose=peer.loose))


def _without_bounds(asked: list[str], *, extras: set[str], loose: tuple[str, ...]) -> list[str]:
    """Return the requirements that hold here with these extras; those named in ``loose`` without their versions."""
    found: set[str] = set()
    for requirement in map(Requirement, asked):
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            continue
        requirement.marker = None
        found.add(requirement.name if requirement.name in loose else str(requirement))
    return sorted(found)


def _install(home: Path, *arguments: str) -> None:
    # pip's progress is for the terminal: our own standard output may be read by a program.
    command = [str(home / "bin" / "python"), "-m", "pip", "install", "--progress-bar=off", *arguments]
    if subprocess.run(command, check=False, stdout=sys.stderr).returncode:  # noqa: S603
        raise PeerError(f"failed, see above (it needs PyPI, or a folder of wheels in PIP_FIND_LINKS): {' '.join(command)}")


def _python(home: Path, *arguments: str) -> str:
    command = [str(home / "bin" / "python"), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603


def main(names: list[str]) -> int:
    """Make the environments of the named peers, or of all."""
    for name in names or PEERS:
        sys.stdout.write(f"{name}: {program(name)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
