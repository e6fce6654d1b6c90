"""From vLLM's errors to fields and plain words. The texts are vLLM 0.29's own."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from deployments.llm.vllm_args import vllm_args
from deployments.llm.vllm_fields import FieldFinder, Problem, dump
from deployments.llm.vllm_words import MOST_CHARACTERS, plain, short
from serve_app.config import EngineConfig

NGRAM = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4}


def found(error: Exception, **engine: Any) -> list[Problem]:
    config = EngineConfig.model_validate(engine)
    return FieldFinder(config, vllm_args("chat", "/models/x", config)).problems(error)


@pytest.mark.parametrize(
    ("engine", "text", "field", "message"),
    [
        pytest.param(
            {"max_model_len": 9000},
            "User-specified max_model_len (9000) is greater than the derived max_model_len (max_position_embeddings=2048 or "
            "model_max_length=None in model's config.json). To allow overriding this maximum, set the env var X=1. X is risky.",
            "engine.max_model_len",
            "User-specified max_model_len (9000) is greater than the derived max_model_len (max_position_embeddings=2048 or "
            "model_max_length=None in model's config.json)",
            id="named-and-its-advice-left-out",
        ),
        pytest.param(
            {"tensor_parallel_size": 4},
            "Total number of attention heads (6) must be divisible by tensor parallel size (4).",
            "engine.tensor_parallel_size",
            "Total number of attention heads (6) must be divisible by tensor parallel size (4)",
            id="named-with-spaces",
        ),
        pytest.param(
            {"quantization": "awq"},
            "Cannot find the config file for awq",
            "engine.quantization",
            "Cannot find the config file for awq: the model's weights are not quantized so; leave this out, or name a model "
            "whose are",
            id="only-its-value-is-named",
        ),
        pytest.param(
            {"engine_args": {"kv_transfer_config": {"kv_connector": "Foo", "others": [1, "x"]}}},
            "Unsupported connector type: Foo",
            "engine.engine_args.kv_transfer_config",
            "Unsupported connector type: Foo",
            id="only-a-value-inside-it-is-named",
        ),
        pytest.param(
            {"engine_args": {"seed": 1}}, "No model in '/models/x'.", "source", "No model in '/models/x'", id="only-the-folder"
        ),
        pytest.param(
            {"engine_args": {"enable_sleep_mode": True}},
            "Sleep mode is not supported on current platform.",
            "engine.engine_args.enable_sleep_mode",
            "Sleep mode is not supported on current platform",
            id="named-without-enable",
        ),
        pytest.param(
            {"speculative": NGRAM},
            "Unsupported speculative method: 'ngram'",
            "engine.speculative.method",
            "Unsupported speculative method: 'ngram': the model and the draft model are not made for it",
            id="speculative-method",
        ),
        pytest.param(
            {"speculative": {"method": "eagle", "model": "org/draft", "num_speculative_tokens": 3, "quantization": "foo"}},
            "Unknown quantization method: foo. Must be one of ['awq', 'fp8'].",
            "engine.speculative.quantization",
            "Unknown quantization method: foo. Must be one of ['awq', 'fp8']",
            id="of-the-draft-model",
        ),
        pytest.param(
            {"speculative": {**NGRAM, "options": {"synthetic_acceptance_rates": [1]}}},
            "synthetic_acceptance_rates must have length 3, got [1].",
            "engine.speculative.options.synthetic_acceptance_rates",
            "synthetic_acceptance_rates must have length 3, got [1]",
            id="speculative-option",
        ),
        pytest.param(
            {"lora": {"max_rank": 64}},
            "max_lora_rank (64) is too large.",
            "engine.lora.max_rank",
            "max_lora_rank (64) is too large",
            id="of-a-section",
        ),
        pytest.param(
            {"enforce_eager": True},
            "Model architectures ['Foo'] are not supported for now. Supported architectures: dict_keys(['A', 'B'])",
            "source",
            "Model architectures ['Foo'] are not supported for now",
            id="of-the-model",
        ),
        pytest.param({"max_num_seqs": 4}, "Something else.", "engine", "Something else", id="nothing-is-named"),
        pytest.param({}, "max_model_len is wrong.", "engine", "max_model_len is wrong", id="what-is-not-set-is-not-to-blame"),
    ],
)
def test_a_sentence_leads_to_the_field_that_it_is_about(engine: dict[str, Any], text: str, field: str, message: str) -> None:
    assert [(".".join(path), told) for path, told in found(ValueError(text), **engine)] == [(field, message)]


def test_the_text_of_a_key_error_has_no_quotes() -> None:
    assert found(KeyError("no 'foo'"), reasoning_parser="foo") == [(("engine", "reasoning_parser"), "no 'foo'")]


def test_an_error_without_words_is_told_by_its_name() -> None:
    assert found(AssertionError(), dtype="float16") == [(("engine",), "AssertionError")]
    assert found(ZeroDivisionError("by zero"), dtype="float16") == [(("engine",), "ZeroDivisionError: by zero")]


@dataclass
class CacheConfig:
    gpu_memory_utilization: float = Field(default=0.9, le=1)
    cache_dtype: str = "auto"


@dataclass
class SpeculativeConfig:
    method: str = "ngram"
    rejection_sample_method: int = 0


def refusal(kind: type, **values: object) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(values)
    return caught.value


def test_a_field_of_one_of_vllms_classes_leads_to_ours() -> None:
    error = refusal(CacheConfig, gpu_memory_utilization=2.0, cache_dtype=3)
    assert found(error, gpu_memory_utilization=0.5, kv_cache_dtype="fp8") == [
        (("engine", "gpu_memory_utilization"), "must be less than or equal to 1, got 2.0"),
        (("engine", "kv_cache_dtype"), "must be a valid string, got 3"),
    ]


def test_a_field_of_speculative_decoding_leads_to_its_section_or_its_options() -> None:
    error = refusal(SpeculativeConfig, method=1, rejection_sample_method="x")
    engine = {"speculative": {**NGRAM, "options": {"rejection_sample_method": "x"}}}
    assert [".".join(path) for path, _ in found(error, **engine)] == [
        "engine.speculative.method",
        "engine.speculative.options.rejection_sample_method",
    ]


def test_a_problem_that_is_told_twice_is_written_once() -> None:
    assert dump([(("engine", "dtype"), "no"), (("engine", "dtype"), "no")]) == [{"field": ["engine", "dtype"], "message": "no"}]


def test_addresses_and_pydantics_additions_are_left_out() -> None:
    text = "Value error, <Foo object at 0x7f00aa> is wrong. [type=value_error, input_value=1, input_type=int]"
    assert plain(text) == "<Foo> is wrong."
    assert plain("2 validation errors for X\na\n  Unexpected keyword argument [type=y, input_value=1, input_type=int]") == (
        "a: unknown field"
    )


def test_the_sentence_with_what_is_allowed_is_kept_and_an_endless_one_is_cut() -> None:
    start = "An attention backend with a name of this kind is unknown to this version of the engine."
    assert short(f"{start} Valid options are: A, B. Read the manual.") == f"{start} Valid options are: A, B"
    assert len(short("x" * 5_000)) <= MOST_CHARACTERS
