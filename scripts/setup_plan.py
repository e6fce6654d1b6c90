"""What the set-up decides: which Python, what to do with an existing environment, where torch comes from, what is missing.

Standard library only; parses on Python 3.8 (see setup_env.py).
"""

from __future__ import annotations

import csv
import dataclasses
import enum
import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

DEVICES = ("cpu", "gpu")
SUPPORTED = ((3, 11), (3, 12))
PYTHON_NAMES = ("python3.12", "python3.11", "python3", "python")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# The installed environment plus what pip downloads and caches, rounded up.
ENVIRONMENT_MB = {"cpu": 7_000, "gpu": 16_000}
LEAST_FREE_MB = 1_000


class SetupError(Exception):
    """One sentence for the person at the terminal: what is wrong and what fixes it."""


class Action(enum.Enum):
    READY = "nothing to do"
    CREATE = "a new environment"
    UPDATE = "the requirements changed"
    REPAIR = "an earlier set-up did not finish"
    REBUILD = "the environment is for another device or Python, or its Python is gone"


@dataclasses.dataclass(frozen=True)
class Interpreter:
    path: str
    version: tuple[int, ...]
    has_venv: bool

    def is_suitable(self) -> bool:
        return self.has_venv and self.version in SUPPORTED


@dataclasses.dataclass(frozen=True)
class Venv:
    exists: bool
    is_runnable: bool
    python: str | None


@dataclasses.dataclass(frozen=True)
class Wanted:
    key: str
    device: str
    extras: frozenset[str]


@dataclasses.dataclass(frozen=True)
class Stamp:
    key: str
    device: str
    extras: frozenset[str]
    is_complete: bool

    def completed(self) -> Stamp:
        return dataclasses.replace(self, is_complete=True)


@dataclasses.dataclass(frozen=True)
class TorchSource:
    name: str
    pip_options: tuple[str, ...]


TORCH_SOURCES = (
    TorchSource("pip's configured sources", ()),
    TorchSource(CPU_INDEX, ("--extra-index-url", CPU_INDEX)),
)


def check_platform(system: str, machine: str) -> None:
    if system != "Linux" or machine.lower() not in ("x86_64", "amd64", "aarch64", "arm64"):
        raise SetupError(
            f"{system} on {machine} is not supported: vLLM has wheels for Linux on x86-64 and arm64 only. "
            "Use such a machine, or a Linux container or VM on this one."
        )


def choose_python(candidates: Sequence[Interpreter]) -> Interpreter:
    """Return the first suitable interpreter; the first candidate is the one that runs us."""
    for candidate in candidates:
        if candidate.is_suitable():
            return candidate
    first = candidates[0]
    version = ".".join(map(str, first.version))
    if first.version in SUPPORTED:
        raise SetupError(
            f"Python {version} at {first.path} lacks its venv module: install it "
            f"(Debian, Ubuntu: sudo apt-get install python{version}-venv) and run the same command again."
        )
    raise SetupError(
        f"Manta needs Python 3.11 or 3.12, and {first.path} is {version}: install one "
        "(Debian, Ubuntu: sudo apt-get install python3.12-venv) or name one: make run PYTHON=/path/to/python3.12"
    )


def venv_version(pyvenv_cfg: str) -> str | None:
    """Return `3.11` for a pyvenv.cfg of any 3.11."""
    match = re.search(r"^version(?:_info)?\s*=\s*(\d+\.\d+)", pyvenv_cfg, re.MULTILINE)
    return match.group(1) if match else None


def stamp_key(root: Path, device: str, python: str | None) -> str:
    """Return a digest that changes whenever the environment has to."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", f"constraints/{device}.txt"):
        path = root / name
        digest.update(path.read_bytes() if path.is_file() else b"none")
    digest.update(f"{device} {python}".encode())
    return digest.hexdigest()


def choose_device(asked: str | None, stamp: Stamp | None) -> str:
    """Return the device to set up for: one that nobody named stays what it was."""
    return asked or (stamp.device if stamp is not None else DEVICES[0])


def decide(venv: Venv, stamp: Stamp | None, wanted: Wanted) -> Action:
    if not venv.exists:
        return Action.CREATE
    if not venv.is_runnable or venv.python not in [".".join(map(str, version)) for version in SUPPORTED]:
        return Action.REBUILD
    if stamp is not None and stamp.device != wanted.device:
        return Action.REBUILD
    if stamp is None or not stamp.is_complete:
        return Action.REPAIR
    is_current = stamp.key == wanted.key and wanted.extras <= stamp.extras
    return Action.READY if is_current else Action.UPDATE


def read_stamp(path: Path) -> Stamp | None:
    """Return what the last set-up left, or None when it is absent or unreadable."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return Stamp(fields["key"], fields["device"], frozenset(fields["extras"]), fields["is_complete"] is True)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_stamp(path: Path, stamp: Stamp) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps({**dataclasses.asdict(stamp), "extras": sorted(stamp.extras)}), encoding="utf-8")
    draft.replace(path)


