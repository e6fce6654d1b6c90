"""The load test of `loadTest`: a Job of Helm's hooks, what it is told, and that the platform knows nothing of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_python import HelmError

from loadtests.gates_config import Gates
from loadtests.scenario_file import bundled, load_gates, load_scenario
from tests.chart.helm import Json, objects, of_kind
from tests.chart.pod_security import violations

pytestmark = pytest.mark.chart

ON: Json = {"loadTest": {"enabled": True}}
SCENARIO: Json = {
    "load": {"mode": "open", "shape": {"kind": "constant", "level": 20}},
    "mix": [{"kind": "chat", "model": "chat"}],
    "duration": "30s",
}
NO_KEYS: Json = {"platform": {"auth": {"keys_file": None, "allow_anonymous": True}}}


def with_test(**more: Any) -> Json:
    return {"loadTest": {"enabled": True, **more}}


def job(values: Json) -> Json:
    (found,) = of_kind("Job", values)
    return found


def container(values: Json) -> Json:
    (found,) = job(values)["spec"]["template"]["spec"]["containers"]
    return dict(found)


def files_of(values: Json) -> dict[str, str]:
    named = job(values)["metadata"]["name"]
    (found,) = [each for each in of_kind("ConfigMap", values) if each["metadata"]["name"] == named]
    return dict(found["data"])


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_there_is_no_load_test_unless_it_is_asked_for() -> None:
    assert of_kind("Job") == []
    assert "load-test" not in str([each["metadata"]["name"] for each in objects()])


@pytest.mark.parametrize(
    ("hook", "annotation"), [("post-upgrade", "post-install,post-upgrade"), ("test", "test")], ids=["upgrade", "test"]
)
def test_the_job_is_a_hook_and_its_files_are_there_before_any_hook(hook: str, annotation: str) -> None:
    values = with_test(hook=hook)
    name = job(values)["metadata"]["name"]
    parts = [each for each in objects(values) if each["metadata"]["name"] == name]
    told = {each["kind"]: each["metadata"].get("annotations") for each in parts}
    wanted = {"helm.sh/hook": annotation, "helm.sh/hook-weight": "10", "helm.sh/hook-delete-policy": "before-hook-creation"}
    assert told == {"ConfigMap": None, "Job": wanted}


def test_it_runs_once_for_a_bounded_time_and_publishes() -> None:
    spec = job(ON)["spec"]
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"]) == (0, 1800)
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert container(ON)["command"] == ["manta", "loadtest"]
    assert container(ON)["args"] == [
        "smoke",
        "--url=http://demo-manta-serve-svc:8000",
        "--grpc=demo-manta-serve-svc:9000",
        "--gate=/load-test/gates.yaml",
        "--settle=60s",
        "--wait=900s",
        "--publish",
    ]
    assert container(ON)["args"][0] in bundled()


def test_its_pod_is_restricted_and_a_client_that_the_network_policy_lets_in() -> None:
    template = job(ON)["spec"]["template"]
    assert violations(template["spec"]) == []
    assert container(ON)["securityContext"]["readOnlyRootFilesystem"] is True
    assert template["spec"]["automountServiceAccountToken"] is False
    (policy,) = of_kind("NetworkPolicy", {**ON, "networkPolicy": {"clients": [{"podSelector": {}}]}})
    (clients,) = [rule["from"] for rule in policy["spec"]["ingress"] if "from" in rule and {"podSelector": {}} in rule["from"]]
    assert clients[1]["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


def test_the_key_comes_from_a_secret_and_a_platform_without_keys_needs_none() -> None:
    env = {each["name"]: each.get("valueFrom") for each in container(ON)["env"]}
    assert env["MANTA_API_KEY"] == {"secretKeyRef": {"name": "manta-test-key", "key": "key"}}
    assert "MANTA_API_KEY" not in str(container({**NO_KEYS, **ON})["env"])


def test_a_scenario_of_the_values_is_one_that_the_instrument_reads(tmp_path: Path) -> None:
    values = with_test(name="mine", scenario=SCENARIO, gates={"error_rate": 0.1, "canary": {"model": "chat"}})
    assert container(values)["args"][0] == "/load-test/scenario.yaml"
    found = files_of(values)
    scenario = load_scenario(str(written(tmp_path, "scenario.yaml", found["scenario.yaml"]))).scenario
    assert (scenario.name, scenario.duration, scenario.mix[0].model) == ("mine", 30, "chat")
    gates = load_gates(written(tmp_path, "gates.yaml", found["gates.yaml"]))
    assert (gates.error_rate, gates.canary is not None) == (0.1, True)


def test_the_default_gates_are_valid() -> None:
    assert list(files_of(ON)) == ["gates.yaml"]
    assert Gates.model_validate(yaml.safe_load(files_of(ON)["gates.yaml"])).min_requests == 10


def test_the_platform_knows_nothing_of_it() -> None:
    values = with_test(name="mine", scenario=SCENARIO, gates={"error_rate": 0.1}, waitSeconds=10, settleSeconds=1)
    assert of_kind("RayService", values) == of_kind("RayService")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        pytest.param(with_test(apiKey={"existingSecret": ""}), "loadTest.apiKey.existingSecret: callers need a key", id="key"),
        pytest.param(with_test(timeoutSeconds=900), "loadTest.timeoutSeconds: 900 leave no time", id="time"),
        pytest.param(with_test(hook="pre-install"), "loadTest/hook", id="hook"),
        pytest.param(with_test(name="My test"), "loadTest/name", id="name"),
        pytest.param(with_test(secnario={}), "secnario", id="typo"),
        pytest.param(with_test(scenario={**SCENARIO, "mix": [{"kind": "chta"}]}), "loadTest/scenario/mix/0/kind", id="kind"),
        pytest.param(with_test(gates={"eror_rate": 0.1}), "eror_rate", id="gate"),
    ],
)
def test_values_that_cannot_work_are_refused(values: Json, said: str) -> None:
    with pytest.raises(HelmError) as caught:
        objects(values)
    assert said in str(caught.value)
