"""What users read when a configuration is wrong: the exact text, with field and line."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from serve_app.config_error import ConfigError
from serve_app.loading import load_platform, parse_platform, resolve

VARIANT = "models: [{name: chat, variants: [{name: stable, source: org/model, %s}]}]\n"
POOLED = VARIANT + "accelerators: [{type: L40S, per_node: 2, max_nodes: 2}]\n"
PIPELINE = """\
models: [{name: chat, variants: [{name: stable, source: org/model}]}]
embedders: [{name: minilm, source: org/embedder}]
pipelines:
  - name: docs
    versions:
      - name: v1
        embedder: minilm
        collection: docs
        prompt: %s
        model: chat
"""


def errors(text: str) -> list[str]:
    """Return the error's lines, without the name of the file in front of each."""
    with pytest.raises(ConfigError) as caught:
        parse_platform(text, name="p.yaml")
    return [line.removeprefix("p.yaml:").strip() for line in str(caught.value).splitlines()]


def load_errors(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_platform(path)
    return str(caught.value)


HASH = f"sha256:{'0' * 32}:{'0' * 64}"
WRONG = {
    "unknown-field-near": ("modles: []", "1: unknown field `modles`, did you mean `models`?"),
    "unknown-field-far": (
        "zzz: 1",
        "1: unknown field `zzz`, allowed: models, embedders, pipelines, vector_store, auth, "
        "limits, router, retriever, rollouts, scaling, logs, tracing, vector_stores, accelerators",
    ),
    "unknown-field-of-a-variant": (
        "models:\n  - name: chat\n    variants:\n      - name: stable\n        source: a/b\n        engin: {}",
        "6: models[0].variants[0]: unknown field `engin`, did you mean `engine`?",
    ),
    "field-one-level-too-high": (
        "models:\n  - name: chat\n    variants:\n      - name: stable\n        source: a/b\n        dtype: auto",
        "6: models[0].variants[0]: unknown field `dtype` here, did you mean `engine.dtype`?",
    ),
    "missing-field": (
        "models:\n  - name: chat\n    variants:\n      - {weight: 100,\n         source: a/b}",
        "4: models[0].variants[0].name: required, but missing",
    ),
    "weights-90": (
        "models:\n- name: chat\n  variants:\n  - {name: a, source: a/b, weight: 60}\n  - {name: b, source: a/b, weight: 30}",
        "3: models[0].variants: variant weights must sum to 100, got 90",
    ),
    "pipeline-weights": (
        (PIPELINE % "x").replace("name: v1", "name: v1\n        weight: 99"),
        "5: pipelines[0].versions: version weights must sum to 100, got 99",
    ),
    "weight-over-100": (VARIANT % "weight: 101", "1: models[0].variants[0].weight: must be at most 100, got 101"),
    "weight-under-0": (VARIANT % "weight: -1", "1: models[0].variants[0].weight: must be at least 0, got -1"),
    "weight-is-text": (VARIANT % "weight: many", "1: models[0].variants[0].weight: expected a whole number, got 'many'"),
    "weight-is-fractional": (VARIANT % "weight: 99.5", "1: models[0].variants[0].weight: expected a whole number, got 99.5"),
    "weight-is-truth": (
        VARIANT % "weight: yes",
        "1: models[0].variants[0].weight: expected a number, got `yes`, which YAML reads as true",
    ),
    "seconds-are-text": (
        "limits: {wait_timeout_s: 5m}",
        "1: limits.wait_timeout_s: expected a number, got '5m'",
    ),
    "seconds-are-zero": ("limits: {wait_timeout_s: 0}", "1: limits.wait_timeout_s: must be more than 0, got 0"),
    "seconds-are-endless": ("limits: {wait_timeout_s: .inf}", "1: limits.wait_timeout_s: expected a finite number, got .inf"),
    "truth-is-text": (
        VARIANT % "engine: {enforce_eager: perhaps}",
        "1: models[0].variants[0].engine.enforce_eager: expected true or false, got 'perhaps'",
    ),
    "choice-near": (
        VARIANT % "engine: {kind: vlm}",
        "1: models[0].variants[0].engine.kind: 'vlm' is not one of vllm, simulated; did you mean `vllm`?",
    ),
    "choice-far": (
        VARIANT % "engine: {dtype: int8}",
        "1: models[0].variants[0].engine.dtype: 'int8' is not one of auto, bfloat16, float16, float32",
    ),
    "name-is-truth": (
        "models:\n  - name: on\n    variants: [{name: stable, source: a/b}]",
        "2: models[0].name: expected text, got `on`, which YAML reads as true; put quotes around it",
    ),
    "name-is-number": (
        "models:\n  - name: 0x1f\n    variants: [{name: stable, source: a/b}]",
        "2: models[0].name: expected text, got 0x1f; put quotes around it",
    ),
    "name-is-no-label": (
        "embedders: [{name: Mini_LM, source: a/b}]",
        "1: embedders[0].name: use lower-case letters, digits and inner `-`, got 'Mini_LM'",
    ),
    "name-is-long": (
        f"embedders: [{{name: {'a' * 41}, source: a/b}}]",
        f"1: embedders[0].name: must have at most 40 characters, got '{'a' * 41}'",
    ),
    "source-is-no-source": (
        "embedders: [{name: e, source: a/b/c}]",
        "1: embedders[0].source: 'a/b/c' is no model source; "
        "write a Hugging Face id (org/name), a folder (./models/x) or s3://bucket/prefix",
    ),
    "section-is-empty": ("models:\nrouter: {}", "1: models: expected a list of `- ` items, got nothing"),
    "section-is-text": ("router: fast", "1: router: expected `field: value` lines, got 'fast'"),
    "list-is-fields": ("models: {name: chat}", "1: models: expected a list of `- ` items, got `field: value` lines"),
    "fields-are-a-list": ("router: [1]", "1: router: expected `field: value` lines, got a list"),
    "engine-args-are-a-list": (
        VARIANT % "engine: {engine_args: [1]}",
        "1: models[0].variants[0].engine.engine_args: expected `field: value` lines, got a list",
    ),
    "no-variants": ("models: [{name: chat, variants: []}]", "1: models[0].variants: must not be empty"),
    "empty-prompt": (PIPELINE % '""', "9: pipelines[0].versions[0].prompt: must not be empty"),
    "engine-arg-has-a-field": (
        VARIANT % "engine: {engine_args: {max_model_len: 9}}",
        "1: models[0].variants[0].engine.engine_args.max_model_len: set `engine.max_model_len` instead",
    ),
    "engine-arg-is-ours": (
        VARIANT % "engine: {engine_args: {port: 9}}",
        "1: models[0].variants[0].engine.engine_args.port: set by the platform: a replica picks its own port",
    ),
    "min-over-max": (
        VARIANT % "autoscaling: {\n min_replicas: 3, max_replicas: 2}",
        "2: models[0].variants[0].autoscaling.min_replicas: min_replicas 3 is over max_replicas 2",
    ),
    "min-over-max-of-a-stage": (
        "router:\n  autoscaling: {min_replicas: 3, max_replicas: 2}",
        "2: router.autoscaling.min_replicas: min_replicas 3 is over max_replicas 2",
    ),
    "a-stage-cannot-sleep": (
        "retriever:\n  autoscaling: {min_replicas: 0}",
        "2: retriever.autoscaling.min_replicas: must be at least 1, got 0",
    ),
    "variant-twice": (
        "models:\n- name: chat\n  variants:\n  - {name: a, source: a/b, weight: 50}\n  - {name: a, source: a/b, weight: 50}",
        "5: models[0].variants[1].name: variant names must be unique, 'a' is used more than once",
    ),
    "name-used-by-two-sections": (
        (PIPELINE % "x").replace("name: docs", "name: chat"),
        "4: pipelines[0].name: model, embedder and pipeline names must be unique, 'chat' is used more than once",
    ),
    "embedder-unknown-near": (
        (PIPELINE % "x").replace("embedder: minilm", "embedder: miniml"),
        "7: pipelines[0].versions[0].embedder: embedder 'miniml' is not declared, did you mean `minilm`?",
    ),
    "model-unknown-far": (
        (PIPELINE % "x").replace("model: chat", "model: llama"),
        "10: pipelines[0].versions[0].model: model 'llama' is not declared, declared: chat",
    ),
    "accelerator-twice": (
        "accelerators:\n  - {type: A, per_node: 1}\n  - {type: A, per_node: 2}",
        "3: accelerators[1].type: accelerator types must be unique, 'A' is used more than once",
    ),
    "origin-with-wildcard": (
        "router: {cors_origins: ['https://*.b.org']}",
        "1: router.cors_origins[0]: expected an origin such as https://app.example.org, without a path or a wildcard, "
        "or `*` for all, got 'https://*.b.org'",
    ),
    "accelerator-is-two-words": (
        "accelerators: [{type: NVIDIA L40S, per_node: 1}]",
        "1: accelerators[0].type: expected one word such as L40S, got 'NVIDIA L40S'",
    ),
    "accelerator-unknown": (
        POOLED % "accelerator: L40",
        "1: models[0].variants[0].accelerator: 'L40' is not in `accelerators`, did you mean `L40S`?",
    ),
    "embedder-accelerator-unknown": (
        "embedders: [{name: e, source: a/b, accelerator: T4}]\naccelerators: [{type: L40S, per_node: 1}]",
        "1: embedders[0].accelerator: 'T4' is not in `accelerators`, declared: L40S",
    ),
    "tensor-parallel-over-a-node": (
        POOLED % "accelerator: L40S, engine: {tensor_parallel_size: 4}",
        "1: models[0].variants[0].engine.tensor_parallel_size: 4 ranks do not fit the 2 L40S of one node; "
        "raise pipeline_parallel_size instead",
    ),
    "one-replica-over-the-pool": (
        POOLED % "accelerator: L40S, engine: {tensor_parallel_size: 2, pipeline_parallel_size: 3}",
        "1: models[0].variants[0].engine: 1 replica of 2 x 3 ranks need 6 L40S, 4 declared",
    ),
    "replicas-over-the-pool": (
        POOLED % "accelerator: L40S, replicas: 5",
        "1: models[0].variants[0].replicas: 5 replicas of 1 x 1 ranks need 5 L40S, 4 declared",
    ),
    "autoscaling-over-the-pool": (
        POOLED % "accelerator: L40S, autoscaling: {min_replicas: 0, max_replicas: 5}",
        "1: models[0].variants[0].autoscaling.max_replicas: 5 replicas of 1 x 1 ranks need 5 L40S, 4 declared",
    ),
    "all-variants-over-the-pool": (
        "models:\n- name: chat\n  variants:\n"
        "  - {name: a, source: a/b, weight: 90, accelerator: L40S, replicas: 3}\n"
        "  - {name: b, source: a/b, weight: 10, accelerator: L40S, replicas: 2}\n"
        "accelerators:\n  - {type: L40S, per_node: 4}",
        "7: accelerators[0]: 2 variants need at least 5 L40S together, 4 declared",
    ),
    "field-twice": ("router: {}\nlimits: {}\nrouter: {}", "3: router: `router` stands here twice, first on line 1"),
    "key-twice": (
        f"auth:\n  keys:\n    - {{name: a, hash: '{HASH}'}}\n    - {{name: a, hash: '{HASH}'}}",
        "4: auth.keys[1].name: key names must be unique, 'a' is used more than once",
    ),
    "key-is-not-repeated": (
        "auth: {keys: [{name: a, hash: manta_a_real-key}]}",
        "1: auth.keys[0].hash: expected `sha256:<salt>:<digest>` as `manta keys create NAME` prints it",
    ),
    "key-of-the-old-form": (
        f"auth:\n  keys:\n    - name: a\n      sha256: '{'0' * 64}'",
        "4: auth.keys[0].sha256: unsalted digests are no longer accepted; make a new key with `manta keys create NAME`, "
        "use its `hash`",
    ),
    "key-for-an-unknown-model": (
        f"auth: {{keys: [{{name: a, hash: '{HASH}', models: [chat]}}]}}",
        "1: auth.keys[0].models[0]: 'chat' is not declared, declared: none",
    ),
    "key-that-expires-somewhere": (
        f"auth: {{keys: [{{name: a, hash: '{HASH}', expires_at: 2030-01-31 12:00}}]}}",
        "1: auth.keys[0].expires_at: needs a time zone, such as 2030-01-31T00:00:00Z, got '2030-01-31 12:00'",
    ),
    "key-that-expires-never": (
        f"auth: {{keys: [{{name: a, hash: '{HASH}', expires_at: never}}]}}",
        "1: auth.keys[0].expires_at: expected a time such as 2030-01-31T00:00:00Z, got 'never'",
    ),
    "key-that-expires-on-a-day": (
        f"auth: {{keys: [{{name: a, hash: '{HASH}', expires_at: 2030-01-31}}]}}",
        "1: auth.keys[0].expires_at: needs a time zone, such as 2030-01-31T00:00:00Z, got '2030-01-31'",
    ),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_field_is_named_with_its_line_and_reason(text: str, message: str) -> None:
    assert errors(text) == [message]


def test_all_problems_come_at_once_in_the_order_of_the_lines() -> None:
    assert errors("router:\n  replicas: 0\nmodles: []\nlimits:\n  max_waiting: x\n  max_waiting: 3\n") == [
        "2: router.replicas: must be at least 1, got 0",
        "3: unknown field `modles`, did you mean `models`?",
        "5: limits.max_waiting: expected a whole number, got 'x'",
        "6: limits.max_waiting: `max_waiting` stands here twice, first on line 5",
    ]


def test_variants_on_cpu_need_nothing_of_the_accelerators() -> None:
    assert parse_platform(POOLED % "replicas: 9, engine: {tensor_parallel_size: 8}", name="p.yaml").models[0].name == "chat"


def test_items_that_failed_do_not_make_their_list_empty() -> None:
    assert errors("models:\n  - name: chat\n    variants: [{name: stable}]") == [
        "3: models[0].variants[0].source: required, but missing"
    ]


def test_a_hopeless_file_is_not_listed_in_full() -> None:
    lines = errors("".join(f"field{i}: 1\n" for i in range(60)))
    assert (len(lines), lines[-1]) == (51, "10 more")


def test_an_error_survives_the_way_between_processes() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_platform("modles: []", name="p.yaml")
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - made one line above
    assert (str(copy), copy.problems) == (str(caught.value), caught.value.problems)


def test_a_truth_value_from_elsewhere_than_yaml_is_described_too() -> None:
    assert errors('router: {"replicas": !!bool "true"}') == ["1: router.replicas: expected a number, got true"]


def test_relative_paths_start_at_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "ask.j2").write_text("{% for h in hits %}{{ h.text }}{% endfor %} {{ question }}", encoding="utf-8")
    text = (PIPELINE % "ask.j2").replace("org/model", "./m").replace("org/embedder", "./m")
    (tmp_path / "p.yaml").write_text(text + "vector_store: {uri: data/x}\n", encoding="utf-8")
    config = load_platform(tmp_path / "p.yaml")
    assert (
        config.models[0].variants[0].source,
        config.embedders[0].source,
        config.vector_store.uri,
        config.pipelines[0].versions[0].prompt,
    ) == (str(tmp_path / "m"), str(tmp_path / "m"), str(tmp_path / "data/x"), (tmp_path / "ask.j2").read_text())
    assert resolve(config, Path("/elsewhere")) == config


@pytest.mark.parametrize("uri", ["s3://bucket/lance", "/var/lib/lance"])
def test_a_store_that_is_no_relative_folder_stays(uri: str) -> None:
    config = parse_platform(f"vector_store: {{uri: '{uri}'}}", name="p.yaml")
    assert resolve(config, Path("/root-of-config")).vector_store.uri == uri


def test_a_missing_model_folder_is_named_with_line_and_fix(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("models:\n- name: chat\n  variants:\n  - name: a\n    source: ./gone\n", encoding="utf-8")
    assert load_errors(tmp_path / "p.yaml") == (
        f"{tmp_path}/p.yaml:5: models[0].variants[0].source: the model folder '{tmp_path}/gone' does not exist; "
        "put the weights there, or write a Hugging Face id (org/name) or s3://bucket/prefix"
    )


def test_a_file_in_place_of_a_model_folder_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("embedders: [{name: e, source: ./p.yaml}]", encoding="utf-8")
    assert "p.yaml' is a file, not a model folder; " in load_errors(tmp_path / "p.yaml")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("embedders: [{name: e, source: ./}]", encoding="utf-8")
    assert load_errors(tmp_path / "p.yaml") == (
        f"{tmp_path}/p.yaml:1: embedders[0].source: the model folder '{tmp_path}' has no config.json; "
        "name the folder that holds config.json and the weights"
    )


def test_a_simulated_variant_needs_no_folder(tmp_path: Path) -> None:
    text = (VARIANT % "engine: {kind: simulated}").replace("org/model", "./gone")
    (tmp_path / "p.yaml").write_text(text, encoding="utf-8")
    assert load_platform(tmp_path / "p.yaml").models[0].variants[0].source == str(tmp_path / "gone")


def test_a_missing_prompt_file_is_named_with_line_and_fix(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(PIPELINE % "prompts/x.j2", encoding="utf-8")
    assert load_errors(tmp_path / "p.yaml") == (
        f"{tmp_path}/p.yaml:9: pipelines[0].versions[0].prompt: the prompt file '{tmp_path}/prompts/x.j2': no such file; "
        "write its path relative to this file, or the template text itself"
    )


def test_files_of_another_machine_can_be_left_unchecked(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text((PIPELINE % "x.j2").replace("org/model", "./gone"), encoding="utf-8")
    config = load_platform(tmp_path / "p.yaml", check_files=False)
    assert config.pipelines[0].versions[0].prompt == "x.j2"


def test_an_invalid_prompt_is_refused_even_then(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(PIPELINE % "'{{ hits'", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"p.yaml:9: pipelines\[0\].versions\[0\].prompt: no valid Jinja2 template: line 1:"):
        load_platform(tmp_path / "p.yaml", check_files=False)


def test_without_a_text_an_error_names_the_field_only() -> None:
    config = parse_platform("embedders: [{name: e, source: ./gone}]", name="p.yaml")
    with pytest.raises(ConfigError, match=r"^configuration: embedders\[0\].source: the model folder '/x/gone'"):
        resolve(config, Path("/x"))


def test_a_missing_file_is_named_and_its_neighbour_suggested(tmp_path: Path) -> None:
    (tmp_path / "platform.yaml").write_text("", encoding="utf-8")
    assert load_errors(tmp_path / "platfrom.yml") == f"{tmp_path}/platfrom.yml: no such file, did you mean `platform.yaml`?"
    assert load_errors(tmp_path / "none" / "x.yaml") == f"{tmp_path}/none/x.yaml: no such file"
    assert load_errors(tmp_path / "zzz") == f"{tmp_path}/zzz: no such file"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert load_errors(tmp_path) == f"{tmp_path}: this is a folder; name the file in it"


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_bytes(b"models: \xff\xfe")
    assert load_errors(tmp_path / "p.yaml") == f"{tmp_path}/p.yaml: this is not UTF-8 text"


def test_an_unreadable_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)  # tests may run as root, whom no mode stops
    assert load_errors(Path("/p.yaml")) == "/p.yaml: cannot be read: permission denied"


def test_an_endless_file_is_read_up_to_the_bound_only() -> None:
    assert load_errors(Path("/dev/zero")) == "/dev/zero: longer than the 262,144 characters that are read"


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_bytes(b"\xef\xbb\xbfrouter: {replicas: 2}\n")
    assert load_platform(tmp_path / "p.yaml").router.replicas == 2


def test_the_demo_platform_is_valid() -> None:
    config = load_platform(Path(__file__).parents[3] / "platform.yaml", check_files=False)
    assert [model.name for model in config.models] == ["chat"]
    assert [embedder.name for embedder in config.embedders] == ["minilm"]
    assert [pipeline.name for pipeline in config.pipelines] == ["docs-assistant"]


def test_the_file_of_keys_is_found_next_to_the_platform_and_not_read_into_it(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("auth: {keys_file: keys.yaml}", encoding="utf-8")
    (tmp_path / "keys.yaml").write_text(f"keys: [{{name: a, hash: '{HASH}'}}]", encoding="utf-8")
    auth = load_platform(tmp_path / "p.yaml").auth
    assert (auth.keys_file, auth.keys, auth.is_on) == (str(tmp_path / "keys.yaml"), (), True)


def test_a_missing_file_of_keys_is_named_with_line_and_fix(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("auth:\n  keys_file: keys.yaml\n", encoding="utf-8")
    assert load_errors(tmp_path / "p.yaml") == (
        f"{tmp_path}/p.yaml:2: auth.keys_file: {tmp_path}/keys.yaml: no such file; "
        "write its path relative to this file; `manta keys create` makes one"
    )
    assert load_platform(tmp_path / "p.yaml", check_files=False).auth.keys_file == str(tmp_path / "keys.yaml")


def test_what_is_wrong_in_the_file_of_keys_is_found_with_the_platform(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(f"auth: {{keys: [{{name: a, hash: '{HASH}'}}], keys_file: keys.yaml}}", encoding="utf-8")
    (tmp_path / "keys.yaml").write_text(f"keys: [{{name: a, hash: '{HASH}'}}]", encoding="utf-8")
    assert "keys[0].name: 'a' is in `auth.keys` too" in load_errors(tmp_path / "p.yaml")
