"""An engine's configuration as vLLM's arguments, and what a parser like vLLM's makes of them."""

from __future__ import annotations

import argparse
import json
from typing import Any, NoReturn

import pytest
from pydantic import JsonValue

from deployments.llm.vllm_args import SAME_NAME, ArgumentsError, field_of, is_streamed, parse_args, vllm_args
from serve_app.config import SET_BY_MANTA, EngineConfig

SECTIONS_OF_OURS = {"lora", "structured_outputs", "speculative"}
NOT_OF_VLLM = {"kind", "cpu_kv_cache_gib", "start_timeout_s", "simulated", "engine_args", "health"}


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def section(text: str) -> dict[str, Any]:
    if (backend := json.loads(text).get("backend")) not in ("auto", "xgrammar"):
        raise argparse.ArgumentTypeError(
            f"1 validation error for StructuredOutputsConfig\nbackend\n  Input should be 'auto' or 'xgrammar' "
            f"[type=literal_error, input_value={backend!r}, input_type=str]\n    For further information visit https://x.y"
        )
    return {"parsed": backend}


def new_parser() -> argparse.ArgumentParser:
    parser = Parser()
    parser.add_argument("model_tag", nargs="?")
    parser.add_argument("--model", default="none")
    parser.add_argument("--served-model-name", nargs="+")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gpu-memory-utilization", type=float, default=0.92)
    parser.add_argument("--kv-cache-dtype", choices=["auto", "fp8"], default="auto")
    parser.add_argument("--enforce-eager", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--enable-prefix-caching", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--structured-outputs-config", type=section)
    parser.add_argument("--hf-token", nargs="?", const=True)
    parser.add_argument("--tokenizer-mode", default="auto")
    return parser


def test_arguments_are_what_the_configuration_sets_and_engine_args_come_last() -> None:
    engine = EngineConfig(tensor_parallel_size=2, quantization="awq", engine_args={"seed": 3})
    assert vllm_args("chat", "/models/x", engine) == {
        "model": "/models/x",
        "served_model_name": ["chat"],
        "tensor_parallel_size": 2,
        "pipeline_parallel_size": 1,
        "dtype": "auto",
        "enforce_eager": False,
        "quantization": "awq",
        "trust_remote_code": False,
        "enable_auto_tool_choice": False,
        "seed": 3,
    }


def test_sections_get_vllms_names() -> None:
    engine = EngineConfig.model_validate(
        {
            "lora": {"max_loras": 2, "max_rank": 32, "max_loaded": 8},
            "structured_outputs": {"backend": "guidance"},
            "speculative": {
                "method": "ngram",
                "num_speculative_tokens": 3,
                "prompt_lookup_max": 4,
                "options": {"rejection_sample_method": "block"},
            },
        }
    )
    made = vllm_args("chat", "org/model", engine)
    assert {name: value for name, value in made.items() if name not in vllm_args("chat", "org/model", EngineConfig())} == {
        "enable_lora": True,
        "max_loras": 2,
        "max_lora_rank": 32,
        "max_cpu_loras": 8,
        "structured_outputs_config": {
            "backend": "guidance",
            "disable_any_whitespace": False,
            "disable_additional_properties": False,
            "enable_in_reasoning": False,
        },
        "speculative_config": {
            "method": "ngram",
            "num_speculative_tokens": 3,
            "prompt_lookup_max": 4,
            "rejection_sample_method": "block",
        },
    }


def test_every_field_reaches_vllm_or_is_known_to_be_ours() -> None:
    assert set(EngineConfig.model_fields) == {*SAME_NAME, *SECTIONS_OF_OURS, *NOT_OF_VLLM}


def test_every_argument_that_a_section_makes_is_refused_in_engine_args() -> None:
    everything = {"lora": {}, "structured_outputs": {}, "speculative": {"method": "suffix"}}
    made = vllm_args("chat", "org/model", EngineConfig.model_validate(everything))
    assert set(made) - set(SAME_NAME) - set(SET_BY_MANTA) == set()


