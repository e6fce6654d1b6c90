from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from scripts import setup_plan as plan
from scripts.setup_plan import Action, Interpreter, Stamp, Venv, Wanted

ROOT = Path(__file__).resolve().parents[3]
GOOD_VENV = Venv(exists=True, is_runnable=True, python="3.11")
WANTED = Wanted("key", "cpu", frozenset({"test"}))
COMPLETE = Stamp("key", "cpu", frozenset({"test"}), is_complete=True)
PYPROJECT = """
[build-system]
requires = ["hatchling"]
[project]
name = "manta-serve"
dependencies = ["ray", "pydantic"]
[project.optional-dependencies]
cpu = ["torch==2.13.0"]
test = ["pytest"]
dev = ["manta-serve[test]", "ruff"]
all = ["manta-serve[cpu, test]"]
"""


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_linux_on_both_architectures_is_supported(machine: str) -> None:
    plan.check_platform("Linux", machine)


@pytest.mark.parametrize(("system", "machine"), [("Darwin", "arm64"), ("Windows", "AMD64"), ("Linux", "riscv64")])
def test_another_platform_is_refused_by_name(system: str, machine: str) -> None:
    with pytest.raises(plan.SetupError, match=f"{system} on {machine} is not supported"):
        plan.check_platform(system, machine)


def test_the_running_python_is_kept_when_it_will_do() -> None:
    here = Interpreter("/bin/here", (3, 11), has_venv=True)
    assert plan.choose_python([here, Interpreter("/bin/other", (3, 12), has_venv=True)]) is here


@pytest.mark.parametrize(
    "unfit",
    [
        pytest.param(Interpreter("/bin/here", (3, 8), has_venv=True), id="too-old"),
        pytest.param(Interpreter("/bin/here", (3, 13), has_venv=True), id="too-new"),
        pytest.param(Interpreter("/bin/here", (3, 12), has_venv=False), id="no-venv-module"),
    ],
)
def test_another_python_of_the_machine_is_used_instead(unfit: Interpreter) -> None:
    other = Interpreter("/bin/other", (3, 12), has_venv=True)
    assert plan.choose_python([unfit, other]) is other


def test_no_fitting_python_is_one_line_that_names_the_fix() -> None:
    with pytest.raises(plan.SetupError, match=r"^Manta needs Python 3\.11 or 3\.12, and /bin/here is 3\.8: .*PYTHON=[^\n]*$"):
        plan.choose_python([Interpreter("/bin/here", (3, 8), has_venv=True)])


def test_a_python_without_venv_is_one_line_that_names_the_package() -> None:
    with pytest.raises(plan.SetupError, match=r"lacks its venv module: .*python3\.12-venv[^\n]*$"):
        plan.choose_python([Interpreter("/bin/here", (3, 12), has_venv=False)])


@pytest.mark.parametrize(
    ("config", "version"),
    [
        pytest.param("home = /usr/bin\nversion = 3.12.1\n", "3.12", id="venv"),
        pytest.param("version_info = 3.11.7.final.0\n", "3.11", id="virtualenv"),
        pytest.param("home = /usr/bin\n", None, id="absent"),
    ],
)
def test_the_version_is_read_from_pyvenv_cfg(config: str, version: str | None) -> None:
    assert plan.venv_version(config) == version


