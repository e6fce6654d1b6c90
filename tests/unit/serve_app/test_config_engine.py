"""An engine's options: the rules between them, and that their choices are vLLM's."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from serve_app.config import SET_BY_MANTA, EngineConfig
from serve_app.config_engine import KvCacheDtype, StructuredOutputsConfig
from serve_app.config_engine_speculative import SET_BY_VLLM, SpeculativeConfig, SpeculativeMethod
from serve_app.config_error import ConfigError
from serve_app.loading import load_platform, parse_platform

NGRAM = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4}
VARIANT = "models: [{name: chat, variants: [{name: a, source: a/b, engine: {%s}}]}]"
HERE = "models[0].variants[0].engine."


def problems(engine: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_platform(VARIANT % engine, name="p")
    return [f"{problem.field.removeprefix(HERE)}: {problem.message}" for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("engine", "told"),
    [
        pytest.param("gpu_memory_utilization: 1.5", "gpu_memory_utilization: must be at most 1, got 1.5", id="memory-over-1"),
        pytest.param(
            "enable_chunked_prefill: perhaps", "enable_chunked_prefill: expected true or false, got 'perhaps'", id="no-truth"
        ),
        pytest.param(
            "kv_cache_dtype: fp9",
            f"kv_cache_dtype: 'fp9' is not one of {', '.join(get_args(KvCacheDtype))}; did you mean `fp8`?",
            id="cache-type",
        ),
        pytest.param(
            "enable_auto_tool_choice: true",
            "enable_auto_tool_choice: needs `tool_call_parser`: how the model writes tool calls, such as hermes",
            id="tools-without-parser",
        ),
        pytest.param(
            "max_num_seqs: 64, max_num_batched_tokens: 32",
            "max_num_batched_tokens: must be at least `max_num_seqs` (64): each request takes a token of a step, got 32",
            id="fewer-tokens-than-requests",
        ),
        pytest.param(
            "chat_template: chatml",
            "chat_template: 'chatml' is neither a template's text nor a file of one, which ends in .jinja or .j2",
            id="no-template",
        ),
        pytest.param(
            "tokenizer: s3://bucket/x",
            "tokenizer: 's3://bucket/x' is in S3, and only `source` is fetched from there; "
            "write a Hugging Face id (org/name), or a folder that every node has",
            id="tokenizer-in-s3",
        ),
        pytest.param(
            "tokenizer: a b",
            "tokenizer: 'a b' is no source; write a Hugging Face id (org/name) or a folder (./models/x)",
            id="tokenizer-is-no-source",
        ),
        pytest.param(
            "structured_outputs: {disable_any_whitespace: true}",
            "structured_outputs.disable_any_whitespace: `auto` cannot do it; set `backend: xgrammar` or `backend: guidance`",
            id="whitespace-by-auto",
        ),
        pytest.param(
            "structured_outputs: {backend: xgrammar, disable_additional_properties: true}",
            "structured_outputs.disable_additional_properties: `xgrammar` cannot do it; set `backend: guidance`",
            id="properties-by-xgrammar",
        ),
        pytest.param(
            "speculative: {num_speculative_tokens: 3}",
            "speculative.method: name who drafts: a `method` such as ngram, or a draft `model`",
            id="nobody-drafts",
        ),
        pytest.param(
            "speculative: {model: org/draft}",
            "speculative.num_speculative_tokens: required, but missing; "
            "say how many tokens are drafted in each step, such as 3",
            id="no-number-of-tokens",
        ),
        pytest.param(
            "speculative: {method: eagle, num_speculative_tokens: 3}",
            "speculative.model: required by `eagle`, but missing; name the draft model",
            id="no-draft-model",
        ),
        pytest.param(
            "speculative: {method: suffix, model: org/draft}",
            "speculative.model: `suffix` drafts without a model; leave this out, or choose another method",
            id="model-for-nothing",
        ),
        pytest.param(
            "speculative: {method: ngram, num_speculative_tokens: 3}",
            "speculative.prompt_lookup_max: required by `ngram`, but missing; 5 is a good start",
            id="ngram-without-window",
        ),
        pytest.param(
            "speculative: {method: ngram, num_speculative_tokens: 3, prompt_lookup_max: 2, prompt_lookup_min: 4}",
            "speculative.prompt_lookup_min: must be at most `prompt_lookup_max` (2), got 4",
            id="ngram-window-reversed",
        ),
        pytest.param(
            "speculative: {method: mtp, num_speculative_tokens: 1, prompt_lookup_max: 2}",
            "speculative.prompt_lookup_max: only the methods ngram and ngram_gpu look tokens up; leave this out",
            id="window-for-nothing",
        ),
        pytest.param(
            "tensor_parallel_size: 4, speculative: {model: org/d, num_speculative_tokens: 3, draft_tensor_parallel_size: 2}",
            "speculative.draft_tensor_parallel_size: must be 1 or 4 (1, or the engine's `tensor_parallel_size`), got 2",
            id="draft-ranks",
        ),
        pytest.param(
            "speculative: {method: mtp, num_speculative_tokens: 1, options: {max_model_len: 9}}",
            "speculative.options.max_model_len: set `speculative.max_model_len` instead",
            id="option-has-a-field",
        ),
        pytest.param(
            "speculative: {method: mtp, num_speculative_tokens: 1, options: {target_model_config: 9}}",
            "speculative.options.target_model_config: set by the engine itself; leave this out",
            id="option-is-vllms-own",
        ),
        pytest.param(
            "engine_args: {quantization: awq}",
            "engine_args.quantization: set `engine.quantization` instead",
            id="arg-has-a-field",
        ),
        pytest.param(
            "engine_args: {speculative_config: {}}",
            "engine_args.speculative_config: set `engine.speculative` instead",
            id="arg-has-a-section",
        ),
        pytest.param(
            "engine_args: {max_lora_rank: 8}", "engine_args.max_lora_rank: set `engine.lora.max_rank` instead", id="arg-of-lora"
        ),
        pytest.param(
            "engine_args: {nnodes: 2}", "engine_args.nnodes: set by the platform: it places the ranks", id="arg-of-placement"
        ),
        pytest.param(
            "engine_args: {data_parallel_size: 2}",
            "engine_args.data_parallel_size: a replica reserves the ranks of one engine; "
            "set more `replicas` of the variant instead",
            id="arg-of-several-engines",
        ),
        pytest.param(
            "engine_args: {worker_extension_cls: a.B}",
            "engine_args.worker_extension_cls: set by the platform: its own extension prepares the stages",
            id="arg-of-stages",
        ),
        pytest.param(
            "lora: {max_rank: 12}",
            "lora.max_rank: 12 is not one of 1, 8, 16, 32, 64, 128, 256, 320, 512",
            id="number-without-a-near-miss",
        ),
    ],
)
def test_what_cannot_work_names_its_field_and_the_fix(engine: str, told: str) -> None:
    assert problems(engine) == [told]


@pytest.mark.parametrize(
    "engine",
    [
        {"speculative": NGRAM},
        {"speculative": {**NGRAM, "prompt_lookup_min": 2, "options": {"disable_padded_drafter_batch": True}}},
        {"speculative": {"method": "suffix"}},
        {"speculative": {"method": "mtp", "num_speculative_tokens": 1}},
        {"speculative": {"model": "org/draft", "num_speculative_tokens": 1, "draft_tensor_parallel_size": 1}},
        {"structured_outputs": {"backend": "guidance", "disable_additional_properties": True}},
        {"enable_auto_tool_choice": True, "tool_call_parser": "hermes"},
        {"chat_template": "{{ messages }}"},
        {"engine_args": {"compilation_config": {"mode": 3}, "seed": 1}},
    ],
)
def test_what_can_work_is_accepted(engine: dict[str, Any]) -> None:
    made = EngineConfig.model_validate(engine)
    assert EngineConfig.model_validate_json(made.model_dump_json()) == made


def test_options_that_are_not_set_leave_no_trace() -> None:
    assert EngineConfig(max_model_len=64).model_dump(exclude_defaults=True) == {"max_model_len": 64}


DOCUMENT = """\
models:
  - name: chat
    variants:
      - name: a
        source: org/model
        engine:
          speculative: {model: ./draft, num_speculative_tokens: 2}
          tokenizer: ./tokens
          chat_template: chat.jinja
