"""Commands of docs/operations, tried on what the chart renders: values that are set, objects and labels that are named."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest
import yaml

from scripts import chart_upgrades
from scripts.chart_effects import Cluster, Effect, effect
from scripts.chart_values import defaults
from scripts.serve_effects import ServeEffect
from tests.chart import crd_schema
from tests.chart.helm import Json, files, objects, refusal
from tests.chart.operations import blocks, commands

pytestmark = pytest.mark.chart

RELEASE = "manta"
BLOCKS = {block.title: yaml.safe_load(block.text) for block in blocks("yaml")}
FILES: dict[str, Json] = {**BLOCKS, "my-values.yaml": chart_upgrades.base()}
DEFAULTS = defaults()
COMMANDS = [*commands()]
RAY_SERVICE = crd_schema.schemas()["ray.io/v1", "RayService"]
BY_KUBERAY = {"ray.io/node-type": {"head", "worker"}}  # labels that it puts on pods


def of(program: str, *verb: str) -> list[Any]:
    """Return commands as parameters, without the namespace, which may stand before the verb."""
    found = []
    for page, words in COMMANDS:
        at = words.index("--namespace") if words[1:2] == ["--namespace"] else len(words)
        rest = words[1:at] + words[at + 2 :]
        if words[0] == program and (not verb or tuple(rest[: len(verb)]) == verb):
            found.append(pytest.param(rest, id=f"{page}-{' '.join(rest)[:60]}"))
    return found


def options(words: list[str], *names: str) -> list[str]:
    pairs = [value for name, value in itertools.pairwise(words) if name in names]
    return pairs + [word.partition("=")[2] for word in words if word.partition("=")[0] in names and "=" in word]


def values_of(words: list[str]) -> Json:
    """Return the values of a command as Helm puts them together."""
    (name,) = options(words, "-f", "--values")
    sets = {path: yaml.safe_load(value) for path, _, value in (each.partition("=") for each in options(words, "--set"))}
    return chart_upgrades.with_set(FILES[name], sets)


@pytest.mark.parametrize("words", [each for verb in ("install", "upgrade", "template") for each in of("helm", verb, RELEASE)])
def test_helm_takes_the_values_of_the_command(words: list[str]) -> None:
    assert refusal(values_of(words), name=RELEASE) == ""


def upgraded(page: str, key: str) -> Effect:
    """Return what the command of a page that sets a key does to an installation of its values file."""
    ((words),) = [each for of_page, each in COMMANDS if of_page == page and any(key in word for word in options(each, "--set"))]
    (file,) = options(words, "-f")
    return effect(objects(FILES[file]), objects(values_of(words)))


def test_a_token_of_another_name_builds_a_second_cluster_as_the_page_says() -> None:
    assert upgraded("secrets.md", "internalToken").cluster is Cluster.REPLACED


def test_a_token_in_a_secret_of_the_same_name_is_nothing_that_helm_or_kuberay_sees() -> None:
    (service,) = [each for each in objects({}) if each["kind"] == "RayService"]
    assert "checksum" not in str(service)


@pytest.mark.parametrize("page", ["upgrades.md", "canary.md"])
def test_weights_that_are_set_change_in_place(page: str) -> None:
    found = upgraded(page, "weight")
    assert (found.cluster, found.serve, found.late) == (Cluster.KEPT, ServeEffect(in_place=("rollouts",)), ())


@pytest.mark.parametrize("words", of("helm", "test"))
def test_helm_waits_longer_than_a_test_may_take(words: list[str]) -> None:
    (timeout,) = options(words, "--timeout")
    assert int(timeout.removesuffix("m")) * 60 > DEFAULTS["tests"]["timeoutSeconds"]


def test_an_installation_is_waited_for_before_it_is_tested() -> None:
    rows = [
        words[3 if words[1] == "--namespace" else 1]
        for page, words in COMMANDS
        if page == "install.md" and "manta" in str(words)
    ]
    assert rows.index("install") < rows.index("wait") < rows.index("test")


KUBECTL = of("kubectl")
VERBS = {"create", "wait", "port-forward", "logs", "get", "describe", "patch"}


@pytest.mark.parametrize("words", KUBECTL)
def test_kubectl_names_objects_that_there_are(words: list[str]) -> None:
    assert words[0] in VERBS
    for kind, name in named(words):
        assert (kind, name) in KNOWN, (kind, name)


def named(words: list[str]) -> list[tuple[str, str]]:
    """Return (kind, name) of what a command names: `kind/name`, or `get kind name`."""
    found = [
        (kind, name) for kind, _, name in (word.partition("/") for word in words[1:] if re.fullmatch(r"[a-z]+/[\w-]+", word))
    ]
    if words[0] in ("get", "describe") and len(words) > 2 and not words[2].startswith("-"):
        found.append((words[1], words[2]))
    return found


def known() -> set[tuple[str, str]]:
    """Return what a release has in a cluster: its own objects, what KubeRay makes of them, and the Secrets that pods read."""
    incremental = FILES["incremental.yaml"]
    found = {(each["kind"].lower(), each["metadata"]["name"]) for each in objects({}, name=RELEASE)}
    found |= {
        ("job", each["metadata"]["name"]) for each in objects(FILES["load-test.yaml"], name=RELEASE) if each["kind"] == "Job"
    }
    notes = files(incremental, name=RELEASE)["NOTES.txt"]
    found |= {(kind, name) for kind, name in re.findall(r"(service)/([\w-]+)", notes)}
    found |= {(kind.lower(), name) for kind, name in re.findall(r'(Gateway|HTTPRoute) "([\w-]+)"', notes)}
    (service,) = [each for each in objects({}, name=RELEASE) if each["kind"] == "RayService"]
    found |= {("service", service["spec"]["serveService"]["metadata"]["name"]), ("service", f"{RELEASE}-head-svc")}
    return found | {("secret", name) for name in re.findall(r"'(?:secretName|name)': '(manta-[\w-]+)'", str(objects({})))}


KNOWN = known()


@pytest.mark.parametrize("words", [each for each in KUBECTL if "--selector" in each.values[0]])
def test_kubectl_selects_pods_by_labels_that_they_have(words: list[str]) -> None:
    (selector,) = options(words, "--selector")
    key, _, value = selector.partition("=")
    template = templates()["head" if value == "head" else "worker"]
    assert value == template["metadata"]["labels"].get(key) or value in BY_KUBERAY[key]
    for container in options(words, "--container"):
        assert container in [each["name"] for each in template["spec"]["containers"]]


def templates() -> dict[str, Json]:
    (service,) = [each for each in objects({}, name=RELEASE) if each["kind"] == "RayService"]
    cluster = service["spec"]["rayClusterConfig"]
    return {"head": cluster["headGroupSpec"]["template"], "worker": cluster["workerGroupSpecs"][0]["template"]}


@pytest.mark.parametrize("words", of("kubectl", "wait"))
def test_kubectl_waits_for_conditions_that_kuberay_sets(words: list[str]) -> None:
    (wanted,) = options(words, "--for")
    assert wanted in ("condition=Ready", "condition=UpgradeInProgress", "condition=UpgradeInProgress=false")


def test_the_field_that_is_printed_is_one_of_the_crd() -> None:
    (words,) = [each.values[0] for each in KUBECTL if "jsonpath" in str(each.values[0])]
    node: Any = RAY_SERVICE
    for key in options(words, "--output")[0].removeprefix("jsonpath={.").removesuffix("}").split("."):
        node = node["properties"][key]
    assert node["type"] == "string"


def test_the_patch_is_of_the_group_that_the_page_shows() -> None:
    (words,) = [each.values[0] for each in of("kubectl", "patch")]
    (patch,) = json.loads(options(words, "--patch")[0])
    (service,) = [each for each in objects(FILES["groups.yaml"]) if each["kind"] == "RayService"]
    _, spec, groups, index, field = patch["path"].split("/")
    group = service["spec"]["rayClusterConfig"][groups][int(index)]
    assert (spec, group["groupName"], group[field]) == ("spec", "l40s", patch["value"])


def test_the_secrets_that_are_made_have_the_keys_that_pods_read() -> None:
    made = {
        (words[3], re.sub(r"=.*", "", words[4].partition("=")[2]))
        for words in (each.values[0] for each in of("kubectl", "create", "secret"))
    }
    values = DEFAULTS["internalToken"], DEFAULTS["tests"]["apiKey"]
    wanted = {(each["existingSecret"], each["key"]) for each in values}
    assert wanted <= made
    assert (DEFAULTS["apiKeys"]["existingSecret"], "keys.yaml") in made
    assert {name.removesuffix("-2") for name, _ in made} <= {name for kind, name in KNOWN if kind == "secret"}