@pytest.mark.parametrize(
    ("venv", "stamp", "action"),
    [
        pytest.param(Venv(exists=False, is_runnable=False, python=None), None, Action.CREATE, id="nothing-there"),
        pytest.param(GOOD_VENV, COMPLETE, Action.READY, id="complete"),
        pytest.param(GOOD_VENV, Stamp("key", "cpu", frozenset({"dev", "test"}), True), Action.READY, id="holds-more"),
        pytest.param(GOOD_VENV, Stamp("key", "cpu", frozenset(), True), Action.UPDATE, id="extra-missing"),
        pytest.param(GOOD_VENV, Stamp("old", "cpu", frozenset({"test"}), True), Action.UPDATE, id="requirements-changed"),
        pytest.param(GOOD_VENV, Stamp("key", "cpu", frozenset({"test"}), False), Action.REPAIR, id="interrupted"),
        pytest.param(GOOD_VENV, None, Action.REPAIR, id="unknown-origin"),
        pytest.param(GOOD_VENV, Stamp("key", "gpu", frozenset({"test"}), True), Action.REBUILD, id="other-device"),
        pytest.param(GOOD_VENV, Stamp("key", "gpu", frozenset(), False), Action.REBUILD, id="other-device-interrupted"),
        pytest.param(Venv(True, False, "3.11"), COMPLETE, Action.REBUILD, id="its-python-is-gone"),
        pytest.param(Venv(True, True, "3.13"), COMPLETE, Action.REBUILD, id="unsupported-python"),
        pytest.param(Venv(True, False, None), None, Action.REBUILD, id="half-made"),
    ],
)
def test_what_is_done_follows_from_what_is_there(venv: Venv, stamp: Stamp | None, action: Action) -> None:
    assert plan.decide(venv, stamp, WANTED) is action


@pytest.mark.parametrize(
    ("asked", "stamp", "device"),
    [
        pytest.param(None, None, "cpu", id="fresh"),
        pytest.param("gpu", None, "gpu", id="named"),
        pytest.param(None, Stamp("key", "gpu", frozenset(), True), "gpu", id="stays-what-it-was"),
        pytest.param("cpu", Stamp("key", "gpu", frozenset(), True), "cpu", id="changed"),
    ],
)
def test_the_device_is_what_was_asked_or_what_it_was(asked: str | None, stamp: Stamp | None, device: str) -> None:
    assert plan.choose_device(asked, stamp) == device


@pytest.mark.parametrize("changed", ["pyproject", "constraints", "device", "python"])
def test_the_key_changes_with_everything_that_shapes_the_environment(tmp_path: Path, changed: str) -> None:
    (tmp_path / "constraints").mkdir()
    (tmp_path / "pyproject.toml").write_text("a")
    (tmp_path / "constraints" / "cpu.txt").write_text("a")
    before = plan.stamp_key(tmp_path, "cpu", "3.11")
    if changed in ("pyproject", "constraints"):
        name = "pyproject.toml" if changed == "pyproject" else "constraints/cpu.txt"
        (tmp_path / name).write_text("b")
    after = plan.stamp_key(tmp_path, "gpu" if changed == "device" else "cpu", "3.12" if changed == "python" else "3.11")
    assert before != after


def test_a_stamp_reads_back_as_written(tmp_path: Path) -> None:
    plan.write_stamp(tmp_path / "stamp.json", COMPLETE)
    assert plan.read_stamp(tmp_path / "stamp.json") == COMPLETE


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"key": "k"}', '{"key": "k", "device": "cpu", "extras": 3, "is_complete": true}']
)
def test_an_unreadable_stamp_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "stamp.json").write_text(text)
    assert plan.read_stamp(tmp_path / "stamp.json") is None


def test_less_disk_is_needed_when_part_of_the_environment_is_there() -> None:
    assert [plan.needed_mb("cpu", present_mb) for present_mb in (0, 4_000, 9_000)] == [7_000, 3_000, 1_000]


def test_a_short_disk_is_refused_with_both_numbers() -> None:
    plan.check_disk(6_000, 6_000, Path("/clone"))
    with pytest.raises(plan.SetupError, match=r"5\.0 GB free under /clone, and the environment needs 6\.0 GB more"):
        plan.check_disk(5_000, 6_000, Path("/clone"))


def test_a_missing_system_library_is_named_with_its_package() -> None:
    plan.check_library("libnuma.so.1", lambda _: True)
    with pytest.raises(plan.SetupError, match=r"libnuma\.so\.1 is missing.*libnuma1"):
        plan.check_library("libnuma.so.1", lambda _: False)