@pytest.mark.parametrize(
    ("name", "value", "parsed"),
    [
        ("seed", 7, 7),
        ("seed", 1e6, 1_000_000),  # as Helm prints it
        ("seed", "7", 7),
        ("gpu_memory_utilization", 0.5, 0.5),
        ("served_model_name", ["a", "b.c"], ["a", "b.c"]),
        ("served_model_name", [], []),
        ("enforce_eager", True, True),
        ("enable_prefix_caching", False, False),
        ("enable_prefix_caching", None, None),
        ("hf_token", True, True),
        ("tokenizer_mode", "--odd text", "--odd text"),
        ("structured_outputs_config", {"backend": "xgrammar"}, {"parsed": "xgrammar"}),
    ],
)
def test_the_parser_makes_of_a_value_what_it_makes_of_a_command_line(name: str, value: JsonValue, parsed: object) -> None:
    assert getattr(parse_args({name: value}, new_parser), name) == parsed


def test_what_is_not_set_keeps_the_parsers_default() -> None:
    assert vars(parse_args({"seed": 1}, new_parser)) == {**vars(new_parser().parse_args([])), "seed": 1}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("seed", "many", "expected a whole number, got 'many'"),
        ("seed", True, "expected a value, got true"),
        ("gpu_memory_utilization", "half", "expected a number, got 'half'"),
        ("kv_cache_dtype", "fp9", "'fp9' is not one of auto, fp8"),
        ("enforce_eager", 3, "expected true or false, got 3"),
        ("tokenizer_mode", ["a"], "expected one value, got a list"),
        ("tokenizer_mode", {"a": 1}, "expected one value, got `field: value` lines"),
        ("structured_outputs_config", {"backend": "foo"}, "backend: must be 'auto' or 'xgrammar'"),
        ("tokenizer_mod", "x", "vLLM has no engine argument `tokenizer_mod`, did you mean `tokenizer_mode`?"),
        ("zzz", 1, "vLLM has no engine argument `zzz`, `vllm serve --help=all` lists them"),
        ("model_tag", "x", "vLLM has no engine argument `model_tag`, did you mean `model`?"),
    ],
)
def test_a_value_that_the_parser_refuses_is_told_in_plain_words(name: str, value: JsonValue, message: str) -> None:
    with pytest.raises(ArgumentsError) as caught:
        parse_args({name: value}, new_parser)
    assert caught.value.problems == ((name, message),)


def test_all_refused_arguments_are_told_with_their_fields() -> None:
    with pytest.raises(ArgumentsError) as caught:
        parse_args({"seed": "x", "kv_cache_dtype": "fp9", "structured_outputs_config": {}, "model": "m"}, new_parser)
    assert str(caught.value).splitlines() == [
        "engine.engine_args.seed: expected a whole number, got 'x'",
        "engine.kv_cache_dtype: 'fp9' is not one of auto, fp8",
        "engine.structured_outputs: backend: must be 'auto' or 'xgrammar'",
    ]


@pytest.mark.parametrize(
    ("argument", "field"), [("seed", "engine_args.seed"), ("max_lora_rank", "lora.max_rank"), ("quantization", "quantization")]
)
def test_an_argument_leads_back_to_its_field(argument: str, field: str) -> None:
    assert field_of(argument) == field


@pytest.mark.parametrize(
    ("source", "load_format", "expected"),
    [
        ("s3://bucket/x", "runai_streamer", True),
        ("s3://bucket/x", "runai_streamer_sharded", True),
        ("s3://bucket/x", "safetensors", False),
        ("s3://bucket/x", None, False),
        ("/models/x", "runai_streamer", False),
    ],
)
def test_only_the_streamer_reads_s3_itself(source: str, load_format: str | None, expected: bool) -> None:
    assert is_streamed(source, EngineConfig(load_format=load_format)) is expected
