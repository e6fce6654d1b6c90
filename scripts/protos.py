"""Generates the Python modules of the gRPC interface: by `make proto`, and by hatchling as it builds the package."""

from __future__ import annotations

import importlib.resources
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from grpc_tools import protoc
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROTOS = Path("serve_app/protos")
PACKAGE = "serve_app.protos"
# protoc imports by the .proto files' own paths, which start at their root; ours is no top-level package of Python.
_IMPORT = re.compile(r"^(from|import) manta\.", re.MULTILINE)


class ProtoHook(BuildHookInterface[Any]):
    """Hatchling's build hook, also for editable installs."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002  (hatchling's signature)
        """Write what is missing or stale before files are collected."""
        write(Path(self.root))


def generated(root: Path) -> dict[Path, str]:
    """Return every generated file, by its path below the repository. Raises RuntimeError when protoc refuses a file."""
    source = root / PROTOS
    files = [path.relative_to(source).as_posix() for path in sorted(source.rglob("*.proto"))]
    well_known = str(importlib.resources.files("grpc_tools") / "_proto")
    with tempfile.TemporaryDirectory() as folder:
        outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
        if protoc.main(["protoc", f"-I{source}", f"-I{well_known}", *outputs, *files]) != 0:
            raise RuntimeError("protoc refused the files; it says why above")
        made = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return {
            PROTOS / path.relative_to(folder): imported(path.read_text(encoding="utf-8")) for path in made if is_wanted(path)
        }


def is_wanted(path: Path) -> bool:
    """Whether a file holds anything: modules of services are made for files without one too."""
    return not path.name.endswith("_pb2_grpc.py") or "class " in path.read_text(encoding="utf-8")


def imported(text: str) -> str:
    """Return a module that imports its neighbours from where they are."""
    return _IMPORT.sub(rf"\1 {PACKAGE}.manta.", text)


def write(root: Path) -> list[Path]:
    """Write the files that differ and return them."""
    stale = {path: text for path, text in generated(root).items() if not is_current(root / path, text)}
    for path, text in stale.items():
        (root / path).write_text(text, encoding="utf-8")
    return list(stale)


def is_current(path: Path, text: str) -> bool:
    """Whether a file holds this text."""
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    for path in write(Path(__file__).resolve().parent.parent):
        sys.stdout.write(f"wrote {path}\n")
