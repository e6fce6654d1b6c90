from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from serve_app.config import ModelConfig, RolloutConfig
from serve_app.config_error import ConfigError
from serve_app.config_rollouts import GatesConfig, RolloutStepConfig
from serve_app.loading import parse_platform

MODEL = """\
models:
  - name: chat
    variants:
      - {name: stable, source: a/b, weight: 90}
      - {name: canary, source: a/b, weight: 10}
    rollout: %s
"""
SHADOW = MODEL.replace("rollout", "shadow")
THREE = """\
models:
  - name: chat
    variants:
      - {name: next, source: a/b, weight: 5}
      - {name: stable, source: a/b, weight: 85}
      - {name: canary, source: a/b, weight: 10}
    rollout: {steps: [{weight: 50}]}
"""
WEIGHTS = """\
models:
  - name: chat
    variants:
      - {name: stable, source: a/b, weight: %s}
      - {name: canary, source: a/b, weight: %s}
"""
PIPELINE = """\
models: [{name: chat, variants: [{name: stable, source: a/b}]}]
embedders: [{name: minilm, source: a/b}]
pipelines:
  - name: docs
    versions:
      - {name: v1, embedder: minilm, collection: docs, prompt: x, model: chat}
      - {name: v2, weight: 0, embedder: minilm, collection: docs, prompt: x, model: chat%s}
    rollout: {variant: %s, baseline: %s, steps: [{weight: 100}]}
"""


def errors(text: str) -> list[str]:
    """Return the error's lines, without the name of the file in front of each."""
    with pytest.raises(ConfigError) as caught:
        parse_platform(text, name="p.yaml")
    return [line.removeprefix("p.yaml:").strip() for line in str(caught.value).splitlines()]


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("10m", 600.0), ("1h30m", 5400.0), (90, 90.0), ("500ms", 0.5), ("1.5s", 1.5), ("1d", 86400.0), (0, 0.0)],
    ids=["minutes", "hours-and-minutes", "number", "milliseconds", "fraction", "days", "nothing"],
)
def test_a_duration_is_written_with_units_or_in_seconds(written: object, seconds: float) -> None:
    assert RolloutStepConfig.model_validate({"weight": 5, "pause": written}).pause == seconds


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("10 minutes", "'10 minutes' is no duration; write 30s, 10m, 1h30m, or a number of seconds"),
        ("-5s", "'-5s' is no duration; write 30s, 10m, 1h30m, or a number of seconds"),
        ('""', "'' is no duration; write 30s, 10m, 1h30m, or a number of seconds"),
        ('"10"', "'10' is no duration; write 30s, 10m, 1h30m, or a number of seconds"),
        ("true", "expected a number, got `true`, which YAML reads as true"),
        ("-5", "must be at least 0, got -5"),
        (".inf", "expected a finite number, got .inf"),
        ("400d", "must be at most 31622400, got '400d'"),
    ],
    ids=["word", "negative-text", "empty", "no-unit", "truth", "negative", "endless", "over-a-year"],
)
def test_what_is_no_duration_is_refused(written: str, message: str) -> None:
    step = f"{{steps: [{{weight: 50, pause: {written}}}]}}"
    assert errors(MODEL % step) == [f"6: models[0].rollout.steps[0].pause: {message}"]


