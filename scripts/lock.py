"""Writes the versions of the running environment as pip constraints: `.venv/bin/python scripts/lock.py constraints/cpu.txt`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEADER = """\
# Versions that were installed and tested together, for DEVICE=cpu; the set-up passes this file to pip as constraints.
# Refresh: `make lock` (builds a fresh environment with the newest versions that pyproject.toml allows), then `make check`.
"""
# Installed for vLLM's metadata only and removed again (see setup_env.py), or ours.
LEFT_OUT = ("torchvision", "torchaudio", "torchcodec", "manta-serve", "manta_serve")

# For the resolver only: the torchvision that goes with the pinned torch, or pip downloads newer ones until it finds it.
ADDED = ("torchvision==0.28.0",)


def main() -> int:
    frozen = subprocess.run([sys.executable, "-m", "pip", "freeze"], capture_output=True, text=True, check=True)
    lines = constraints(frozen.stdout)
    Path(sys.argv[1]).write_text(HEADER + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    return 0


def constraints(freeze: str) -> list[str]:
    """Return `name==version` lines: no local versions (`+cpu`), no addresses, nothing editable."""
    lines = []
    for line in freeze.splitlines():
        name, _, version = line.partition("==")
        if version and not line.startswith("-") and name not in LEFT_OUT and "@" not in line:
            lines.append(f"{name}=={version.split('+')[0]}")
    return sorted([*lines, *ADDED], key=str.lower)


if __name__ == "__main__":
    sys.exit(main())