def needed_mb(device: str, present_mb: int) -> int:
    return max(LEAST_FREE_MB, ENVIRONMENT_MB[device] - present_mb)


def check_disk(free_mb: int, required_mb: int, folder: Path) -> None:
    if free_mb < required_mb:
        raise SetupError(
            f"{free_mb / 1000:.1f} GB free under {folder}, and the environment needs {required_mb / 1000:.1f} GB more: "
            "free some space or move the clone to a larger disk."
        )


def check_library(library: str, is_loadable: Callable[[str], bool]) -> None:
    if not is_loadable(library):
        raise SetupError(
            f"{library} is missing, and vLLM's CPU build loads it: sudo apt-get install libnuma1 (Debian, Ubuntu) "
            "or sudo dnf install numactl-libs (Fedora, RHEL)."
        )


def requirements(pyproject: str, extras: Iterable[str]) -> list[str]:
    """Return what pip is asked for: base, the named extras and those they name, and the build backend."""
    import tomllib

    document = tomllib.loads(pyproject)
    project = document["project"]
    wanted = [*project["dependencies"], *document["build-system"]["requires"]]
    queue = sorted(extras)
    while queue:
        for requirement in project["optional-dependencies"][queue.pop(0)]:
            own = re.fullmatch(re.escape(project["name"]) + r"\[([\w,\s-]+)\]", requirement)
            if own:
                queue += re.split(r"\s*,\s*", own.group(1).strip())
            else:
                wanted.append(requirement)
    return list(dict.fromkeys(wanted))


def constraint_args(root: Path, device: str) -> list[str]:
    path = root / "constraints" / f"{device}.txt"
    return ["--constraint", str(path)] if path.is_file() else []


def cpu_torch(wanted: Iterable[str]) -> str:
    """Return the CPU build of the torch version that pyproject.toml pins, e.g. `torch==2.13.0+cpu`."""
    return next(line for line in wanted if line.startswith("torch==")) + "+cpu"


def choose_torch_source(requirement: str, is_offered: Callable[[tuple[str, ...]], bool]) -> TorchSource:
    """Return where pip finds a CPU torch. PyPI's own Linux build is for CUDA and many GB larger, so it never counts."""
    for source in TORCH_SOURCES:
        if is_offered(source.pip_options):
            return source
    raise SetupError(
        f"no {requirement} for this Python in {' or at '.join(source.name for source in TORCH_SOURCES)}: check the network "
        "or the proxy, or point PIP_FIND_LINKS at a folder that holds the wheel."
    )


def check_torch_build(device: str, built_for: str, errors: str) -> None:
    if not built_for:
        last_line = (errors.strip().splitlines() or ["no output"])[-1]
        raise SetupError(f"torch is installed and does not load ({last_line}): remove .venv and run the same command again.")
    if (built_for == "cpu") != (device == "cpu"):
        raise SetupError(
            f"torch was built for {built_for}, and the device is {device}: pip's configured sources prefer another build. "
            "Remove .venv, correct PIP_FIND_LINKS, PIP_INDEX_URL or PIP_EXTRA_INDEX_URL, and run the same command again."
        )


def distribution_names(site_packages: Path) -> list[str]:
    folders = sorted(site_packages.glob("*.dist-info"))
    return [re.sub(r"[-_.]+", "-", folder.name.split("-")[0]).lower() for folder in folders]


def damaged_distributions(site_packages: Path) -> list[Path]:
    """Return the metadata folders of packages with a missing or cut file; without the folder pip installs them anew."""
    return [folder for folder in sorted(site_packages.glob("*.dist-info")) if not is_intact(site_packages, folder)]


def is_intact(site_packages: Path, dist_info: Path) -> bool:
    record = dist_info / "RECORD"
    if not record.is_file():
        return False
    with record.open(encoding="utf-8", newline="") as rows:
        files = [(row[0], row[2]) for row in csv.reader(rows) if len(row) == 3 and row[2]]
    # Python rewrites its bytecode, so that is not ours to compare.
    return all(is_as_recorded(site_packages / name, size) for name, size in files if "__pycache__" not in name)


def is_as_recorded(path: Path, size_bytes: str) -> bool:
    try:
        return path.stat().st_size == int(size_bytes)
    except (OSError, ValueError):
        return False
