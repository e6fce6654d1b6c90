"""Makes `.venv` ready to run Manta: `python3 scripts/setup_env.py --device cpu --extra test`.

Standard library only, and every line parses on Python 3.8, so that an old interpreter answers with a sentence.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts import setup_plan as plan

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / ".manta-setup.json"
PIP_ASK = ("install", "--dry-run", "--no-deps", "--ignore-installed", "--quiet", "--retries", "2", "--timeout", "30")
# On PyPI these are CUDA builds: next to a CPU torch their import fails, and so do libraries that look for them.
CUDA_ONLY = ("torchvision", "torchaudio", "torchcodec")
STEPS = 5


def main() -> int:
    args = parse_args()
    try:
        plan.check_platform(platform.system(), platform.machine())
        with only_one_set_up():
            prepare(args.device, frozenset(args.extra))
    except plan.SetupError as err:
        print(f"set-up: {err}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up: interrupted; the same command continues where it stopped.", file=sys.stderr)
        return 130
    return 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Create or repair Manta's .venv.")
    parser.add_argument("--device", choices=plan.DEVICES, help="default: what .venv was made for, else cpu")
    parser.add_argument("--extra", action="append", default=[], choices=["test", "dev"])
    return parser.parse_args()


def prepare(asked_device: str | None, extras: frozenset[str]) -> None:
    """Leave a complete `.venv` behind, or raise SetupError with the fix."""
    venv = inspect_venv()
    stamp = plan.read_stamp(STAMP)
    device = plan.choose_device(asked_device, stamp)
    key = plan.stamp_key(ROOT, device, venv.python)
    action = plan.decide(venv, stamp, plan.Wanted(key, device, extras))
    if action is plan.Action.READY:
        return
    use_a_good_python()
    check_machine(device, action)
    if stamp is not None and action is not plan.Action.REBUILD:
        extras |= stamp.extras
    install(device, extras, action)


def install(device: str, extras: frozenset[str], action: plan.Action) -> None:
    started_s = time.monotonic()
    print(f"Set-up of .venv for {device}: {action.value}. The first time takes minutes and several GB.", flush=True)
    with step(1, f"Python environment ({platform.python_version()})"):
        make_venv(action)
        stamp = plan.Stamp(plan.stamp_key(ROOT, device, inspect_venv().python), device, extras, is_complete=False)
        plan.write_stamp(STAMP, stamp)
        requirements = plan.requirements((ROOT / "pyproject.toml").read_text(encoding="utf-8"), {device, *extras})
    constraints = plan.constraint_args(ROOT, device)
    with step(2, "torch (CPU)" if device == "cpu" else "torch (comes with vLLM)"):
        if device == "cpu":
            install_cpu_torch(requirements, constraints)
    with step(3, "vLLM, Ray Serve and the rest"):
        pip("install", *constraints, *requirements)
    with step(4, "leftovers"):
        remove_cuda_builds(device)
    with step(5, "manta"):
        pip("install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
        check_torch(device)
    plan.write_stamp(STAMP, stamp.completed())
    print(f"Set-up done in {time.monotonic() - started_s:.0f} s.", flush=True)


@contextlib.contextmanager
def step(number: int, title: str) -> Iterator[None]:
    print(f"[{number}/{STEPS}] {title} ...", flush=True)
    started_s = time.monotonic()
    yield
    print(f"[{number}/{STEPS}] {title}: {time.monotonic() - started_s:.0f} s", flush=True)


@contextlib.contextmanager
def only_one_set_up() -> Iterator[None]:
    """Hold a lock on the clone: two pips in one environment break it."""
    import fcntl

    with open(ROOT / ".venv.lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another set-up of this clone is running; waiting for it ...", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def inspect_venv() -> plan.Venv:
    try:
        config = (VENV / "pyvenv.cfg").read_text(encoding="utf-8")
    except OSError:
        return plan.Venv(exists=VENV.exists(), is_runnable=False, python=None)
    return plan.Venv(exists=True, is_runnable=os.access(venv_python(), os.X_OK), python=plan.venv_version(config))


def venv_python() -> str:
    return str(VENV / "bin" / "python")


def use_a_good_python() -> None:
    """Return when this interpreter will do; else start over in one that will, or raise SetupError."""
    has_venv = all(importlib.util.find_spec(name) is not None for name in ("venv", "ensurepip"))
    here = plan.Interpreter(sys.executable, sys.version_info[:2], has_venv)
    if here.is_suitable():
        return
    chosen = plan.choose_python([here, *other_interpreters()])
    os.execv(chosen.path, [chosen.path, *sys.argv])  # noqa: S606 - the path was probed one line above


def other_interpreters() -> list[plan.Interpreter]:
    probe = "import sys, venv, ensurepip; print(*sys.version_info[:2])"
    found = []
    for name in plan.PYTHON_NAMES:
        path = shutil.which(name)
        if path is None:
            continue
        answer = subprocess.run([path, "-c", probe], capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            major, minor = answer.stdout.split()
            found.append(plan.Interpreter(path, (int(major), int(minor)), has_venv=True))
    return found


def check_machine(device: str, action: plan.Action) -> None:
    present_mb = 0 if action in (plan.Action.CREATE, plan.Action.REBUILD) else size_mb(VENV)
    reclaimed_mb = size_mb(VENV) if action is plan.Action.REBUILD else 0
    plan.check_disk(shutil.disk_usage(ROOT).free // 2**20 + reclaimed_mb, plan.needed_mb(device, present_mb), ROOT)
    if device == "cpu":
        plan.check_library("libnuma.so.1", is_loadable=is_loadable)


def is_loadable(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def size_mb(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()) // 2**20


def make_venv(action: plan.Action) -> None:
    if action is plan.Action.REPAIR:
        repair_venv()
    elif action is not plan.Action.UPDATE:
        clear = ["--clear"] if action is plan.Action.REBUILD else []
        run([sys.executable, "-m", "venv", *clear, str(VENV)], "the environment could not be created")


def repair_venv() -> None:
    """Forget every package that is not whole, so that pip installs it again."""
    packages = site_packages()
    for damaged in [*plan.damaged_distributions(packages), *packages.glob("~*")]:
        print(f"  incomplete, will be installed again: {damaged.name}", flush=True)
        shutil.rmtree(damaged, ignore_errors=True)
    if "pip" not in plan.distribution_names(packages):
        run([venv_python(), "-m", "ensurepip"], "the environment has no pip: remove .venv and run the same command again")


def site_packages() -> Path:
    return next(iter(sorted((VENV / "lib").glob("python3.*/site-packages"))), VENV / "lib")


def install_cpu_torch(requirements: list[str], constraints: list[str]) -> None:
    wanted = plan.cpu_torch(requirements)
    if (site_packages() / f"{wanted.replace('==', '-')}.dist-info").is_dir():
        return
    source = plan.choose_torch_source(wanted, lambda options: is_offered(wanted, options))
    pip("install", *constraints, *source.pip_options, wanted)


def is_offered(requirement: str, pip_options: tuple[str, ...]) -> bool:
    command = [venv_python(), "-m", "pip", *PIP_ASK, *pip_options, requirement]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def remove_cuda_builds(device: str) -> None:
    if device != "cpu":
        return
    names = plan.distribution_names(site_packages())
    unwanted = [name for name in names if name in CUDA_ONLY or name.startswith("nvidia-")]
    if unwanted:
        pip("uninstall", "--quiet", "--yes", *unwanted)


def check_torch(device: str) -> None:
    script = "import torch; print(torch.version.cuda or torch.version.hip or 'cpu')"
    built_for = subprocess.run([venv_python(), "-c", script], capture_output=True, text=True, check=False)
    plan.check_torch_build(device, built_for.stdout.strip(), built_for.stderr)


def pip(*arguments: str) -> None:
    quiet = ["--quiet"] if os.environ.get("CI") and "--quiet" not in arguments else []
    command = [venv_python(), "-m", "pip", arguments[0], *quiet, *arguments[1:]]
    run(command, f"pip {arguments[0]} failed; its lines above say why. The same command continues from here")


def run(command: list[str], failure: str) -> None:
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_REQUIRE_VIRTUALENV": "0"}
    if subprocess.run(command, env=environment, check=False).returncode != 0:
        raise plan.SetupError(failure)


if __name__ == "__main__":
    sys.exit(main())
