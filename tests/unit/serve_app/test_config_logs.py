from __future__ import annotations

import pytest

from serve_app.config import LogsConfig
from serve_app.config_error import ConfigError
from serve_app.loading import parse_platform
from serve_app.rollout.document import routing_document

FAULTS = {
    "unclosed": ("{mask: ['(']}", "logs.mask[0]: '(' cannot be used: missing ): ("),
    "look-ahead": ("{mask: [a, 'b(?=c)']}", "logs.mask[1]: 'b(?=c)' cannot be used: invalid perl operator: (?=; RE2 has no"),
    "matches-nothing": ("{mask: ['x*']}", "logs.mask[0]: 'x*' cannot be used: it matches the empty text"),
    "empty": ("{mask: ['']}", "logs.mask[0]: must not be empty"),
    "long": (f"{{mask: ['{'a' * 201}']}}", "logs.mask[0]: must have at most 200 characters"),
    "many": (f"{{mask: [{', '.join('abcdefghijklmnopqrstu')}]}}", "logs.mask: at most 20 expressions, got 21"),
    "ratio": ("{sample_ratio: 1.5}", "logs.sample_ratio: must be at most 1, got 1.5"),
    "chars": ("{prompt_chars: 100000}", "logs.prompt_chars: must be at most 10000, got 100000"),
    "typo": ("{prompt: true}", "logs: unknown field `prompt`, did you mean `prompts`?"),
}


def test_by_default_every_request_has_a_line_and_no_prompt_is_in_it() -> None:
    config = parse_platform("models: []", name="p").logs
    assert config == LogsConfig(requests=True, sample_ratio=1.0, prompts=False, mask=())


@pytest.mark.parametrize(("logs", "said"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_named_with_its_field(logs: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_platform(f"logs: {logs}", name="p")
    assert said in str(caught.value)


def test_routers_are_told() -> None:
    config = parse_platform("logs: {prompts: true, mask: ['secret-[0-9]+']}", name="p")
    assert routing_document(config).logs == config.logs