WRONG = {
    "steps-do-not-grow": (
        MODEL % "\n      steps:\n      - {weight: 20}\n      - {weight: 20}\n      - {weight: 10}",
        ["9: models[0].rollout.steps[1].weight: steps must grow, 20 comes after 20"],
    ),
    "no-steps": (MODEL % "{steps: []}", ["6: models[0].rollout.steps: must not be empty"]),
    "step-of-nothing": (MODEL % "{steps: [{weight: 0}]}", ["6: models[0].rollout.steps[0].weight: must be at least 1, got 0"]),
    "step-over-100": (
        MODEL % "{steps: [{weight: 101}]}",
        ["6: models[0].rollout.steps[0].weight: must be at most 100, got 101"],
    ),
    "step-is-fractional": (
        MODEL % "{steps: [{weight: 10.5}]}",
        ["6: models[0].rollout.steps[0].weight: expected a whole number, got 10.5"],
    ),
    "variant-unknown-near": (
        MODEL % "{variant: canari, steps: [{weight: 50}]}",
        ["6: models[0].rollout.variant: variant 'canari' is not declared, did you mean `canary`?"],
    ),
    "baseline-unknown-far": (
        MODEL % "{baseline: zzz, steps: [{weight: 50}]}",
        ["6: models[0].rollout.baseline: variant 'zzz' is not declared, declared: stable, canary"],
    ),
    "both-unknown": (
        MODEL % "{variant: x, baseline: y, steps: [{weight: 50}]}",
        [
            "6: models[0].rollout.baseline: variant 'y' is not declared, declared: stable, canary",
            "6: models[0].rollout.variant: variant 'x' is not declared, declared: stable, canary",
        ],
    ),
    "baseline-without-weight": (
        (MODEL % "{steps: [{weight: 100}]}").replace("weight: 90", "weight: 0").replace("weight: 10}", "weight: 100}", 1),
        ["6: models[0].rollout.baseline: baseline 'stable' has weight 0, so there is nothing to compare with"],
    ),
    "baseline-is-the-variant": (
        MODEL % "{variant: stable, steps: [{weight: 95}]}",
        ["6: models[0].rollout.baseline: 'stable' cannot be compared with itself; name another one"],
    ),
    "step-over-what-both-have": (
        THREE.replace("- {name: next, source: a/b, weight: 5}\n      ", "")
        .replace("weight: 10}", "weight: 10}\n      - {name: next, source: a/b, weight: 5}")
        .replace("[{weight: 50}]", "[{weight: 95}, {weight: 96}]"),
        ["7: models[0].rollout.steps[1].weight: 96 is over the 95 that 'canary' and 'stable' have together"],
    ),
    "baseline-of-three-is-not-first": (
        THREE,
        [
            "7: models[0].rollout.baseline: of three or more the baseline must be declared first: "
            "its neighbours' shares stay then"
        ],
    ),
    "max-crashes-negative": (
        MODEL % "{max_crashes: -1, steps: [{weight: 50}]}",
        ["6: models[0].rollout.max_crashes: must be at least 0, got -1"],
    ),
    "on-failure-unknown": (
        MODEL % "{on_failure: rolback, steps: [{weight: 50}]}",
        ["6: models[0].rollout.on_failure: 'rolback' is not one of rollback, hold; did you mean `rollback`?"],
    ),
    "gate-unknown": (
        MODEL % "{steps: [{weight: 50}], gates: {ttft_p95: 2}}",
        ["6: models[0].rollout.gates: unknown field `ttft_p95`, did you mean `ttft_p95_ratio`?"],
    ),
    "shadow-variant-unknown": (
        SHADOW % "{variant: cannary, percent: 5}",
        ["6: models[0].shadow.variant: variant 'cannary' is not declared, did you mean `canary`?"],
    ),
    "shadow-percent-zero": (
        SHADOW % "{variant: canary, percent: 0}",
        ["6: models[0].shadow.percent: must be more than 0, got 0"],
    ),
    "shadow-percent-over-100": (
        SHADOW % "{variant: canary, percent: 100.5}",
        ["6: models[0].shadow.percent: must be at most 100, got 100.5"],
    ),
    "shadow-embedding-without-embedder": (
        SHADOW % "{variant: canary, percent: 5, compare: embedding}",
        ["6: models[0].shadow.embedder: `compare: embedding` needs an embedder; name one of `embedders`"],
    ),
    "shadow-embedder-unknown": (
        SHADOW % "{variant: canary, percent: 5, compare: embedding, embedder: minilm}",
        ["6: models[0].shadow.embedder: embedder 'minilm' is not declared, declared: none"],
    ),
    "pipeline-rollout-unknown-version": (
        PIPELINE % ("", "v3", "v1"),
        ["8: pipelines[0].rollout.variant: version 'v3' is not declared, declared: v1, v2"],
    ),
    "pipeline-baseline-without-weight": (
        PIPELINE % ("", "v1", "v2"),
        ["8: pipelines[0].rollout.baseline: baseline 'v2' has weight 0, so there is nothing to compare with"],
    ),
    "pipeline-pins-an-unknown-variant": (
        PIPELINE % (", variant: stabel", "v2", "v1"),
        ["7: pipelines[0].versions[1].variant: model 'chat' has no variant 'stabel', did you mean `stable`?"],
    ),
    "weights-under-100": (WEIGHTS % (80, 10), ["3: models[0].variants: variant weights must sum to 100, got 90"]),
    "weights-over-100": (WEIGHTS % (95, 10), ["3: models[0].variants: variant weights must sum to 100, got 105"]),
    "weight-negative": (WEIGHTS % (100, -5), ["5: models[0].variants[1].weight: must be at least 0, got -5"]),
    "weight-fractional": (WEIGHTS % (89.5, 10), ["4: models[0].variants[0].weight: expected a whole number, got 89.5"]),
    "weight-fractional-text": (
        WEIGHTS % (90, '"10.5"'),
        ["5: models[0].variants[1].weight: expected a whole number, got '10.5'"],
    ),
    "name-twice": (
        (WEIGHTS % (90, 10)).replace("canary", "stable"),
        ["5: models[0].variants[1].name: variant names must be unique, 'stable' is used more than once"],
    ),
}


