"""The pages of docs/operations: every values file renders, every command exists, every link leads somewhere."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main
import yaml
from click import ClickException, Group

from scripts import chart_upgrades
from serve_app.cli import app
from tests.chart.helm import CHART, refusal, serve_config
from tests.chart.operations import FOLDER, Block, blocks, commands, is_in, pages

pytestmark = pytest.mark.chart

ROOT = CHART.parents[1]
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
VALUES = [pytest.param(block, id=f"{block.page}-{block.title}") for block in blocks("yaml")]
COMMANDS = [*commands()]


def of(program: str) -> list[Any]:
    """Return the commands of a program as parameters of a test."""
    return [pytest.param(page, words, id=f"{page}-{' '.join(words)[:50]}") for page, words in COMMANDS if words[0] == program]


FROM_OTHERS = ("kuberay",)  # a chart, and the repository it comes from


@pytest.mark.parametrize("block", VALUES)
def test_a_values_file_renders(block: Block) -> None:
    assert block.title.endswith(".yaml")
    values = yaml.safe_load(block.text)
    assert refusal(values) == ""
    assert "rollouts" in [each["name"] for each in serve_config(values)["applications"]]


def test_values_files_have_titles_of_their_own() -> None:
    titles = [block.title for block in blocks("yaml")]
    assert len(set(titles)) == len(titles) >= 15


@pytest.mark.parametrize(("page", "words"), of("manta"))
def test_manta_knows_the_command(page: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for word in words:
        if re.fullmatch(r"[\w./-]+\.(yaml|csv)", word):
            (tmp_path / word).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / word).touch()
    command: Any = typer.main.get_command(app)
    rest = words[1:]
    while isinstance(command, Group) or hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    try:
        command.make_context("manta", rest)
    except ClickException as err:
        pytest.fail(f"{page}: {' '.join(words)}: {err.format_message()}")


@pytest.mark.parametrize(("page", "words"), of("helm"))
def test_helm_finds_the_chart_the_files_and_the_keys(page: str, words: list[str]) -> None:
    for option, value in itertools.pairwise(words):
        if option == "--set":
            path, _, text = value.partition("=")
            assert text, value
            assert is_in(SCHEMA, path), f"{page}: the chart has no {path}"
        if option in ("-f", "--values"):
            assert value in {*(block.title for block in blocks("yaml")), "my-values.yaml"}
    charts = [word for word in words if "/" in word and not word.startswith(("https://", *FROM_OTHERS))]
    assert [chart for chart in charts if not (ROOT / chart / "Chart.yaml").is_file()] == []
    assert "--reuse-values" not in words


@pytest.mark.parametrize(("page", "words"), of("python"))
def test_python_finds_the_module(page: str, words: list[str]) -> None:
    assert words[1] == "-m"
    assert importlib.util.find_spec(words[2]) is not None


def test_no_other_program_is_called() -> None:
    assert {words[0] for _, words in COMMANDS} == {"manta", "helm", "kubectl", "python"}
    assert len(COMMANDS) > 40


def test_every_upgrade_has_its_values_file() -> None:
    upgrades = [
        words for _, words in COMMANDS if words[:2] in (["helm", "upgrade"], ["helm", "install"]) and "./helm/manta" in words
    ]
    assert [words for words in upgrades if "-f" not in words] == []


def written(page: Path) -> str:
    """Return a page without the table that a script makes, which has names of groups and applications."""
    before, _, rest = page.read_text(encoding="utf-8").partition(chart_upgrades.BEGIN)
    return before + rest.partition(chart_upgrades.END)[2]


KEYS = [(page.name, key) for page in pages() for key in re.findall(r"`([a-zA-Z]+(?:\.[a-zA-Z_]+)+)`", written(page))]
ELSEWHERE = ("status.", "auth.", "scaling.")  # of the object, of the platform's document


def test_keys_that_pages_name_are_keys_of_the_chart() -> None:
    named = [
        (page, key) for page, key in KEYS if not re.search(r"\.(yaml|md|py|txt|stable)$", key) and not key.startswith(ELSEWHERE)
    ]
    assert [(page, key) for page, key in named if not is_in(SCHEMA, key)] == []
    assert len(named) > 30


def test_links_lead_somewhere() -> None:
    broken = []
    for page in pages():
        for target in re.findall(r"\]\((?!https?://)([^)]+)\)", page.read_text(encoding="utf-8")):
            name, _, anchor = target.partition("#")
            file = (page.parent / name).resolve() if name else page
            if not file.exists() or (anchor and anchor not in anchors(file)):
                broken.append(f"{page.name}: {target}")
    assert broken == []


def anchors(file: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_secrets_that_the_page_names_are_those_of_the_values() -> None:
    text = (FOLDER / "secrets.md").read_text(encoding="utf-8")
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    for name, key in re.findall(r"`([\w.]+)\.existingSecret` \(`([\w-]+)`\)", text):
        node = defaults
        for part in name.split("."):
            node = node[part]
        assert node["existingSecret"] == key
