"""Pipelines in a configuration, as loaded from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.config_error import ConfigError
from serve_app.config_pipelines import OverridesConfig, PipelineVersionConfig
from serve_app.loading import load_platform

HEAD = """\
models: [{name: chat, variants: [{name: stable, source: org/model}]}]
embedders: [{name: minilm, source: org/embedder}]
pipelines:
  - name: docs
    versions:
      - {name: v1, embedder: minilm, collection: docs, model: chat,
"""


def load(folder: Path, rest: str) -> PipelineVersionConfig:
    (folder / "p.yaml").write_text(f"{HEAD}         {rest}}}\n", encoding="utf-8")
    return load_platform(folder / "p.yaml").pipelines[0].versions[0]


def test_by_default_a_pipeline_does_as_it_always_did(tmp_path: Path) -> None:
    version = load(tmp_path, "prompt: '{{ question }}'")
    assert (version.condense, version.min_score, version.no_passages) == (None, None, "error")
    assert version.overrides == OverridesConfig(max_top_k=None, collections=(), filters=True)


def test_the_condense_prompt_may_be_a_file_or_a_text_or_absent(tmp_path: Path) -> None:
    (tmp_path / "c.j2").write_text("{{ history | length }} {{ question }}", encoding="utf-8")
    given = ["{}", "{prompt: c.j2}", "{prompt: 'Say {{ question }}'}"]
    found = [load(tmp_path, f"prompt: '{{{{ question }}}}', condense: {condense}").condense for condense in given]
    assert [c and c.prompt for c in found] == [None, "{{ history | length }} {{ question }}", "Say {{ question }}"]


WRONG = {
    "condense-model": (
        "prompt: x, condense: {model: chta}",
        r"pipelines\[0\].versions\[0\].condense.model: model 'chta' is not declared, did you mean `chat`\?",
    ),
    "condense-variable": (
        "prompt: x, condense: {prompt: '{{ hits }}'}",
        r"versions\[0\].condense.prompt: a condense prompt may use `question` and `history`, not `hits`",
    ),
    "condense-attribute": (
        "prompt: x, condense: {prompt: '{{ history[0].content }}'}",
        r"versions\[0\].condense.prompt: the template fails on two sample turns: .*'content'",
    ),
    "condense-without-question": (
        "prompt: x, condense: {prompt: Rewrite it.}",
        r"versions\[0\].condense.prompt: a condense prompt must use `\{\{ question \}\}`",
    ),
    "no-vector-stores": (
        "prompt: x, overrides: {vector_stores: true}",
        r"versions\[0\].overrides.vector_stores: there are no vector stores to search; "
        r"add `vector_stores: \{embedder: minilm\}`",
    ),
    "condense-file": (
        "prompt: x, condense: {prompt: gone.j2}",
        r"versions\[0\].condense.prompt: the prompt file '.*gone.j2': no such file; write its path relative to this file",
    ),
    "needs-a-passage": (
        "prompt: '{{ hits[0].text }}', no_passages: answer",
        r"versions\[0\].prompt: the template fails without passages, which `no_passages: answer` gives it: ",
    ),
    "top-k-bound": (
        "prompt: x, top_k: 7, overrides: {max_top_k: 3}",
        r"overrides.max_top_k: max_top_k 3 is under the version's",
    ),
    "no-passages": ("prompt: x, no_passages: crash", r"versions\[0\].no_passages: "),
    "empty-refusal": ("prompt: x, refusal: ''", r"versions\[0\].refusal: must not be empty"),
}


@pytest.mark.parametrize(("rest", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_pipeline_that_would_fail_later_is_refused_by_its_field(tmp_path: Path, rest: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, rest)


@pytest.mark.parametrize("mode", ["refuse", "error"])
def test_a_prompt_that_needs_a_passage_is_fine_where_it_always_gets_one(tmp_path: Path, mode: str) -> None:
    assert load(tmp_path, f"prompt: '{{{{ hits[0].text }}}}', no_passages: {mode}").no_passages == mode


def test_the_shipped_prompts_need_no_passage(tmp_path: Path) -> None:
    for file in (Path(__file__).parents[3] / "prompts").glob("*.j2"):
        (tmp_path / "p.j2").write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
        assert load(tmp_path, "prompt: p.j2, no_passages: answer").prompt == file.read_text(encoding="utf-8")