def test_extras_that_name_extras_are_followed_once() -> None:
    assert plan.requirements(PYPROJECT, {"cpu", "dev", "test"}) == [
        "ray",
        "pydantic",
        "hatchling",
        "torch==2.13.0",
        "ruff",
        "pytest",
    ]


def test_an_extra_may_name_several() -> None:
    assert plan.requirements(PYPROJECT, {"all"}) == ["ray", "pydantic", "hatchling", "torch==2.13.0", "pytest"]


def test_pip_is_never_asked_for_the_project_itself() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    assert [each for each in plan.requirements(text, extras) if each.startswith("manta-serve")] == []


def test_the_projects_own_pyproject_pins_the_torch_that_the_cpu_build_is_made_from() -> None:
    wanted = plan.requirements((ROOT / "pyproject.toml").read_text(), {"cpu"})
    assert plan.cpu_torch(wanted) == "torch==2.13.0+cpu"


def test_configured_sources_come_before_the_public_cpu_index() -> None:
    assert plan.choose_torch_source("torch", lambda _: True).pip_options == ()


def test_the_public_cpu_index_is_used_when_the_configured_sources_have_no_cpu_build() -> None:
    assert plan.choose_torch_source("torch", lambda options: plan.CPU_INDEX in options).name == plan.CPU_INDEX


def test_no_source_for_torch_is_one_line_that_names_the_fix() -> None:
    with pytest.raises(plan.SetupError, match=r"^no torch==2\+cpu for this Python in .*PIP_FIND_LINKS[^\n]*$"):
        plan.choose_torch_source("torch==2+cpu", lambda _: False)


@pytest.mark.parametrize(("device", "built_for"), [("cpu", "cpu"), ("gpu", "13.0")])
def test_a_torch_for_the_device_passes(device: str, built_for: str) -> None:
    plan.check_torch_build(device, built_for, "")


@pytest.mark.parametrize(("device", "built_for"), [("cpu", "13.0"), ("gpu", "cpu")])
def test_a_torch_for_another_device_is_refused(device: str, built_for: str) -> None:
    with pytest.raises(plan.SetupError, match=f"torch was built for {built_for}, and the device is {device}"):
        plan.check_torch_build(device, built_for, "")


def test_a_torch_that_does_not_load_is_refused_with_its_last_line() -> None:
    with pytest.raises(plan.SetupError, match=r"does not load \(ImportError: libgomp\.so\.1\)"):
        plan.check_torch_build("cpu", "", "Traceback\nImportError: libgomp.so.1\n")


def install(site_packages: Path, name: str, *, content: str, recorded_bytes: int) -> Path:
    (site_packages / f"{name}.py").write_text(content)
    dist_info = site_packages / f"{name}-1.0.dist-info"
    dist_info.mkdir()
    rows = [f"{name}.py,sha256=x,{recorded_bytes}", f"__pycache__/{name}.pyc,sha256=x,9", f"{name}-1.0.dist-info/RECORD,,"]
    (dist_info / "RECORD").write_text("\n".join(rows))
    return dist_info


def test_a_cut_a_missing_and_an_unfinished_package_are_damaged(tmp_path: Path) -> None:
    install(tmp_path, "whole", content="four", recorded_bytes=4)
    cut = install(tmp_path, "cut", content="fo", recorded_bytes=4)
    missing = install(tmp_path, "missing", content="four", recorded_bytes=4)
    (tmp_path / "missing.py").unlink()
    unfinished = install(tmp_path, "unfinished", content="four", recorded_bytes=4)
    (unfinished / "RECORD").unlink()
    assert plan.damaged_distributions(tmp_path) == [cut, missing, unfinished]


def test_names_of_packages_are_normalised(tmp_path: Path) -> None:
    (tmp_path / "nvidia_cublas_cu12-12.8.dist-info").mkdir()
    (tmp_path / "TorchVision-0.28.dist-info").mkdir()
    assert plan.distribution_names(tmp_path) == ["torchvision", "nvidia-cublas-cu12"]
