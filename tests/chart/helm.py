"""The chart under the real Helm engine: values in, objects out. Loaded once; it must not be forked after that."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import yaml
from helm_python import Chart, HelmError, values_from_yaml

CHART = Path(__file__).resolve().parents[2] / "helm" / "manta"
RELEASE, NAMESPACE = "demo", "ml"
Json = dict[str, Any]
CI_FILES = sorted(CHART.glob("ci/*-values.yaml"))


class Loader(yaml.CSafeLoader):
    """Text stays text: Kubernetes knows no times."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


@functools.cache
def chart() -> Chart:
    """Return the chart."""
    return Chart.load(CHART)


def ci_values(file: Path) -> Json:
    """Return a values file as Helm reads it."""
    return values_from_yaml(file.read_text(encoding="utf-8"))


def files(values: Json | None = None, *, name: str = RELEASE) -> dict[str, str]:
    """Return every rendered template by its path below templates/."""
    return dict(_files(json.dumps(values or {}), name))


@functools.lru_cache(maxsize=64)  # Helm reads the whole schema anew each time
def _files(values: str, name: str) -> dict[str, str]:
    rendered = chart().render(json.loads(values), name=name, namespace=NAMESPACE)
    prefix = "manta/templates/"
    return {path.removeprefix(prefix): text for path, text in rendered.items() if text.strip()}


def objects(values: Json | None = None, *, name: str = RELEASE) -> list[Json]:
    """Return every rendered object, tests included."""
    texts = (text for path, text in files(values, name=name).items() if path != "NOTES.txt")
    return [each for text in texts for each in yaml.load_all(text, Loader) if each]


def of_kind(kind: str, values: Json | None = None) -> list[Json]:
    """Return the objects of a kind."""
    return [each for each in objects(values) if each["kind"] == kind]


def rayservice(values: Json | None = None) -> Json:
    """Return the RayService."""
    (found,) = of_kind("RayService", values)
    return found


def serve_config(values: Json | None = None) -> Json:
    """Return serveConfigV2 as data."""
    found: Json = yaml.load(rayservice(values)["spec"]["serveConfigV2"], Loader)  # noqa: S506  (a safe one)
    return found


def pod_templates(values: Json | None = None) -> dict[str, Json]:
    """Return the pod templates of the head (``head``) and of every worker group by its name."""
    cluster = rayservice(values)["spec"]["rayClusterConfig"]
    found: dict[str, Json] = {"head": cluster["headGroupSpec"]["template"]}
    return found | {group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]}


def refusal(values: Json, *, name: str = RELEASE) -> str:
    """Return why values are refused, or nothing when they are not."""
    try:
        files(values, name=name)
    except HelmError as err:
        return str(err)
    return ""


def merged(values: Json) -> Json:
    """Return values over the chart's defaults."""
    return chart().merge_values(values)
