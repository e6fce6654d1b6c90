"""What holds for everything the chart renders, whatever the values."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import kubernetes_validate
import pytest
from helm_python import Config, lint

from tests.chart import crd_schema, kuberay_rules, pod_security
from tests.chart.helm import CHART, CI_FILES, NAMESPACE, RELEASE, Json, chart, ci_values, files, objects, of_kind, pod_templates

pytestmark = pytest.mark.chart

OLDEST, NEWEST = "1.29", kubernetes_validate.latest_version()
VALUES: dict[str, Json] = {"defaults": {}, **{file.name.removesuffix("-values.yaml"): ci_values(file) for file in CI_FILES}}
GOLDEN = Path(__file__).parent / "golden" / "default.yaml"
each_values = pytest.mark.parametrize("name", VALUES)


@functools.cache
def rendered(name: str) -> list[Json]:
    return objects(VALUES[name])


def test_there_is_a_file_for_every_use() -> None:
    assert set(VALUES) - {"defaults"} == {
        "minimal-cpu",
        "gpu-single",
        "multi-model",
        "tp-pp-multi-host",
        "rag-full",
        "canary",
        "ha",
        "locked-down",
        "keys-and-limits",
        "kueue",
    }


@each_values
@pytest.mark.parametrize("kube_version", [f"v{OLDEST}.0", f"v{NEWEST}.0"])
def test_lint_finds_nothing(name: str, kube_version: str) -> None:
    report = lint(CHART, VALUES[name], strict=True, namespace=NAMESPACE, kube_version=kube_version)
    found = [message for message in report["messages"] if message["severity"] >= 2]
    assert (found, report.get("errors") or []) == ([], [])


@each_values
def test_an_installation_is_planned_without_an_error(name: str) -> None:
    release = Config(storage_driver="memory").install(chart(), RELEASE, VALUES[name], namespace=NAMESPACE, dry_run="client")
    assert "kind: RayService" in str(release)


@each_values
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_knows_every_field(name: str, version: str) -> None:
    known = [each for each in rendered(name) if (each["apiVersion"], each["kind"]) not in crd_schema.schemas()]
    for each in known:
        kubernetes_validate.validate(each, version, strict=True)
    assert len(known) >= 2


@each_values
def test_custom_resources_fit_their_definitions(name: str) -> None:
    custom = [each for each in rendered(name) if (each["apiVersion"], each["kind"]) in crd_schema.schemas()]
    assert {each["kind"]: crd_schema.problems(each) for each in custom} == {each["kind"]: [] for each in custom}
    assert "RayService" in {each["kind"] for each in custom}


@each_values
def test_pods_fit_what_kubernetes_knows(name: str) -> None:
    for group, template in pod_templates(VALUES[name]).items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": group, **template["metadata"]}, "spec": template["spec"]}
        for version in (OLDEST, NEWEST):
            kubernetes_validate.validate(pod, version, strict=True)


@each_values
def test_the_operator_accepts_the_service(name: str) -> None:
    (service,) = of_kind("RayService", VALUES[name])
    assert kuberay_rules.violations(service) == []


@each_values
def test_every_pod_is_restricted(name: str) -> None:
    specs = {group: template["spec"] for group, template in pod_templates(VALUES[name]).items()}
    specs |= {pod["metadata"]["name"]: pod["spec"] for pod in of_kind("Pod", VALUES[name])}
    specs |= {each["metadata"]["name"]: each["spec"]["template"]["spec"] for each in of_kind("StatefulSet", VALUES[name])}
    assert {each: pod_security.violations(spec) for each, spec in specs.items()} == {each: [] for each in specs}
    for cluster in (service["spec"]["rayClusterConfig"] for service in of_kind("RayService", VALUES[name])):
        options = cluster.get("autoscalerOptions")
        if options is not None:
            container = {"name": "autoscaler", "securityContext": options["securityContext"]}
            assert pod_security.violations({"containers": [container]}) == []


@each_values
def test_objects_have_names_of_their_own(name: str) -> None:
    keys = [(each["kind"], each["metadata"]["name"]) for each in rendered(name)]
    assert len(set(keys)) == len(keys)
    assert [name for _, name in keys if len(name) > 63] == []


@each_values
def test_a_render_is_reproducible(name: str) -> None:
    again = chart().render(VALUES[name], name=RELEASE, namespace=NAMESPACE)
    assert again == chart().render(VALUES[name], name=RELEASE, namespace=NAMESPACE)


def test_nothing_in_the_templates_is_random_or_asks_the_cluster() -> None:
    text = "\n".join(template["data"] for template in chart().templates)
    for word in ("lookup", "randAlpha", "randNumeric", "randBytes", "genCA", "genSelfSignedCert", "uuidv4", "now | "):
        assert word not in text, word


def test_templates_stay_short() -> None:
    lines = {t["name"]: len(t["data"].splitlines()) for t in chart().templates if not Path(t["name"]).name.startswith("_")}
    assert {name: count for name, count in lines.items() if count > 60} == {}


def default_text() -> str:
    shown = {path: text for path, text in files().items() if not path.endswith("scripts-configmap.yaml")}
    return "".join(f"# {path}\n{text.strip()}\n\n" for path, text in sorted(shown.items()))


def test_the_default_render_is_as_it_was_read() -> None:
    if os.environ.get("MANTA_REWRITE_GOLDEN"):
        GOLDEN.write_text(default_text(), encoding="utf-8")
    assert default_text() == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("release", ["a" * 53, "manta", "x-manta-y"])
def test_names_are_short_enough_for_what_kuberay_adds(release: str) -> None:
    service = next(each for each in objects(name=release) if each["kind"] == "RayService")
    assert len(service["metadata"]["name"]) <= 47
    assert kuberay_rules.violations(service) == []