"""


def test_folders_become_absolute_and_the_chat_template_is_read_in(tmp_path: Path) -> None:
    (tmp_path / "draft").mkdir()
    (tmp_path / "draft" / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "tokens").mkdir()
    (tmp_path / "chat.jinja").write_text("{{ messages }}", encoding="utf-8")
    (tmp_path / "p.yaml").write_text(DOCUMENT, encoding="utf-8")
    engine = load_platform(tmp_path / "p.yaml").models[0].variants[0].engine
    assert engine.speculative is not None
    assert (engine.speculative.model, engine.tokenizer, engine.chat_template) == (
        str(tmp_path / "draft"),
        str(tmp_path / "tokens"),
        "{{ messages }}",
    )


def test_files_that_are_missing_are_told_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(DOCUMENT, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_platform(file)
    assert [(problem.line, problem.field.removeprefix(HERE)) for problem in caught.value.problems] == [
        (7, "speculative.model"),
        (8, "tokenizer"),
        (9, "chat_template"),
    ]
    assert load_platform(file, check_files=False).models[0].variants[0].engine.chat_template == "chat.jinja"


def test_a_simulated_engine_needs_none_of_these_folders(tmp_path: Path) -> None:
    text = DOCUMENT.replace("engine:", "engine:\n          kind: simulated").replace("chat_template: chat.jinja", "")
    (tmp_path / "p.yaml").write_text(text, encoding="utf-8")
    assert load_platform(tmp_path / "p.yaml").models[0].variants[0].engine.tokenizer == str(tmp_path / "tokens")


def vllm_source(*path: str) -> ast.Module:
    """Return a file of the installed vLLM, which is not imported."""
    if (spec := importlib.util.find_spec("vllm")) is None or spec.origin is None:
        pytest.skip("vLLM is not installed")
    return ast.parse(Path(spec.origin).parent.joinpath(*path).read_text(encoding="utf-8"))


def literal(module: ast.Module, name: str) -> set[str]:
    """Return the words of ``name = Literal[...]``, with those of other literals that it names."""
    nodes = (node for node in module.body if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name))
    value = next(node.value for node in nodes if isinstance(node.targets[0], ast.Name) and node.targets[0].id == name)
    assert isinstance(value, ast.Subscript)
    parts = value.slice.elts if isinstance(value.slice, ast.Tuple) else [value.slice]
    words = {part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)}
    return words.union(*(literal(module, part.id) for part in parts if isinstance(part, ast.Name)))


def fields(module: ast.Module, name: str) -> set[str]:
    kind = next(node for node in module.body if isinstance(node, ast.ClassDef) and node.name == name)
    return {node.target.id for node in kind.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}


def test_the_types_of_the_cache_are_vllms() -> None:
    assert set(get_args(KvCacheDtype)) == literal(vllm_source("config", "cache.py"), "CacheDType")


def test_the_speculative_methods_and_fields_are_vllms() -> None:
    module = vllm_source("config", "speculative.py")
    assert set(get_args(SpeculativeMethod)) < literal(module, "SpeculativeMethod")
    assert set(SpeculativeConfig.model_fields) - {"options"} < fields(module, "SpeculativeConfig")
    assert set(SET_BY_VLLM) < fields(module, "SpeculativeConfig")


def test_the_structured_outputs_are_vllms() -> None:
    module = vllm_source("config", "structured_outputs.py")
    backends = get_args(StructuredOutputsConfig.model_fields["backend"].annotation)
    assert set(backends) == literal(module, "StructuredOutputsBackend")
    assert set(StructuredOutputsConfig.model_fields) < fields(module, "StructuredOutputsConfig")


def test_every_option_and_every_reserved_argument_is_one_of_vllms() -> None:
    engine = fields(vllm_source("engine", "arg_utils.py"), "EngineArgs")
    module = vllm_source("entrypoints", "launchers", "cli_args.py")
    known = engine | fields(module, "BaseFrontendArgs") | fields(module, "FrontendArgs") | {"model_tag", "config", "headless"}
    ours = {
        "kind",
        "cpu_kv_cache_gib",
        "start_timeout_s",
        "health",
        "lora",
        "engine_args",
        "simulated",
        "speculative",
        "structured_outputs",
    }
    assert set(EngineConfig.model_fields) - ours - known == set()
    assert set(SET_BY_MANTA) - known == set()
    assert {name for name in known if name.startswith("data_parallel_")} - set(SET_BY_MANTA) == set()


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        EngineConfig.model_validate({"swap_space": 4})
