"""Writes docs/operations/values-errors.md: realistic mistakes in values, and what Helm says to them.

python -m scripts.values_errors           rewrite the page (needs the `test` extra: it asks the real Helm engine)
python -m scripts.values_errors --check   exit with 1 when the page is out of date
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml
from helm_python import Chart, HelmError, HelmRenderError, values_from_yaml

from scripts.chart_values import CHART
from scripts.generated import settle

ROOT = CHART.parent.parent
PAGE = ROOT / "docs" / "operations" / "values-errors.md"
COMMAND = "python -m scripts.values_errors"
MISTAKES = Path(__file__).with_name("values_mistakes.yaml")

INTRO = f"""<!-- Written by `{COMMAND}` from scripts/values_mistakes.yaml; the messages are those of Helm itself. -->
# What Helm says when values are wrong

Two things are checked before anything reaches the cluster. The schema (`values.schema.json`) knows every key and its type: its
messages begin with the path of the key. Rules between keys (weights, names, sizes) are checked by the templates: their messages
begin with `these values cannot work` and list everything at once.

What only Python can check (a prompt's syntax, vLLM's own arguments) is refused later: `manta validate` finds it on your machine
in the `platform` block, and a running platform keeps its last good configuration and says so in `/admin/rollouts` (`refused`).
"""


def message(text: str) -> str:
    """Return what Helm says to a values file.

    Raises:
        ValueError: it says nothing: the values are fine.
    """
    with Chart.load(CHART) as chart:
        try:
            chart.render(values_from_yaml(text), name="manta", namespace="ml")
        except HelmRenderError as err:
            return _rules(str(err))
        except HelmError as err:
            return str(err).strip()
    raise ValueError(f"nothing is wrong with these values:\n{text}")


def _rules(text: str) -> str:
    """Return a template's own words without the chain of templates that led there."""
    start = text.find("these values cannot work:")
    return text[start if start >= 0 else 0 :].strip()


def mistakes() -> list[tuple[str, str]]:
    """Return (title, values) of every mistake."""
    return [(each["title"], each["values"]) for each in yaml.safe_load(MISTAKES.read_text(encoding="utf-8"))]


def page() -> str:
    """Return the whole page."""
    sections = (
        f"## {title}\n\n```yaml\n{values.strip()}\n```\n\n```text\n{message(values)}\n```\n" for title, values in mistakes()
    )
    return "\n".join([INTRO, *sections])


def main(arguments: list[str]) -> int:
    """Write the page, or compare it; return the exit code."""
    return settle(PAGE, page(), command=COMMAND, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
