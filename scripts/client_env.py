"""Makes `.clients`, the environment of clients that ask for other versions than vLLM does: `python -m scripts.client_env`."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".clients"
REQUIREMENTS = ROOT / "tests/e2e/clients/requirements.txt"


Run = Callable[[list[str]], int]


def run_here(command: list[str]) -> int:
    """Run a command in this terminal, and return its exit code."""
    return subprocess.run(command, check=False).returncode


def main(home: Path = HOME, requirements: Path = REQUIREMENTS, *, run: Run = run_here) -> int:
    """Make the environment unless it is there and made of these requirements."""
    stamp, wanted = home / ".made-of", f"{sys.version}\n{requirements.read_text(encoding='utf-8')}"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return 0
    started_s = time.monotonic()
    print(f"{home.name}: LangChain, LlamaIndex and LiteLLM; once, it takes minutes", flush=True)
    shutil.rmtree(home, ignore_errors=True)
    pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    for command in (
        [sys.executable, "-m", "venv", str(home)],
        [*pip, "install", "--progress-bar=off", "--requirement", str(requirements)],
    ):
        if code := run(command):
            print(f"{home.name}: `{' '.join(command)}` failed, see above; the same command starts over", file=sys.stderr)
            return code
    # Written last: an environment that was cut short has none and is made again.
    stamp.write_text(wanted, encoding="utf-8")
    print(f"{home.name}: made in {time.monotonic() - started_s:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
