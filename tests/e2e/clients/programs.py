"""The clients' programs: where each runs, and the checks in it, read without running it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.clients.checks import Place

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[2]
CHECK = re.compile(r'^@check\("([^"]+)"\)$', re.MULTILINE)
TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Program:
    """A client's program."""

    client: str
    module: str
    environment: str = ".venv"  # folder with the client's packages
    variables: dict[str, str] = field(default_factory=dict)

    def checks(self) -> list[str]:
        """Return the names of its checks, in their order."""
        return CHECK.findall((FOLDER / f"{self.module}.py").read_text(encoding="utf-8"))

    def run(self, place: Place) -> dict[str, dict[str, Any]]:
        """Run its checks against a platform, and return their lines by name. Raises AssertionError: it did not end well."""
        python = ROOT / self.environment / "bin" / "python"
        assert python.exists(), f"{self.environment} is missing: make clients"
        done = subprocess.run(
            [str(python), "-m", f"tests.e2e.clients.{self.module}"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, **self.variables, **place.environment()},
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        return {line["check"]: line for line in lines}


OPENAI = ("openai_chat", "openai_endpoints", "openai_pipelines", "openai_vector_stores", "openai_errors")
PROGRAMS = (
    *(Program("openai", module) for module in OPENAI),
    Program("anthropic", "anthropic_sdk"),
    Program("grpcio", "grpc_stubs"),
    Program("grpcio", "grpc_errors"),
    Program("curl", "curl"),
    *(Program("openai-2", module, ".clients") for module in OPENAI),
    Program("langchain-openai", "langchain_sdk", ".clients"),
    Program("llama-index", "llama_index_sdk", ".clients"),
    # Without the variable it tries to fetch a list of prices first.
    Program("litellm", "litellm_sdk", ".clients", {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}),
)