@pytest.mark.parametrize(("text", "messages"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_rollout_is_refused_with_the_field_and_its_line(text: str, messages: list[str]) -> None:
    assert errors(text) == messages


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("error_rate", 0.0001),
        ("error_rate", 1),
        ("ttft_p50_ratio", 1.04),
        ("ttft_p95_ratio", 101),
        ("itl_p50_ratio", 1.0),
        ("itl_p95_ratio", 0),
        ("e2e_p95_ratio", -2),
        ("min_requests", 9),
        ("alpha", 0.21),
        ("alpha", 0),
        ("power", 0.4),
        ("power", 1),
    ],
)
def test_a_gate_that_could_not_be_tested_is_refused(field: str, bad: float) -> None:
    with pytest.raises(ValidationError) as caught:
        GatesConfig.model_validate({field: bad})
    assert [error["loc"] for error in caught.value.errors()] == [(field,)]


@pytest.mark.parametrize("text", [PIPELINE % (", variant: stable", "v2", "v1"), SHADOW % "{variant: canary, percent: 0.5}"])
def test_a_right_one_is_accepted(text: str) -> None:
    parse_platform(text, name="p.yaml")


def test_three_variants_may_roll_out_when_the_baseline_is_first() -> None:
    variants: list[dict[str, Any]] = [
        {"name": name, "source": "a/b", "weight": weight} for name, weight in (("stable", 85), ("canary", 10), ("next", 5))
    ]
    made = ModelConfig.model_validate({"name": "chat", "variants": variants, "rollout": {"steps": [{"weight": 95}]}})
    assert made.rollout == RolloutConfig(steps=(RolloutStepConfig(weight=95),))


def test_two_variants_may_stand_in_any_order() -> None:
    text = WEIGHTS % (90, 10) + "    rollout: {variant: stable, baseline: canary, steps: [{weight: 100}]}\n"
    assert parse_platform(text, name="p.yaml").models[0].rollout is not None


def test_a_load_test_is_required_by_its_scenario() -> None:
    gates = GatesConfig.model_validate({"load_test": {"scenario": "smoke", "max_age": "90m"}})
    assert gates.load_test is not None
    assert (gates.load_test.scenario, gates.load_test.max_age) == ("smoke", 5400.0)


@pytest.mark.parametrize(
    ("load_test", "said"),
    [
        pytest.param("{max_age: 1h}", "scenario", id="no-scenario"),
        pytest.param("{scenario: My test}", "gates.load_test.scenario", id="name"),
        pytest.param("{scenario: smoke, max_age: 0s}", "gates.load_test.max_age", id="age"),
        pytest.param("{scenario: smoke, maxAge: 1h}", "maxAge", id="typo"),
    ],
)
def test_a_load_test_that_cannot_be_required_is_refused(load_test: str, said: str) -> None:
    (line,) = errors(MODEL % f"{{steps: [{{weight: 50}}], gates: {{load_test: {load_test}}}}}")
    assert said in line
